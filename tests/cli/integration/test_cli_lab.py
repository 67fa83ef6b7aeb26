"""score, diff and check from the command line: output, JSON, gates and mistakes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from verl_lite.lab.preferences import PreferenceRow, write_preferences

Cli = Callable[..., int]


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    path = tmp_path / "rollouts.jsonl"
    rows = [
        {"group": "a", "completion": "<answer>4</answer>", "reference": "4", "ok": True},
        {"group": "a", "completion": "5", "reference": "4", "ok": False},
        {"group": "b", "completion": "7", "reference": "7", "ok": True},
        {"group": "b", "completion": "8", "reference": "7", "ok": False},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text("rewards: {correct: {use: exact}}\n")
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    path = tmp_path / "new.yaml"
    path.write_text("rewards: {correct: {use: exact, options: {answer_tag: answer}}}\n")
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A reward that always raises, deep in a library, beside one that works."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import json\nfrom verl_lite.plugins import reward\n"
        "def read(text):\n    return json.loads(text)\n"
        "@reward('mine')\ndef mine(rollout):\n    return read('{' + rollout.completion)\n"
    )
    path = tmp_path / "broken.yaml"
    path.write_text(f"rewards: {{mine: {{use: '{mine}:mine'}}, correct: {{use: exact}}}}\n")
    return path


def test_a_reward_that_always_raises_says_why_and_ends_with_1(
    cli: Cli, rollouts: Path, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("score", rollouts, "-c", broken) == 1
    printed = capsys.readouterr().out
    where = f"{broken.with_name('mine.py')}:4"
    assert "mine: 4 error: JSONDecodeError: Expecting property name" in printed
    assert f"; first row row-1; {where}" in printed
    assert "gate: no row has a value of: mine" in printed
    assert cli("score", rollouts, "-c", broken, "--json") == 1
    [reason] = json.loads(capsys.readouterr().out)["components"]["mine"]["reasons"]
    assert (reason["count"], reason["id"], reason["where"]) == (4, "row-1", where)
    assert cli("check", rollouts, "-c", broken, "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    dead = next(finding for finding in findings if finding["check"] == "dead components")
    assert dead["numbers"]["reasons"] == [reason]


def test_score_prints_a_table(
    cli: Cli, rollouts: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("score", rollouts, "-c", old) == 0
    printed = capsys.readouterr().out
    assert "correct" in printed
    assert "4 rollouts in" in printed
    assert "mean reward 0.25" in printed


def test_score_as_json(cli: Cli, rollouts: Path, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("score", rollouts, "-c", old, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["num_rows"] == 4
    assert summary["components"]["correct"]["outcomes"] == {"ok": 4}


def test_diff_counts_flips_and_gates_on_them(
    cli: Cli, rollouts: Path, old: Path, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("diff", rollouts, "-a", old, "-b", new, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    correct = report["components"]["correct"]
    assert (correct["flips_up"], correct["flips_down"]) == (1, 1)
    assert (report["grpo"]["gained_all_variance"], report["grpo"]["lost_all_variance"]) == (1, 1)
    assert cli("diff", rollouts, "-a", old, "-b", new, "--fail-on-flips", 2) == 0
    assert cli("diff", rollouts, "-a", old, "-b", new, "--fail-on-flips", 1) == 1
    assert "gate: 2 verdicts flipped, at most 1" in capsys.readouterr().out


def test_diff_against_the_recorded_scores(
    cli: Cli, rollouts: Path, old: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = tmp_path / "scored.parquet"
    assert cli("score", rollouts, "-c", old, "-o", scored) == 0
    assert cli("diff", scored, "-a", "recorded", "-b", old, "--fail-on-flips", 0) == 0
    assert cli("diff", scored, "-a", "recorded", "-b", new, "--fail-on-flips", 0) == 1


def test_diff_of_two_environments(
    cli: Cli, rollouts: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path(sys.executable).parent.parent
    code = cli("diff", rollouts, "-a", old, "--a-env", here, "--b-env", here, "--fail-on-flips", 0)
    assert code == 0
    assert cli("diff", rollouts, "-a", old, "--b-env", rollouts.parent) == 2
    assert "no verl-lite command" in capsys.readouterr().err


def test_check_gates(cli: Cli, rollouts: Path, old: Path, new: Path) -> None:
    assert cli("check", rollouts, "-c", old, "--label", "ok") == 0
    dead = old.with_name("dead.yaml")
    dead.write_text("rewards: {correct: {use: exact, options: {answer_tag: nowhere}}}\n")
    assert cli("check", rollouts, "-c", dead) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "absent.jsonl", "-c", "OLD"], "no file at absent.jsonl"),
        (["score", "ROLLOUTS", "-c", "absent.yaml"], "cannot read the config absent.yaml"),
        (["check", "ROLLOUTS", "-c", "OLD", "--label", "okay"], "no label column 'okay'"),
        (["diff", "ROLLOUTS", "-a", "OLD"], "nothing to compare"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_two(
    cli: Cli,
    rollouts: Path,
    old: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    names = {"ROLLOUTS": str(rollouts), "OLD": str(old)}
    assert cli(*(names.get(argument, argument) for argument in arguments)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors


def test_agreement_of_one_annotator_says_so(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = PreferenceRow(
        prompt=[{"role": "user", "content": "q"}],
        completions=["a", "b"],
        ranks=[1, 2],
        source="human",
        annotator="ann",
    )
    write_preferences(tmp_path / "ann.jsonl", [row, row])
    assert cli("preferences", "agreement", tmp_path / "ann.jsonl") == 0
    said = capsys.readouterr().out
    assert said == "no two annotators judged the same pair: the 2 rows are by human/ann\n"


def test_export_of_what_is_no_checkpoint(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("export", tmp_path / "nothing", tmp_path / "model") == 2
    assert "is not a checkpoint: expected a folder such as runs/NAME/checkpoints" in capsys.readouterr().err


def test_scoring_never_imports_torch(rollouts: Path, old: Path) -> None:
    code = (
        "import sys; from verl_lite.cli import app\n"
        f"app.app(['score', {str(rollouts)!r}, '-c', {str(old)!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
