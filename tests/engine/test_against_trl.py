"""Our losses against what the real TRL computed on the same numbers (scripts/record_trl_fixtures.py)."""

import json
from pathlib import Path

import pytest
import torch

from verl_lite.engine.algorithm_config import AlgorithmConfig
from verl_lite.engine.losses import LossInput, policy_loss, token_weights
from verl_lite.engine.objective import Terms, objective

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "trl_losses.json").read_text(encoding="utf-8"))

# TRL's variant -> our config lines
OURS = {
    "grpo": {"aggregate": "sequence_mean"},
    "bnpo": {},
    "dr_grpo": {"aggregate": "sequence_sum_norm", "norm_tokens": FIXTURE["max_completion_length"]},
    "dapo": {"clip_high": 0.28},
    "cispo": {"loss": "cispo", "clip_low": 1.0, "clip_high": 0.2},  # TRL's bound is on the ratio: 1.2
    "gspo": {"loss": "gspo", "aggregate": "sequence_mean", "clip_low": 3e-2, "clip_high": 4e-2},
    "dual_clip": {"dual_clip": 1.3},
    "kl": {"aggregate": "sequence_mean", "kl": {"coefficient": 0.1}},
    "kl_ratio_weighted": {"aggregate": "sequence_mean", "kl": {"coefficient": 0.1, "ratio_weighted": True}},
    "importance": {"importance": {"mode": "truncate", "high": FIXTURE["importance_cap"]}},
    "entropy": {"entropy_bonus": 0.02},
}


def flat(name: str) -> torch.Tensor:
    return torch.tensor([x for row in FIXTURE["inputs"][name] for x in row], dtype=torch.float64)


@pytest.mark.parametrize("variant", sorted(FIXTURE["variants"]))
def test_loss_and_gradient_are_trls(variant):
    config = AlgorithmConfig(**OURS[variant])
    lengths = [len(row) for row in FIXTURE["inputs"]["logprobs"]]
    repeats = torch.tensor(lengths)
    sequence_N = torch.repeat_interleave(torch.arange(len(lengths)), repeats)
    logprobs_N = flat("logprobs").requires_grad_()
    batch = LossInput(
        logprobs_N=logprobs_N,
        old_logprobs_N=flat("old_logprobs"),
        advantages_N=torch.tensor(FIXTURE["inputs"]["advantages"], dtype=torch.float64)[sequence_N],
        mask_N=torch.ones(sum(lengths), dtype=torch.float64),
        sequence_N=sequence_N,
        num_sequences=len(lengths),
    )
    weights = token_weights(lengths, config.aggregate, norm_tokens=config.norm_tokens)
    terms = Terms(
        weights_N=torch.tensor(weights, dtype=torch.float64)[sequence_N],
        entropy_N=flat("entropies"),
        sampler_logprobs_N=flat("sampler_logprobs"),
        ref_logprobs_N=flat("ref_logprobs") if config.kl.coefficient else None,
    )
    loss, _ = objective(
        batch, terms, policy_loss=policy_loss(config), config=config, kl_coefficient=config.kl.coefficient
    )
    loss.backward()
    recorded = FIXTURE["variants"][variant]
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-6, abs=1e-9)
    gradient = [x for row in recorded["gradient"] for x in row]
    assert logprobs_N.grad.tolist() == pytest.approx(gradient, rel=1e-6, abs=1e-9)
    assert sum(abs(x) for x in gradient) > 0.1


def test_every_recorded_variant_has_a_config():
    assert OURS.keys() == FIXTURE["variants"].keys()
