"""Whole runs on data as people have it: several data sets, dated templates, rows that nothing judges."""

import datetime
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from verl_lite.cli import main
from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.rundir import fingerprints
from verl_lite.errors import ConfigError, TrainingError
from verl_lite.plugins import validate
from verl_lite.plugins.records import read_records

DATED = (
    "<|system|>{{ strftime_now('%d.%m.') }}<|end|>"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def run(tree: dict[str, Any], folder: Path, **options: Any) -> str:
    """Train quietly; returns what was shown."""
    shown = io.StringIO()
    config = validate(TrainConfig, tree, source="test")
    train(config, run_dir=folder, debug_inline=True, console=Console(file=shown, width=300), **options)
    return shown.getvalue()


def on_day(monkeypatch: pytest.MonkeyPatch, day: datetime.date) -> None:
    class Fixed(datetime.date):
        @classmethod
        def today(cls) -> Any:
            return day

    monkeypatch.setattr(fingerprints, "date", Fixed)


def test_a_dated_template_is_resumed_on_another_day(
    small_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "dated.jinja"
    template.write_text(DATED)
    small_run["data"] |= {"chat_template": str(template)}
    small_run["rollout"] |= {"max_prompt_tokens": 30}
    small_run["steps"] = 1
    on_day(monkeypatch, datetime.date(2031, 3, 5))
    run(small_run, tmp_path / "run")
    on_day(monkeypatch, datetime.date(2031, 9, 17))
    small_run["steps"] = 2
    assert "resumed from" in run(small_run, tmp_path / "run", resume=True)
    for step in (1, 2):
        records = list(read_records(tmp_path / "run" / "rollouts" / f"step_{step:06d}.parquet"))
        assert len({tuple(record.rollout.prompt_ids) for record in records}) == 6
    ids = {tuple(record.rollout.prompt_ids[:7]) for record in records}
    assert len(ids) == 1
    from verl_lite.engine.model import build_tiny_tokenizer

    assert build_tiny_tokenizer().decode(list(ids.pop())) == "<|system|>05.03."
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["date"] == "2031-03-05"
    with pytest.raises(ConfigError, match="--resume: data differ"):
        run(small_run | {"data": small_run["data"] | {"date": "2031-01-01"}}, tmp_path / "run", resume=True)


def test_rows_that_no_reward_judges_stop_the_run_in_its_first_step(
    small_run: dict[str, Any], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"{n}+1=", "gold": n + 1}) + "\n" for n in range(10)))
    small_run["data"] = {"train": {"path": str(rows), "reference": ""}}
    small_run["rewards"] = {"correct": {"use": "math"}, "same": {"use": "exact"}}
    with pytest.raises(TrainingError) as caught:
        run(small_run, tmp_path / "run")
    assert str(caught.value) == (
        "step 1: no reward judged any of 24 completions: correct: the rollout has no reference (24 times); "
        "same: the rollout has no reference (24 times). The first row has no reference and the columns "
        "question, gold: name the column with the right answer in reference (of data.train), or the columns "
        "that the rewards read in their options"
    )
    small_run["data"]["train"] |= {"reference": "gold"}
    small_run["steps"] = 1
    run(small_run, tmp_path / "other")


def test_several_data_sets_with_weights_and_rewards_of_their_own(
    small_run: dict[str, Any], tmp_path: Path
) -> None:
    for name, count in (("sums", 12), ("words", 9)):
        rows = [{"question": f"{name[0]}{n}=", "reference": str(n)} for n in range(count)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    small_run["data"]["train"] = [
        {"name": "sums", "path": str(tmp_path / "sums.json"), "weight": 2},
        {"name": "words", "path": str(tmp_path / "words.json")},
    ]
    digits = small_run["rewards"]["digits"]
    brief = {"use": "length", "sources": ["words"], "options": {"target": 4}}
    small_run["rewards"] = {"digits": digits | {"sources": ["sums"]}, "brief": brief}
    small_run["steps"] = 2
    run(small_run, tmp_path / "whole")
    records = [list(read_records(path)) for path in sorted((tmp_path / "whole" / "rollouts").iterdir())]
    for step in records:
        sources = [record.rollout.columns["data_source"] for record in step]
        assert (sources.count("sums"), sources.count("words")) == (16, 8)
        for record in step:
            judged = {name for name, part in record.components.items() if part.value is not None}
            assert judged == ({"digits"} if record.rollout.columns["data_source"] == "sums" else {"brief"})
    small_run["steps"] = 1
    run(small_run, tmp_path / "resumed")
    small_run["steps"] = 2
    run(small_run, tmp_path / "resumed", resume=True)
    for step, before in enumerate(records, start=1):
        again = read_records(tmp_path / "resumed" / "rollouts" / f"step_{step:06d}.parquet")
        assert [(one.rollout.id, one.rollout.completion) for one in again] == [
            (one.rollout.id, one.rollout.completion) for one in before
        ]
    assert len(read_metrics(tmp_path / "resumed" / "metrics.jsonl")) == 2


NO_TOOLS = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": [{"role": "user", "content": [{"type": "image"}]}], "reference": "1"}],
         "row 0, column 'question', message 0: its content has a part of type 'image'"),
        ([{"question": "a", "reference": "1", "images": ["a.png"]}], "column 'images' has images of this"),
        ([{"question": [{"role": "narrator", "content": "a"}]}], "knows no role 'narrator'"),
        ([{"question": "a", "reference": "1", "tools": [{"type": "function", "function": {"name": "f"}}]}],
         "the chat template leaves out the tool 'f'"),
        ([{"question": "a", "answer": "1"}], "no column 'reference'; it has question, answer"),
    ],
)  # fmt: skip
def test_config_check_refuses_rows_that_cannot_be_trained(
    rows: list[Any], said: str, small_run: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "no_tools.jinja").write_text(NO_TOOLS)
    small_run["data"] = {
        "train": {"path": str(tmp_path / "rows.jsonl")},
        "chat_template": str(tmp_path / "no_tools.jinja"),
    }
    (tmp_path / "run.yaml").write_text(json.dumps(small_run))
    monkeypatch.setattr("sys.argv", ["verl-lite", "config", "check", str(tmp_path / "run.yaml")])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert error.count("\n") == 1
