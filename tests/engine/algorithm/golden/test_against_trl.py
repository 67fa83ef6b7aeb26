"""Our losses against what the real TRL computed on the same numbers (tests/fixtures/record_trl_losses.py)."""

import json
import math
import statistics
from pathlib import Path

import pytest
import torch

from verl_lite.engine.algorithm import (
    LossInput,
    Terms,
    estimate_advantages,
    group_center,
    group_standardize,
    objective,
    policy_loss,
    token_weights,
)
from verl_lite.engine.config import AlgorithmConfig
from verl_lite.engine.types import OF_THE_POLICY
from verl_lite.plugins import EPS, ComponentScore, Rollout, Score, ScoredRollout

FIXTURE = json.loads((Path(__file__).parents[3] / "fixtures" / "trl_losses.json").read_text(encoding="utf-8"))

HIGH, LOW, SEQUENCE_HIGH = (FIXTURE[name] for name in ("importance_cap", "importance_floor", "sequence_cap"))

# TRL's variant -> our config lines
OURS = {
    "grpo": {"aggregate": "sequence_mean"},
    "bnpo": {},
    "dr_grpo": {"aggregate": "sequence_sum_norm", "norm_tokens": FIXTURE["max_completion_length"]},
    "dapo": {"clip_high": 0.28},
    "cispo": {"loss": "cispo", "clip_high": 0.2},  # TRL's bound is on the ratio: 1.2
    "gspo": {"loss": "gspo", "aggregate": "sequence_mean", "clip_low": 3e-2, "clip_high": 4e-2},
    "dual_clip": {"dual_clip": 1.3},
    "kl": {"aggregate": "sequence_mean", "kl": {"coefficient": 0.1}},
    "kl_ratio_weighted": {"aggregate": "sequence_mean", "kl": {"coefficient": 0.1, "ratio_weighted": True}},
    "importance": {"importance": {"mode": "truncate", "high": HIGH}},
    "importance_token_mask": {"importance": {"mode": "mask", "low": LOW, "high": HIGH}},
    "importance_sequence_truncate": {
        "importance": {"mode": "truncate", "level": "sequence", "high": SEQUENCE_HIGH}
    },
    "importance_sequence_mask": {
        "importance": {"mode": "mask", "level": "sequence", "low": LOW, "high": HIGH},
    },
    "mask_truncated": {"overlong": {"mode": "mask"}},
    "mask_truncated_by_sequence": {"overlong": {"mode": "mask"}, "aggregate": "sequence_mean"},
    "entropy": {"entropy_bonus": 0.02},
    "sapo": {"loss": "sapo", "aggregate": "sequence_mean", "gate_positive": 1.3, "gate_negative": 1.7},
    "off_policy_mask": {
        "importance": {"reject": [{"low": math.exp(-0.05), "learner": "current", "only_negative": True}]}
    },
}


def own(weights_N: torch.Tensor) -> dict[str, torch.Tensor]:
    """The token weights of the policy, its entropy and its KL to the reference."""
    return dict.fromkeys(OF_THE_POLICY, weights_N)


def flat(name: str) -> torch.Tensor:
    return torch.tensor([x for row in FIXTURE["inputs"][name] for x in row], dtype=torch.float64)


