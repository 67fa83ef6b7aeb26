"""At a terminal: one line per mistake, help of 80 columns, bars that leave stdout alone."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.main

from verl_lite.cli.app import app
from verl_lite.cli.terminal import console, print_rows

Cli = Callable[..., int]


@pytest.fixture
def cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run the command in `tmp_path`, at 80 columns and without colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return cli


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rows = [{"group": str(i // 2), "completion": str(i), "reference": "1"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rewards.yaml").write_text("rewards: {correct: {use: exact}}\n")
    return tmp_path


MISTAKES = {
    "scor": "No such command 'scor'. Did you mean 'score', 'doctor'? (see `verl-lite --help`)",
    "plugins shwo": "No such command 'shwo'. Did you mean 'show'? (see `verl-lite plugins --help`)",
    "score": "Missing argument 'rollouts' (see `verl-lite score --help`)",
    "score rows.jsonl": "Missing option '--config' / '-c' (see `verl-lite score --help`)",
    "score rows.jsonl -c rewards.yaml --workrs 2": "No such option: --workrs",
    "attack -c rewards.yaml --max-rate 3": "Invalid value for '--max-rate'",
    "attack -c rewards.yaml --family none": "--family 'none': the families are",
    "score rows.jsonl -c none.yaml": "cannot read the config none.yaml",
    "check none.jsonl -c rewards.yaml": "none.jsonl",
    "diff rows.jsonl -a rewards.yaml": "nothing to compare: give -b NEW.yaml",
    "report none.jsonl": "none.jsonl",
    "train none.yaml": "cannot read the config none.yaml",
    "plugins show none": "none",
    "doctor --address auto": "--address auto belongs to --cluster",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    cli: Cli, files: Path, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    assert cli(*arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    assert MISTAKES[arguments] in err


NEED_TORCH = ("train", "sft", "eval", "diagnose", "config check")
WITHOUT_TORCH = """
import sys
from verl_lite.cli import main
sys.modules["torch"] = None
config, *commands = sys.argv[1:]
for command in commands:
    sys.argv = ["verl-lite", *command.split(), config]
    try:
        main()
    except SystemExit as ended:
        print(ended.code)
"""


def test_without_torch_a_command_names_the_extra() -> None:
    config = Path(__file__).parents[3] / "examples" / "quickstart.yaml"
    command = [sys.executable, "-c", WITHOUT_TORCH, config, *NEED_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2"] * len(NEED_TORCH)
    message = "error: this needs torch, which is not installed: pip install 'verl-lite[train]'\n"
    assert done.stderr == message * len(NEED_TORCH)


def _commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    children = getattr(command, "commands", {})
    yield path
    for name, child in children.items():
        yield from _commands(child, (*path, name))


@pytest.mark.parametrize("path", [*_commands(typer.main.get_command(app))], ids=" ".join)
def test_help_fits_80_columns_and_has_an_example(
    cli: Cli, capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    assert cli(*path, "--help") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert f"verl-lite {path[0]} " in out if path else "verl-lite train examples/quickstart.yaml" in out


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


WORK = {
    "score rows.jsonl -c rewards.yaml --no-cache": ["reading", "scoring"],
    "check rows.jsonl -c rewards.yaml": ["reading", "scoring", "probing"],
    "diff rows.jsonl -a rewards.yaml -b rewards.yaml --no-cache": ["scoring", "comparing"],
    "attack -c rewards.yaml rows.jsonl": ["attacking"],
    "report rows.jsonl -o r.html": ["reading", "collecting"],
}


@pytest.mark.parametrize("arguments", WORK)
def test_long_work_shows_bars_on_a_terminal_and_nothing_in_a_pipe(
    cli: Cli, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    code = cli(*arguments.split())
    text = shown.getvalue()
    assert [what for what in WORK[arguments] if what not in text] == []
    assert "left" in text
    assert re.search(r"\[ ━*╸? *\]", text)  # without colours, brackets show how long the bar is
    assert not re.search(r"\x1b\[[0-9;]*m", text)  # NO_COLOR: the cursor moves, no colours
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    on_terminal = capsys.readouterr().out
    (files / "r.html").unlink(missing_ok=True)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert cli(*arguments.split()) == code
    assert sys.stderr.getvalue() == ""
    assert _comparable(capsys.readouterr().out) == _comparable(on_terminal)


ODD = "π 😀 █ \\boxed{2}"
ESCAPED = ODD.replace("π", "\\u03c0").replace("😀", "\\ud83d\\ude00").replace("█", "\\u2588")
SHOWN = {"ascii": ESCAPED, "cp1252": ESCAPED, "utf-8": ODD}
PRINTED = {
    "check odd.jsonl -c rewards.yaml --label label": "text",
    "check odd.jsonl -c rewards.yaml --label label --json": "json",
    "data check odd.jsonl": "bars",
    "plugins new π": "mistake",
    "score --help": "help",
}


@pytest.mark.parametrize("encoding", SHOWN)
@pytest.mark.parametrize("arguments", PRINTED)
def test_no_encoding_ends_a_command(
    cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, arguments: str
) -> None:
    """What a terminal cannot show is escaped as JSON does it: --json stays JSON, with nothing lost."""
    row = {"question": "1+1?", "answer": "2", "completion": ODD, "reference": "2", "label": False}
    (files / "odd.jsonl").write_text(json.dumps(row) + "\n")
    (files / "rewards.yaml").write_text("rewards: {correct: {use: math}}\n")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(console, "_file", streams[0])  # reading `file` would bind it to this test
    code = cli(*arguments.split())
    for stream in streams:
        stream.seek(0)
    printed, said = (stream.read() for stream in streams)
    match PRINTED[arguments]:
        case "text":
            assert SHOWN[encoding] in printed
        case "json":
            assert ODD in json.dumps(json.loads(printed), ensure_ascii=False).replace("\\\\", "\\")
        case "bars":
            assert ("█" if encoding == "utf-8" else "#") * 40 + " 1" in printed
        case "mistake":
            assert said.startswith(f"error: plugins new {SHOWN[encoding].split()[0]}: expected")
            assert code == 2
        case "help":
            assert "Usage: verl-lite score" in printed


def _comparable(text: str) -> list[str]:
    """The words, without what was measured."""
    return re.sub(r"\d[\d.,e-]*( s\b|/s)|[\d.e-]+$", "#", text, flags=re.M).split()


ROWS = [
    ["  ok", "first", "one two three " * 12 + "pin it with verl-lite score --update-golden"],
    [" note", "the second", "line one\nline two"],
]


def test_on_a_terminal_the_last_column_is_wrapped_below_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(console, "_width", 60)  # it keeps the width of where it was made
    print_rows(ROWS)
    first, *rest, one, two = capsys.readouterr().out.splitlines()
    assert first.startswith("  ok   first       one two three")
    assert rest
    assert all(line.startswith(" " * 19 + line.strip()) for line in rest)
    assert " ".join([first[19:], *map(str.strip, rest)]) == ROWS[0][2].strip()
    assert max(map(len, [first, *rest])) <= 60
    assert any("--update-golden" in line for line in rest)
    assert (one, two) == (" note  the second  line one", " " * 19 + "line two")


def test_in_a_pipe_every_row_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_rows(ROWS[:1])
    assert capsys.readouterr().out == f"  ok  first  {ROWS[0][2].strip()}\n"
