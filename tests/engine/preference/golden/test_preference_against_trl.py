"""Our losses on preferences against what the real TRL computed: record_trl_preference_losses.py."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.preference import (
    DPOConfig,
    DPOObjective,
    Ranking,
    RewardModelConfig,
    RewardModelObjective,
)

PATH = Path(__file__).parents[3] / "fixtures" / "trl_preference_losses.json"
FIXTURE = json.loads(PATH.read_text(encoding="utf-8"))
INPUTS = FIXTURE["inputs"]
COMMON: dict[str, Any] = {"model": {"tiny": {}}, "data": {"train": {"path": "unused.jsonl"}}}

# TRL's variant -> our config lines
OURS = {
    "sigmoid": {"loss": "sigmoid"},
    "robust": {"loss": "robust", "label_smoothing": 0.1},
    "ipo": {"loss": "ipo", "length_normalised": True},  # TRL divides by the length; the paper does not
    "hinge": {"loss": "hinge"},
    "smoothed": {"loss": "sigmoid", "label_smoothing": 0.2},
}


def pair(lengths: list[int], reference: list[float], margin: float = 0.0) -> Ranking:
    samples = [TrainingSample(prompt_ids=[1], completion_ids=[2] * n) for n in lengths]
    return Ranking(samples=samples, ranks=[1, 2], pairs=[(0, 1)], margins=[margin], reference_K=reference)


@pytest.mark.parametrize("variant", sorted(FIXTURE["dpo"]))
def test_dpo_loss_gradient_and_metrics_are_trls(variant: str) -> None:
    recorded = FIXTURE["dpo"][variant]
    config = DPOConfig(**COMMON, **OURS[variant], beta=recorded["options"]["beta"])
    objective = DPOObjective(cast(Any, None), config)  # the loss alone: no model runs
    rows = [*recorded["pairs"], *(3 + p for p in recorded["pairs"])]
    leaves = [torch.tensor(INPUTS["logprobs"][r], dtype=torch.float64, requires_grad=True) for r in rows]
    count = len(recorded["pairs"])
    scored = []
    for at in range(count):
        chosen, rejected = leaves[at], leaves[count + at]
        reference = [INPUTS["reference"][rows[at]], INPUTS["reference"][rows[count + at]]]
        ranking = pair([len(chosen), len(rejected)], reference)
        scored.append(objective.loss(torch.stack([chosen.sum(), rejected.sum()]), ranking))
    loss = torch.stack([one.loss for one in scored]).mean()
    loss.backward()
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-6)
    for leaf, gradient in zip(leaves, recorded["gradient"], strict=True):
        assert leaf.grad is not None
        assert leaf.grad.tolist() == pytest.approx(gradient, rel=1e-6, abs=1e-12)
    rewards = torch.stack([one.scores_K.detach() for one in scored])
    assert rewards[:, 0].mean().item() == pytest.approx(recorded["rewards"]["chosen"], rel=1e-6)
    assert rewards[:, 1].mean().item() == pytest.approx(recorded["rewards"]["rejected"], rel=1e-6)
    right = (rewards[:, 0] > rewards[:, 1]).double().mean().item()
    assert right == pytest.approx(recorded["rewards"]["accuracies"], rel=1e-6)


@pytest.mark.parametrize("variant", sorted(FIXTURE["reward"]))
def test_reward_model_loss_and_gradient_are_trls(variant: str) -> None:
    recorded = FIXTURE["reward"][variant]
    centring = recorded["options"].get("center_rewards_coefficient", 0.0)
    config = RewardModelConfig(**COMMON, centring=centring, margin_scale=float(variant == "margin"))
    objective = RewardModelObjective(cast(Any, None), config)
    scores = torch.tensor(INPUTS["scores"], dtype=torch.float64, requires_grad=True)
    losses = [
        objective.loss(scores[[at, 4 + at]], pair([1, 1], [], INPUTS["margins"][at])).loss for at in range(4)
    ]
    loss = torch.stack(losses).mean()
    loss.backward()
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-6)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx(recorded["gradient"], rel=1e-6)


def test_every_recorded_variant_has_a_config() -> None:
    assert OURS.keys() == FIXTURE["dpo"].keys()
