"""The rules by hand-made numbers, and a whole run whose reward collapses."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from verl_lite.engine import train
from verl_lite.engine.config import MonitorsConfig, TrainConfig
from verl_lite.engine.observe import RollbackRules, Trigger, advice, read_metrics
from verl_lite.errors import TrainingError
from verl_lite.plugins import validate

RULES = MonitorsConfig.model_validate({"window_steps": 2, "rollback": {"on": "rollback"}})


def check(rewards: list[float], rules: RollbackRules | None = None) -> list[Trigger | None]:
    rules = rules or RollbackRules(RULES)
    return [rules.check({"reward/mean": reward}, step=i + 1) for i, reward in enumerate(rewards)]


def test_a_reward_that_falls_by_half_of_what_it_gained() -> None:
    # means of two: 0.1 0.5 0.9 0.65 0.4; the gain is 0.8, so below 0.5 is a collapse
    found = check([0.1, 0.1, 0.9, 0.9, 0.4, 0.4])
    assert found[:5] == [None] * 5
    assert found[5] is not None
    assert (found[5].rule, found[5].good_step) == ("reward_collapse", 4)
    assert found[5].why == "the mean reward of 2 steps fell from 0.9 (at step 4) to 0.4"


def test_a_run_that_gained_nothing_cannot_collapse() -> None:
    assert check([0.5, 0.5, 0.55, 0.55, 0.1]) == [None] * 5  # it had gained 0.05


def test_a_kl_that_blows_up_or_is_no_number() -> None:
    rules = RollbackRules(RULES)
    assert rules.check({"policy/kl_sampler_trainer": 9.0}, step=1) is None
    for kl in (11.0, float("nan")):
        trigger = rules.check({"policy/kl_reference": kl, "policy/kl_sampler_trainer": 0.0}, step=8)
        assert trigger is not None
        assert (trigger.rule, trigger.good_step) == ("kl_blow_up", 7)


def test_the_rules_state_survives_a_resume() -> None:
    first, second = RollbackRules(RULES), RollbackRules(RULES)
    check([0.1, 0.1, 0.9, 0.9], first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [r.check({"reward/mean": 0.0}, step=5) for r in (first, second)][1] is not None


REWARD_FILE = """
from io import StringIO
from pathlib import Path
from verl_lite.plugins import reward

@reward("falls")
def falls(rollout):
    cured = Path({events!r}).exists()
    step = rollout.policy_version
    return 0.0 if step >= 4 and not cured else 0.2 * min(step, 4) + 0.001 * len(rollout.completion)
"""


def config(folder: Path, events: Path, **rollback: Any) -> TrainConfig:
    rewards = folder / "falls.py"
    rewards.write_text(REWARD_FILE.format(events=str(events)))
    small = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}
    data: dict[str, Any] = {
        "steps": 8,
        "model": {"tiny": {**small, "max_context_tokens": 64}},
        "data": {"train": {"task": "arithmetic", "num_rows": 12}},
        "rewards": {"falls": {"use": f"{rewards}:falls"}},
        "rollout": {"sampler": "transformers", "num_prompts": 3, "num_samples": 2, "max_prompt_tokens": 16},
        "learner": {"optimizer": {"learning_rate": 1e-3, "schedule": "constant"}},
        "checkpoints": {"every_steps": 1, "keep": 0},
        "logging": {"trackers": []},
        "monitors": {"window_steps": 2, "rollback": rollback},
    }
    data["rollout"]["max_new_tokens"] = 8
    return validate(TrainConfig, data, source="test")


def test_a_collapsed_run_goes_back_and_learns_on_more_slowly(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(tmp_path, run / "events.jsonl", on="rollback"), run_dir=run, debug_inline=True)
    (event,) = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert (event["event"], event["rule"], event["learning_rate_factor"]) == (
        "rollback",
        "reward_collapse",
        0.5,
    )
    assert event["to_step"] == 4
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["learner/learning_rate"] for row in rows] == [1e-3] * 4 + [5e-4] * 4
    lost = [row["step"] for row in read_metrics(run / "rolled_back" / "01" / "metrics.jsonl")]
    assert lost == list(range(5, event["step"] + 1))
    assert len(list((run / "rolled_back" / "01" / "rollouts").iterdir())) == len(lost)
    assert len(list((run / "rollouts").iterdir())) == 8
    more = config(tmp_path, run / "events.jsonl", on="rollback").model_copy(update={"steps": 9})
    train(more, run_dir=run, resume=True, debug_inline=True)  # the rate stays lowered
    assert read_metrics(run / "metrics.jsonl")[-1]["learner/learning_rate"] == 5e-4


def test_where_the_rules_do_nothing_the_last_good_checkpoint_is_offered(tmp_path: Path) -> None:
    said = StringIO()
    run = tmp_path / "run"
    checked = config(tmp_path, tmp_path / "nowhere", on="nothing")
    train(checked, run_dir=run, debug_inline=True, console=Console(file=said, width=400))
    (line,) = [
        line for line in said.getvalue().splitlines() if "reward_collapse" in line
    ]  # once, not each step
    assert f"the last good checkpoint is {run / 'checkpoints' / 'step_000004'}: continue from it" in line
    assert (run / "checkpoints" / "step_000004" / "policy" / "model.safetensors").is_file()
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == list(range(1, 9))  # it goes on
    assert "no checkpoint of step 4 or before is left" in advice(
        Trigger("reward_collapse", "it fell", 4), step=8, checkpoints=tmp_path / "none"
    )


def test_it_stops_where_it_may_not_go_back(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(TrainingError, match=r"reward_collapse: .*Stopped, as monitors.rollback.on says"):
        train(config(tmp_path, nowhere, on="stop"), run_dir=tmp_path / "a", debug_inline=True)
    assert json.loads((tmp_path / "a" / "events.jsonl").read_text())["event"] == "stop"
    with pytest.raises(TrainingError, match="It was rolled back 1 times already"):
        train(config(tmp_path, nowhere, on="rollback", max_rollbacks=1), run_dir=tmp_path / "b")
