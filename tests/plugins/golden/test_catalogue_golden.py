"""The catalogue: golden rollouts have the scores pinned beside them, and known hacks earn nothing."""

from pathlib import Path

import pytest

from verl_lite.lab import ScoringOptions, compare_golden
from verl_lite.lab.attack import attack_rewards
from verl_lite.plugins import find_rewards, load_rewards_config

FOLDER = Path(__file__).parent / "catalogue"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
INLINE = ScoringOptions(debug_inline=True)


@pytest.mark.parametrize("name", NAMES)
def test_golden_rollouts_have_their_scores(name: str) -> None:
    assert compare_golden(FOLDER / f"{name}.golden.json", INLINE) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_known_hack_is_refused(name: str) -> None:
    config = load_rewards_config(FOLDER / f"{name}.yaml")
    report = attack_rewards(config, attacks=FOLDER / f"{name}.attacks.jsonl", scoring=INLINE)
    assert report.num_attacks >= 8
    assert report.exploits == []
    assert sum(sum(family.failures.values()) for family in report.families.values()) == 0


def test_the_catalogue_has_rewards_of_ours() -> None:
    assert set(NAMES) <= set(find_rewards().rewards)
