"""Check finds the faults planted in small reward plugins, and passes a sound reward."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import ConfigError
from verl_lite.lab.check import CheckOptions, CheckReport, Level, check_file
from verl_lite.plugins import RewardsConfig

Rows = list[dict[str, Any]]

FAULTY = """
import random
from verl_lite.plugins import reward

@reward("lenient", isolate=False)
def lenient(rollout):
    return rollout.completion.strip() == "" or rollout.completion == rollout.reference

@reward("moody", isolate=False)
def moody(rollout):
    return random.random()

@reward("deaf", isolate=False)
def deaf(rollout):
    return 1.0

@reward("yes_man", isolate=False)
def yes_man(rollout):
    return rollout.completion.isdigit()
"""


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY)
    return path


def levels(report: CheckReport) -> dict[str, Level]:
    return {finding.check: finding.level for finding in report.findings}


def test_a_sound_reward_passes(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: Rows
) -> None:
    report = check_file(rollout_file(sums), rewards(), check=CheckOptions(label="is_correct"))
    assert (report.num_rows, report.num_groups, report.failed) == (40, 10, False)
    assert levels(report) == {
        "saturation": Level.OK,
        "group variance": Level.OK,
        "variance shares": Level.OK,
        "overturned order": Level.OK,
        "labels": Level.OK,
        "duplicate prompts": Level.OK,
        "determinism": Level.OK,
        "own references": Level.OK,
        "empty answers": Level.OK,
        "swapped references": Level.OK,
        "uncomputed answers": Level.OK,
    }


@pytest.mark.parametrize(
    ("name", "check", "level"),
    [
        ("lenient", "empty answers", Level.FAIL),
        ("moody", "determinism", Level.FAIL),
        ("deaf", "dead components", Level.FAIL),
        ("yes_man", "swapped references", Level.WARN),
    ],
)
def test_planted_faults_are_found(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    faulty: Path,
    name: str,
    check: str,
    level: Level,
) -> None:
    report = check_file(rollout_file(sums), rewards(x={"use": f"{faulty}:{name}"}))
    assert levels(report)[check] is level


def test_references_the_verifier_rejects_are_listed(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: Rows
) -> None:
    tagged = {"use": "exact", "options": {"answer_tag": "final"}}
    report = check_file(rollout_file(sums), rewards(x=tagged))
    finding = next(f for f in report.findings if f.check == "own references")
    assert (finding.level, finding.numbers["rejected"]) == (Level.FAIL, 10)


@pytest.mark.parametrize(
    ("options", "level"), [({}, Level.WARN), ({"computed": True}, Level.OK)], ids=["equal", "computed"]
)
def test_copied_questions_are_found(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    options: dict[str, bool],
    level: Level,
) -> None:
    rows = [
        {"group": f"g{g}", "prompt": f"What is {g} + 70?", "completion": text, "reference": str(g + 70)}
        for g in range(2, 5)
        for text in (f"\\boxed{{{g} + 70}}", f"\\boxed{{{g + 70}}}")
    ]
    report = check_file(rollout_file(rows), rewards(x={"use": "math", "options": options}))
    finding = next(f for f in report.findings if f.check == "uncomputed answers")
    assert (finding.level, finding.numbers["accepted"]) == (level, 0 if options else 3)


def test_the_process_reward_passes_on_its_defaults(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path]
) -> None:
    rows = [
        {"group": f"g{g}", "prompt": f"{g}", "completion": f"{g} + 1 = {g + 1 + s}", "reference": str(g + 1)}
        for g in range(3)
        for s in range(2)
    ]
    report = check_file(rollout_file(rows), rewards(steps={"use": "process"}))
    assert not report.failed, report.findings
    assert levels(report)["group variance"] is Level.OK
    assert levels(report)["own references"] is Level.NOTE


def test_prompts_with_two_references_fail(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: Rows
) -> None:
    conflict = {**sums[0], "group": "again", "reference": "99"}
    assert levels(check_file(rollout_file([*sums, conflict]), rewards()))["duplicate prompts"] is Level.FAIL


def test_labels_that_disagree_are_shown(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: Rows
) -> None:
    sums[5] = {**sums[5], "is_correct": True}
    report = check_file(rollout_file(sums), rewards(), check=CheckOptions(label="is_correct"))
    finding = next(f for f in report.findings if f.check == "labels")
    assert (finding.numbers["false_negative"], finding.numbers["true_positive"]) == (1, 22)
    assert [row.id for row in finding.numbers["disagreements"]] == ["row-6"]


def test_an_unknown_primary_is_refused(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: Rows
) -> None:
    with pytest.raises(ConfigError, match="--primary math: the rewards are correct"):
        check_file(rollout_file(sums), rewards(), check=CheckOptions(primary="math"))
