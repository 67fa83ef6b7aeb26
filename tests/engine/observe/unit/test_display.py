"""The display: plain lines when piped, a live panel on a terminal, the table at the end."""

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from verl_lite.engine.observe import StepReport, SummaryRow, make_display, summary_table

REPORT = StepReport(
    step=3,
    num_steps=40,
    reward=0.5,
    components={"correct": 0.25, "format": 1.0},
    accuracy=0.125,
    tokens_per_s=12345.6,
    seconds={"rollout": 0.3, "reward": 0.01, "update": 0.2, "sync": 0.02},
)
LINE = (
    "step    3/40  reward 0.500 (correct 0.250 format 1.000)  accuracy  12.5%  12,346 tokens/s  "
    "rollout 0.30s reward 0.01s update 0.20s sync 0.02s"
)


def test_piped_output_is_one_line_a_step() -> None:
    text = io.StringIO()
    display = make_display(Console(file=text, width=60))
    display.note("hello [bold]")
    for step in range(20):
        display.sft_step(step, 20, 0.5)
    display.step(REPORT)
    display.finish()
    lines = text.getvalue().splitlines()
    assert lines[0] == "hello [bold]"
    assert lines[-1] == LINE
    assert len(lines) == 12  # every second of the 20 SFT steps
    assert "\x1b" not in text.getvalue()


def test_a_terminal_gets_a_panel_with_the_split_of_the_time() -> None:
    text = io.StringIO()
    display = make_display(Console(file=text, force_terminal=True, width=100))
    display.sft_step(4, 10, 0.5)
    display.step(REPORT)
    display.finish()
    shown = text.getvalue()
    for part in ("correct", "0.250", "12.5%", "rollout", "57%", "3/40"):
        assert part in shown


def test_where_nothing_can_be_redrawn_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_dumb in (True, False):
        text = io.StringIO()
        if is_dumb:
            monkeypatch.setenv("TERM", "dumb")
            console = Console(file=text, force_terminal=True, width=60)
        else:  # a pipe under FORCE_COLOR, as open_run makes it
            console = Console(file=text, force_terminal=True, force_interactive=False, width=60)
        display = make_display(console)
        display.step(REPORT)
        display.finish()
        assert text.getvalue() == LINE + "\n"


def test_the_table_shows_before_and_after() -> None:
    text = io.StringIO()
    rows = [SummaryRow(name="accuracy", before=0.5, after=0.975, is_fraction=True)]
    Console(file=text, width=80).print(summary_table(rows, title="quickstart"))
    (row,) = [line for line in text.getvalue().splitlines() if "accuracy" in line]
    assert row.split("│")[1:4] == [" accuracy         ", "  50.0% ", " 97.5% "]


def test_the_panel_and_the_table_fit_80_columns() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, color_system=None)
    display = make_display(console)
    display.step(REPORT)
    display.finish()
    console.print(summary_table([SummaryRow(name="reward mean", before=0.1, after=0.9)], title="quickstart"))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    lines = plain.replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.strip().startswith("rollout") and "57%" in line for line in lines)
    assert "…" not in plain


def test_quiet_says_notes_only_and_json_is_one_object_a_line() -> None:
    shown = {}
    for mode in ("quiet", "json"):
        text = io.StringIO()
        display = make_display(Console(file=text, force_terminal=True, width=40), mode)
        display.note("warning entropy: [low]")
        display.sft_step(0, 5, 0.5)
        display.step(replace(REPORT, reward=float("nan")))
        display.finish()
        shown[mode] = text.getvalue()
    assert shown["quiet"] == "warning entropy: [low]\n"
    objects = [json.loads(line) for line in shown["json"].splitlines()]
    assert [one["kind"] for one in objects] == ["note", "sft_step", "step"]
    assert objects[0]["text"] == "warning entropy: [low]"
    assert objects[2]["components"] == {"correct": 0.25, "format": 1.0}
    assert objects[2]["reward"] is None
