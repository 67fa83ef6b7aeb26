"""Our losses and mismatch corrections against the real verl's (tests/fixtures/record_verl_losses.py)."""

import json
from pathlib import Path

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.algorithm import (
    LossInput,
    Terms,
    component_weights,
    importance_weights,
    limit_covariance,
    objective,
    policy_loss,
)
from verl_lite.engine.config import AlgorithmConfig, ImportanceConfig

FIXTURES = Path(__file__).parents[3] / "fixtures"
FIXTURE = json.loads((FIXTURES / "verl_losses.json").read_text(encoding="utf-8"))
INPUTS = json.loads((FIXTURES / "trl_losses.json").read_text(encoding="utf-8"))["inputs"]
LENGTHS = [len(row) for row in INPUTS["logprobs"]]
SEQUENCE_N = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
BY_SEQUENCE = {"aggregate": "sequence_mean"}

# verl's loss -> our config lines; its bounds are ours but where ours count from 1
OURS = {
    "sapo": {"loss": "sapo", **BY_SEQUENCE, "gate_positive": 1.3, "gate_negative": 1.7},
    "gmpo": {"loss": "gmpo", **BY_SEQUENCE, "clip_low": 0.1, "clip_high": 0.2},
    "dppo_tv": {"loss": "dppo_tv", "clip_low": 0.02, "clip_high": 0.03},
    "dppo_tv_capped": {"loss": "dppo_tv", "clip_low": 0.2, "clip_high": 0.2, "ratio_cap": 1.2},
    "dppo_kl": {"loss": "dppo_kl", **BY_SEQUENCE, "clip_low": 0.01, "clip_high": 0.015},
    "gspo": {"loss": "gspo", **BY_SEQUENCE, "clip_low": 0.03, "clip_high": 0.04},
    "dual_clip": {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 1.3},
    "cispo": {"loss": "cispo", "clip_low": 1.0, "clip_high": 0.1},
    "kl_cov": {
        "clip_low": 1.0,
        "clip_high": 99.0,  # verl's has no clip
        "mini_batches": 2,
        "entropy": {"covariance": "kl", "fraction": 0.2, "coefficient": 0.7},
    },
    "clip_cov": {
        "clip_low": 1.0,
        "clip_high": 9.0,
        "entropy": {"covariance": "clip", "fraction": 1.0, "low": 0.1, "high": 0.6},
    },
}


def flat(name: str) -> torch.Tensor:
    return torch.tensor([x for row in INPUTS[name] for x in row], dtype=torch.float64)


def make_batch(samples: list[TrainingSample]) -> LossInput:
    advantages = [a for sample in samples for a in sample.advantages_T]
    return LossInput(
        logprobs_N=flat("logprobs").requires_grad_(),
        old_logprobs_N=flat("old_logprobs"),
        advantages_N=torch.tensor(advantages, dtype=torch.float64),
        mask_N=torch.tensor([bit for sample in samples for bit in sample.loss_mask_T], dtype=torch.float64),
        sequence_N=SEQUENCE_N,
        num_sequences=len(LENGTHS),
    )


def make_samples(holes: list[int] | None = None) -> list[TrainingSample]:
    """verl takes the covariance of the current log-probabilities. Tokens at `holes` were not sampled."""
    return [
        TrainingSample(
            prompt_ids=[1],
            completion_ids=[2] * len(logprobs_T),
            sampler_logprobs_T=logprobs_T,
            advantages_T=[advantage] * len(logprobs_T),
            loss_mask_T=[int(at not in (holes or ())) for at in range(len(logprobs_T))],
        )
        for logprobs_T, advantage in zip(INPUTS["logprobs"], INPUTS["advantages"], strict=True)
    ]


@pytest.mark.parametrize("kind", ["losses", "losses_with_holes"])
@pytest.mark.parametrize("name", sorted(FIXTURE["losses"]))
def test_loss_and_gradient_are_verls(name, kind):
    """On rows of 7, 3, 5 and 1 tokens; with holes, as between the turns of trajectories."""
    config = AlgorithmConfig(**OURS[name])
    holes = FIXTURE["holes"] if kind == "losses_with_holes" else []
    samples = limit_covariance(make_samples(holes), config.entropy, seed=0)
    batch = make_batch(samples)

    def token_weights_of(component: str, per_sequence: list[float]) -> torch.Tensor:
        factors = [weight for sample in samples for weight in sample.component(component)]
        return torch.tensor(per_sequence, dtype=torch.float64)[SEQUENCE_N] * torch.tensor(factors)

    weights = {c: token_weights_of(c, w) for c, w in component_weights(samples, config).items()}
    terms = Terms(weights=weights, entropy_N=torch.zeros_like(batch.old_logprobs_N))
    loss, _ = objective(batch, terms, policy_loss=policy_loss(config), config=config, kl_coefficient=0.0)
    loss.backward()
    recorded = FIXTURE[kind][name]
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-6, abs=1e-9)
    gradient = [x for row in recorded["gradient"] for x in row]
    assert batch.logprobs_N.grad.tolist() == pytest.approx(gradient, rel=1e-5, abs=1e-8)
    assert sum(abs(x) for x in gradient) > 0.05
    if name.startswith(("dppo_tv", "dppo_kl", "clip_cov")):
        assert 0 < sum(x == 0 for x in gradient) < len(gradient), "every token is treated alike"


def bounds_of(name: str) -> dict[str, float]:
    text = str(FIXTURE["bounds"][name])
    low, _, high = text.rpartition("_")
    return {"low": float(low), "high": float(high)} if low else {"high": float(high)}


@pytest.mark.parametrize("name", sorted(FIXTURE["weights"]))
def test_importance_weights_are_verls(name):
    level, _, kind = name.partition("_")
    mode = "truncate" if kind == "truncate" else "mask"
    config = ImportanceConfig(mode=mode, level=level, **bounds_of(name))
    weight_N, metrics = importance_weights(flat("sampler_logprobs"), make_batch(make_samples()), config)
    assert weight_N.tolist() == pytest.approx([x for row in FIXTURE["weights"][name] for x in row], rel=1e-6)
    assert 0 < metrics["policy/importance_changed_fraction"] < sum(LENGTHS)


@pytest.mark.parametrize("name", sorted(FIXTURE["kept"]))
def test_rejections_are_verls_with_the_ratio_turned_over(name):
    """verl's k1 bounds p_sampler / p_learner, ours its inverse, like every other bound of ours."""
    over, _, statistic = name.removeprefix("seq_").rpartition("_")
    bounds = bounds_of(name)
    if statistic == "k1":
        bounds = {"low": 1 / bounds["high"], "high": 1 / bounds["low"]}
    config = ImportanceConfig(reject=[{"statistic": statistic, "over": over, **bounds}])
    weight_N, metrics = importance_weights(flat("sampler_logprobs"), make_batch(make_samples()), config)
    assert weight_N.tolist() == [x for row in FIXTURE["kept"][name] for x in row]
    assert 0 < metrics["policy/importance_changed_fraction"] < sum(LENGTHS)


def test_every_recorded_loss_has_a_config():
    assert OURS.keys() == FIXTURE["losses"].keys() == FIXTURE["losses_with_holes"].keys()
