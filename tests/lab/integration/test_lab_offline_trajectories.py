"""A file of 2,000 trajectories with tool calls: scored, checked, attacked, reported, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from verl_lite.lab.report.report_data import collect

NUM_TRAJECTORIES = 2000
CALLS = '''
from verl_lite.plugins import Score, StepScore


def calls_well(rollout):
    """The share of tool calls that worked."""
    results = [turn for turn in rollout.turns if turn.role == "tool"]
    good = sum(turn.outcome == "ok" for turn in results)
    places = [at for at, turn in enumerate(rollout.turns) if turn.tool_calls]
    steps = tuple(StepScore(at, at + 1, 0.1, "turn") for at in places)
    return Score(good / len(results) if results else None, steps=steps)
'''
CONFIG = """
rewards:
  correct: {use: math, weight: 1.0}
  calls: {use: "./calls.py:calls_well", weight: 0.1}
"""
# what nobody may import: the command then runs as in an environment of the core alone
NO_TORCH = "import sys; sys.modules['torch'] = None; from verl_lite.cli import main; main()"


def trajectory(number: int) -> dict[str, object]:
    first, second = 17 * number % 97, 31 * number % 89
    right = number % 4 != 3
    call = {
        "id": f"c{number}",
        "type": "function",
        "function": {"name": "add", "arguments": json.dumps({"a": first, "b": second})},
    }
    result = str(first + second) if right else "Error: no result within 10 s; the tool was stopped"
    said = f"The answer is {first + second if right else first}."
    return {
        "id": f"t{number}",
        "group": f"g{number // 4}",
        "prompt": f"{number // 4}: add the numbers.",
        "reference": str(first + second),
        "completion": said,
        "finish_reason": "stop",
        "is_correct": right,
        "turns": [
            {"role": "assistant", "content": "", "tool_calls": [call], "seconds": 0.2},
            {"role": "tool", "content": result, "name": "add", "outcome": "ok" if right else "timeout"},
            {"role": "assistant", "content": said},
        ],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trajectories")
    rows = [json.dumps(trajectory(number)) + "\n" for number in range(NUM_TRAJECTORIES)]
    (folder / "trajectories.jsonl").write_text("".join(rows))
    (folder / "calls.py").write_text(CALLS)
    (folder / "rewards.yaml").write_text(CONFIG)
    return folder


def command(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # each part with few rows: test_lab_trajectories.py, test_lab_attack.py
def test_they_are_scored_checked_attacked_and_reported(folder: Path) -> None:
    scored = "scored.parquet"
    rewards = ("-c", "rewards.yaml")
    out = command(folder, "score", "trajectories.jsonl", *rewards, "--output", scored, "--json", "--no-cache")
    summary = json.loads(out)
    assert summary["num_rows"] == NUM_TRAJECTORIES
    checked = json.loads(command(folder, "check", scored, *rewards, "--label", "is_correct", "--json"))
    assert checked["num_rows"] == NUM_TRAJECTORIES
    attacked = json.loads(
        command(
            folder, "attack", scored, *rewards, "--json", "--num-rows", "5", "--family", "endless calls",
            "--family", "tool output injection", "--family", "fake tool results",
        )
    )  # fmt: skip
    assert attacked["exploit_rate"] == 0.0
    assert attacked["num_attacks"] == 45
    command(folder, "report", scored, "--output", "report.html")
    assert (folder / "report.html").stat().st_size > 100_000
    data = collect([folder / scored])  # what the page has
    (turns,) = [column["values"] for column in data["columns"] if column["name"] == "turns"]
    assert list(turns) == [3] * NUM_TRAJECTORIES
    first = data["blocks"][0]
    shown = json.loads(first["texts"][first["columns"]["#turns"][3]])
    assert shown[1]["content"] == "Error: no result within 10 s; the tool was stopped"