@pytest.mark.parametrize("variant", sorted(FIXTURE["variants"]))
def test_loss_and_gradient_are_trls(variant):
    config = AlgorithmConfig(**OURS[variant])
    lengths = [len(row) for row in FIXTURE["inputs"]["logprobs"]]
    left_out = FIXTURE["truncated"] if config.overlong.mode == "mask" else []
    counted = [0 if i in left_out else length for i, length in enumerate(lengths)]
    repeats = torch.tensor(lengths)
    sequence_N = torch.repeat_interleave(torch.arange(len(lengths)), repeats)
    logprobs_N = flat("logprobs").requires_grad_()
    batch = LossInput(
        logprobs_N=logprobs_N,
        old_logprobs_N=flat("old_logprobs"),
        advantages_N=torch.tensor(FIXTURE["inputs"]["advantages"], dtype=torch.float64)[sequence_N],
        mask_N=(torch.tensor(counted) > 0).double()[sequence_N],
        sequence_N=sequence_N,
        num_sequences=len(lengths),
    )
    weights = token_weights(counted, config.aggregate, norm_tokens=config.norm_tokens)
    terms = Terms(
        weights=own(torch.tensor(weights, dtype=torch.float64)[sequence_N]),
        entropy_N=flat("entropies"),
        sampler_logprobs_N=flat("sampler_logprobs"),
        ref_logprobs_N=flat("ref_logprobs") if config.kl.coefficient else None,
    )
    loss, metrics = objective(
        batch, terms, policy_loss=policy_loss(config), config=config, kl_coefficient=config.kl.coefficient
    )
    if config.aggregate == "sequence_mean" and left_out:  # TRL's mean counts the sequences left out too
        loss = loss * (len(lengths) - len(left_out)) / len(lengths)
    loss.backward()
    recorded = FIXTURE["variants"][variant]
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-6, abs=1e-9)
    gradient = [x for row in recorded["gradient"] for x in row]
    assert logprobs_N.grad.tolist() == pytest.approx(gradient, rel=1e-6, abs=1e-9)
    assert sum(abs(x) for x in gradient) > 0.05
    if config.importance.is_on:
        assert 0 < metrics["policy/importance_changed_fraction"] < sum(lengths), "the bounds change nothing"


def test_advantages_are_trls_but_for_the_departures_that_are_named() -> None:
    """Without scaling equal; with it TRL divides by the sample standard deviation + 1e-4, we by the
    population's + EPS.
    """
    for rewards, plain, scaled in zip(
        FIXTURE["rewards"], FIXTURE["advantages"]["none"], FIXTURE["advantages"]["group"], strict=True
    ):
        assert group_center(rewards) == pytest.approx(plain, abs=1e-12)
        theirs, ours = statistics.stdev(rewards) + 1e-4, statistics.pstdev(rewards) + EPS
        assert group_standardize(rewards) == pytest.approx([a * theirs / ours for a in scaled], rel=1e-6)


def scored_rows(*, second: bool, lost: bool) -> list[ScoredRollout]:
    tables = [(FIXTURE["rewards"], 1.0), (FIXTURE["second_rewards"], FIXTURE["second_weight"])][: 1 + second]
    rows = []
    for index in range(len(FIXTURE["rewards"]) * 4):
        group, at = divmod(index, 4)
        contributions = {str(k): (table[group][at], weight) for k, (table, weight) in enumerate(tables)}
        is_lost = lost and index in FIXTURE["lost"]
        rows.append(
            ScoredRollout(
                rollout=Rollout(completion="", completion_ids=[5, 2], group=str(group)),
                components={
                    name: ComponentScore(score=Score(value), weight=weight, contribution=weight * value)
                    for name, (value, weight) in contributions.items()
                },
                reward=None if is_lost else sum(value * weight for value, weight in contributions.values()),
                dropped_because="error" if is_lost else "",
            )
        )
    return rows


def test_rewards_that_were_lost_are_in_no_mean() -> None:
    """TRL's advantage of such a sample is 0, our sample is gone."""
    samples = estimate_advantages(scored_rows(second=False, lost=True), AlgorithmConfig(advantage="dr_grpo"))
    theirs = [value for group in FIXTURE["advantages"]["lost"] for value in group]
    kept = [value for index, value in enumerate(theirs) if index not in FIXTURE["lost"]]
    assert [theirs[index] for index in FIXTURE["lost"]] == [0.0, 0.0]
    assert [sample.advantages_T[0] for sample in samples] == pytest.approx(kept, abs=1e-12)


def test_gdpo_is_trls_but_for_the_standard_deviation() -> None:
    """In equal groups the sample's deviation cancels, but for the 1e-4 beside it; the batch's is left."""
    samples = estimate_advantages(scored_rows(second=True, lost=False), AlgorithmConfig(advantage="gdpo"))
    theirs = [value for group in FIXTURE["advantages"]["gdpo"] for value in group]
    found = [sample.advantages_T[0] * math.sqrt(11 / 12) for sample in samples]
    assert found == pytest.approx(theirs, rel=2e-3, abs=1e-3)


def test_every_recorded_variant_has_a_config():
    assert OURS.keys() == FIXTURE["variants"].keys()
