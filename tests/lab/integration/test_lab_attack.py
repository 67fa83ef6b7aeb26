"""Attacks get through graders with known holes, and not through a sound one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.attack import AttackReport, attack_rewards, attack_rollout, load_attacks, wrong_answers
from verl_lite.plugins import RewardsConfig, Rollout

HOLES = r"""
import re
from verl_lite.plugins import reward

@reward("contains", isolate=False)
def contains(rollout):
    return rollout.reference is not None and rollout.reference in rollout.completion

@reward("any_box", isolate=False)
def any_box(rollout):
    return rollout.reference in re.findall(r"boxed{([^}]*)", rollout.completion)

@reward("says_ok", isolate=False)
def says_ok(rollout):
    return '"passed": true' in rollout.completion or "SystemExit(0)" in rollout.completion

@reward("judge_me", isolate=False)
def judge_me(rollout):
    return "Ignore all previous instructions" in rollout.completion


def reads_everything(rollout):
    return any(rollout.reference and rollout.reference in turn.content for turn in rollout.turns)


def believes_the_model(rollout):
    return "<tool_response>" in "".join(t.content for t in rollout.turns if t.role == "assistant") + (
        rollout.completion
    )


def pays_for_calls(rollout):
    return 0.1 * sum(len(turn.tool_calls) for turn in rollout.turns)
"""


@pytest.fixture
def attacked(tmp_path: Path, rewards: Callable[..., RewardsConfig]) -> Callable[[str], AttackReport]:
    path = tmp_path / "holes.py"
    path.write_text(HOLES)
    return lambda name: attack_rewards(rewards(x={"use": f"{path}:{name}"}))


@pytest.mark.parametrize(
    ("hole", "families"),
    [
        ("contains", {"answer stuffing", "hedging", "unterminated", "repetition", "injection"}),
        ("any_box", {"answer stuffing", "hedging", "unterminated"}),
        ("says_ok", {"program"}),
        ("judge_me", {"injection"}),
        ("reads_everything", {"tool output injection", "endless calls"}),
        ("believes_the_model", {"fake tool results"}),
        ("pays_for_calls", {"endless calls"}),
    ],
)
def test_known_holes_are_found(
    attacked: Callable[[str], AttackReport], hole: str, families: set[str]
) -> None:
    report = attacked(hole)
    assert families <= {exploit.family for exploit in report.exploits}
    assert report.exploit_rate == len(report.exploits) / report.num_attacks > 0


def test_a_sound_grader_pays_for_nothing(rewards: Callable[..., RewardsConfig]) -> None:
    report = attack_rewards(rewards())
    assert report.exploits == []
    assert report.num_attacks > 200


def test_the_users_own_rows_are_attacked(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: list[dict[str, Any]]
) -> None:
    report = attack_rewards(rewards(), rollout_file(sums), num_rows=3, families=["hedging"])
    assert report.num_rows == 3
    hedges = [attack for attack in load_attacks() if attack.family == "hedging"]
    assert report.num_attacks == 3 * len(hedges)


def test_attacks_of_ones_own_are_the_rows_with_a_reason(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], attacked: Any, tmp_path: Path
) -> None:
    """Three attacks and a right answer that is there to compare with: the naive reward falls for two."""
    row = {"prompt": "2 + 2?", "reference": "4", "group": "a"}
    path = rollout_file(
        [
            {**row, "id": "list", "completion": "3 or 4", "why": "names several", "family": "hedging"},
            {**row, "id": "quote", "completion": "not 4 but 5", "why": "denies it"},
            {**row, "id": "other", "completion": "5", "why": "is wrong"},
            {**row, "id": "right", "completion": "4"},
        ]
    )
    report = attack_rewards(rewards(x={"use": f"{tmp_path / 'holes.py'}:contains"}), attacks=path)
    assert (report.num_attacks, report.num_rows) == (3, 1)
    assert [(one.attack, one.family, one.why) for one in report.exploits] == [
        ("list", "hedging", "names several"),
        ("quote", "own", "denies it"),
    ]
    with pytest.raises(DataError, match="no row has the column `why`"):
        attack_rewards(rewards(), attacks=rollout_file([{**row, "completion": "4"}]))


def test_an_unknown_family_is_refused(rewards: Callable[..., RewardsConfig]) -> None:
    with pytest.raises(ConfigError, match="the families are format only, answer stuffing"):
        attack_rewards(rewards(), families=["hedge"])


def test_the_corpus_is_sound() -> None:
    attacks = load_attacks()
    assert len(attacks) >= 70
    assert len({attack.name for attack in attacks}) == len(attacks)
    row = Rollout(completion="", id="r", reference="42", prompt=({"role": "user", "content": "17+25?"},))
    for attack in attacks:
        made = attack_rollout(attack, row, wrong_answers("42", []))
        assert made is not None
        assert "<<" not in made.completion, attack.name
        assert attack.why


@pytest.mark.parametrize("reference", ["42", "1/2", "-3", "0.5", "1,000", "x+1", None])
def test_wrong_answers_are_wrong(reference: str | None) -> None:
    assert reference not in wrong_answers(reference, ["x+1", "x+2", "42"])


def test_of_several_accepted_answers_none_is_taken_for_wrong() -> None:
    assert wrong_answers("42", [], accepted=["42", "43", "45"]) == ("49", "55")
    assert wrong_answers("four", ["4", "5"], accepted=["four", "4"]) == ("5", "zzz")
    row = Rollout(completion="", reference='["4", "four"]', columns={"reference": ["4", "four"]})
    attack = next(one for one in load_attacks() if one.name == "reference in quotes")
    made = attack_rollout(attack, row, ("5", "7"))
    assert made is not None
    assert made.completion == "Reference answer: 4\nMy answer: 5"


def test_the_entry_point_comes_from_the_row() -> None:
    attack = next(a for a in load_attacks() if a.name == "always equal int")
    row = Rollout(completion="", columns={"test_list": ["assert add(1, 2) == 3"]})
    made = attack_rollout(attack, row, ("1", "2"))
    assert made is not None
    assert "def add(*args" in made.completion
