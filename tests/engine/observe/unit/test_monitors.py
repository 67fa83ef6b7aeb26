"""Each fault is planted in the numbers or samples of a step and must give its own warning, and only that."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from verl_lite.engine.config import MonitorsConfig
from verl_lite.engine.observe import MONITORS, Monitors, Warned, duplicate_fraction, repetition
from verl_lite.plugins import Rollout, ScoredRollout

HEALTHY = {
    "reward/mean": 0.5,
    "reward/std": 0.5,
    "reward/flat_group_fraction": 0.2,
    "reward/math/weight": 1.0,
    "reward/math/mean": 0.5,
    "reward/math/std": 0.5,
    "reward/math/error_fraction": 0.0,
    "reward/math/timeout_fraction": 0.0,
    "policy/entropy": 0.8,
    "policy/clip_fraction": 0.05,
    "policy/kl_sampler_trainer": 1e-4,
    "rollout/completion_tokens_mean": 40.0,
    "rollout/truncated_fraction": 0.05,
    "canary/max_difference": 1e-5,
    "canary/limit": 1e-3,
}


def rows(*texts: str, version: int = 7) -> list[ScoredRollout]:
    texts = texts or ("the sum of both is twelve", "I think that it is thirteen")
    return [
        ScoredRollout(
            rollout=Rollout(completion=text, group="g", sample_index=i, policy_version=version),
            components={},
            reward=0.0,
        )
        for i, text in enumerate(texts)
    ]


def watch(*steps: Mapping[str, float], samples: list[ScoredRollout] | None = None) -> dict[str, float]:
    """The numbers of the last of `steps`, each over a healthy one."""
    monitors = Monitors(MonitorsConfig(window_steps=3), mismatch_limit=1e-3)
    for step in steps:
        numbers, _ = monitors.check({**HEALTHY, **step}, samples or rows(), version=7)
    return numbers


def raised(numbers: Mapping[str, float]) -> list[str]:
    return [name.removeprefix("warning/") for name, value in numbers.items() if value and "warning/" in name]


def test_a_healthy_run_has_no_warning_and_every_flag_is_there() -> None:
    numbers = watch(*[{}] * 10)
    assert raised(numbers) == []
    assert {name for name in numbers if name.startswith("warning/")} == {f"warning/{n}" for n in MONITORS}


@pytest.mark.parametrize(
    ("name", "metric", "value"),
    [
        ("flat_groups", "reward/flat_group_fraction", 0.95),
        ("entropy", "policy/entropy", 0.001),
        ("clip_fraction", "policy/clip_fraction", 0.4),
        ("mismatch_kl", "policy/kl_sampler_trainer", 0.2),
        ("kl_high", "policy/kl_reference", 1.5),
        ("truncation", "rollout/truncated_fraction", 0.6),
        ("canary", "canary/max_difference", 6e-4),
        ("bad_steps", "learner/bad_steps", 1.0),
        ("verifier_errors", "reward/math/error_fraction", 0.06),
        ("verifier_errors", "reward/math/timeout_fraction", 0.06),
    ],
)
def test_a_number_beyond_its_threshold(name: str, metric: str, value: float) -> None:
    assert raised(watch({metric: value})) == [name]


def test_samples_that_repeat_are_the_same_or_come_from_old_weights() -> None:
    looping = rows("a loop it is " * 10, "another loop in here " * 10)
    assert raised(watch({}, samples=looping)) == ["repetition"]
    assert raised(watch({}, samples=rows("twelve", "twelve"))) == ["duplicates"]
    assert raised(watch({}, samples=rows(version=5))) == ["stale_weights"]
    assert raised(watch({}, samples=rows(version=6))) == []


def test_lengths_that_drift_either_way() -> None:
    length = "rollout/completion_tokens_mean"
    for late in (40 * 3.1, 40 / 3.1):
        assert raised(watch(*[{}] * 3, *[{length: late}] * 3)) == ["length_drift"]
        assert raised(watch(*[{}] * 3, *[{length: late}] * 2)) == []  # the window is not full
    assert raised(watch(*[{}] * 3, *[{length: 40 * 2.9}] * 3)) == []


def shadow(trained: float, strict: float) -> dict[str, float]:
    part = {"reward/strict/weight": 0.0, "reward/strict/mean": strict, "reward/strict/std": 0.4}
    return {"reward/mean": trained, "reward/std": 0.2, **part}


def test_a_trained_reward_that_rises_alone_is_measured_hacking() -> None:
    numbers = watch(*[shadow(0.2, 0.2)] * 3, *[shadow(0.8, 0.3)] * 3)
    # (0.8 - 0.2) / 0.2 standard deviations against (0.3 - 0.2) / 0.4
    assert numbers["monitor/divergence"] == pytest.approx(3.0 - 0.25)
    assert raised(numbers) == ["divergence"]
    assert (
        raised(watch(*[shadow(0.2, 0.2)] * 3, *[shadow(0.8, 0.8)] * 3)) == []
    )  # 3.0 against 1.5: it follows
    assert raised(watch(*[shadow(0.2, 0.2)] * 3, *[shadow(0.34, 0.2)] * 3)) == []  # a rise of 0.7
    assert "monitor/divergence" not in watch(*[{}] * 6)  # no shadow, nothing to compare with


def test_a_policy_that_never_leaves_the_reference() -> None:
    kl = "policy/kl_reference"
    assert raised(watch(*[{kl: 1e-8}] * 6)) == ["kl_low"]
    assert raised(watch(*[{kl: 1e-8}] * 5)) == []  # at the start it has not left yet
    assert raised(watch(*[{kl: 1e-8}] * 3, *[{kl: 1e-3}] * 3)) == []


def test_a_reward_that_rises_while_held_out_accuracy_falls_is_hacked() -> None:
    """The format is learned, and paid for, and the task is forgotten."""
    monitors = Monitors(MonitorsConfig(window_steps=3))

    def steps(*rewards: float) -> dict[str, float]:
        for reward in rewards:
            numbers, _ = monitors.check({**HEALTHY, "reward/mean": reward}, rows(), version=7)
        return numbers

    steps(0.2, 0.3, 0.4)
    assert monitors.check_held_out(0.6, before=0.5) is None
    steps(0.6, 0.7, 0.8)
    assert monitors.check_held_out(0.55) is None  # within the limit of 0.1
    warning = monitors.check_held_out(0.45)
    assert warning is not None
    assert (warning.name, warning.value) == ("held_out", pytest.approx(0.15))
    assert monitors.check_held_out(0.44) is None  # it was said
    assert raised(steps(0.8)) == ["held_out"]
    again = Monitors(MonitorsConfig(window_steps=3))
    again.load_state_dict(json.loads(json.dumps(monitors.state_dict())))
    assert again.check_held_out(0.44) is None
    assert monitors.check_held_out(0.58) is None
    assert raised(steps(0.8)) == []
    steps(0.1, 0.1, 0.1)
    assert monitors.check_held_out(0.2) is None  # the reward fell too: a collapse, and no hacking


def test_hacking_from_the_first_step_is_measured_against_the_start() -> None:
    monitors = Monitors(MonitorsConfig(window_steps=3))
    for reward in (0.2, 0.5, 0.8):
        monitors.check({**HEALTHY, "reward/mean": reward}, rows(), version=7)
    assert monitors.check_held_out(0.3, before=0.55) is not None


def test_a_warning_is_said_when_it_begins_and_flagged_while_it_lasts() -> None:
    monitors = Monitors(MonitorsConfig())
    bad = {**HEALTHY, "policy/entropy": 0.0}
    said = [monitors.check(step, rows(), version=7) for step in (bad, bad, HEALTHY, bad)]
    assert [len(new) for _, new in said] == [1, 0, 0, 1]
    assert [numbers["warning/entropy"] for numbers, _ in said] == [1, 1, 0, 1]
    assert str(said[0][1][0]) == (
        "warning entropy: the policy is nearly deterministic: samples no longer explore "
        "(policy/entropy 0, limit 0.01); docs/monitors.md#entropy"
    )


def test_the_state_survives_a_resume() -> None:
    first, second = (Monitors(MonitorsConfig(window_steps=3)) for _ in range(2))
    for _ in range(4):
        first.check({**HEALTHY, **shadow(0.2, 0.2)}, rows(), version=7)
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        expected = first.check({**HEALTHY, **shadow(0.9, 0.2)}, rows(), version=7)
        assert second.check({**HEALTHY, **shadow(0.9, 0.2)}, rows(), version=7) == expected
    assert expected[0]["warning/divergence"] == 1


def test_switched_off_it_says_nothing() -> None:
    off = Monitors(MonitorsConfig(enabled=False))
    assert off.check({**HEALTHY, "policy/entropy": 0.0}, rows(), version=7) == ({}, [])


def test_repetition_and_duplicates_by_hand() -> None:
    assert repetition("a b c d e") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)  # 5 sequences, "a b c d" twice
    assert repetition("too short") == 0
    assert duplicate_fraction(rows("x", "x", "y", "z")) == 0.5


def test_every_warning_has_its_place_in_the_docs() -> None:
    page = (Path(__file__).parents[4] / "docs" / "monitors.md").read_text()
    for name in MONITORS:
        assert f"\n## {name}\n" in page
        assert str(Warned(name, "m", 1.0, 0.5)).endswith(f"docs/monitors.md#{name}")
