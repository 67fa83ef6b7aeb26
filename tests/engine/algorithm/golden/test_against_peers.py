"""Our losses, corrections and estimators against those of SkyRL, OpenRLHF, Liger, NeMo-RL and prime-rl.

The first three were called (tests/fixtures/record_peer_losses.py). NeMo-RL's numbers are those of its
published golden file, prime-rl's those of its published tests.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.algorithm import (
    KLController,
    LossInput,
    Terms,
    component_weights,
    discounted_returns,
    gae,
    group_center,
    importance_weights,
    leave_one_out,
    mean_normalised,
    objective,
    policy_loss,
    token_kl,
)
from verl_lite.engine.config import AlgorithmConfig, ImportanceConfig
from verl_lite.engine.config.algorithm import KLConfig

FIXTURES = Path(__file__).parents[3] / "fixtures"
PEERS = json.loads((FIXTURES / "peer_losses.json").read_text(encoding="utf-8"))
NEMO = json.loads((FIXTURES / "nemo_rl_losses.json").read_text(encoding="utf-8"))
INPUTS = json.loads((FIXTURES / "trl_losses.json").read_text(encoding="utf-8"))["inputs"]

BY_SEQUENCE = {"aggregate": "sequence_mean"}
NORM = {"aggregate": "sequence_sum_norm", "norm_tokens": 10}
CLIPS = {"clip_low": 0.2, "clip_high": 0.28}
GSPO = {"loss": "gspo", **BY_SEQUENCE, "clip_low": 0.03, "clip_high": 0.04}
SAPO = {"loss": "sapo", **BY_SEQUENCE, "gate_positive": 1.3, "gate_negative": 1.7}
UNCAPPED = {"mode": "truncate", "high": 1e6}
OURS: dict[str, dict[str, dict[str, Any]]] = {
    "skyrl": {
        "ppo": CLIPS,
        "ppo_sequence_mean": {**CLIPS, **BY_SEQUENCE},
        "ppo_sum_norm": {**CLIPS, **NORM},
        "dual_clip": {**CLIPS, "dual_clip": 1.3},
        "sapo": SAPO,
        "gspo": GSPO,
        "cispo": {"loss": "cispo", "clip_low": 1.0, "clip_high": 0.1},
        "dppo_tv": {"loss": "dppo_tv", "clip_low": 0.02, "clip_high": 0.03},
        "dppo_kl": {"loss": "dppo_kl", **BY_SEQUENCE, "clip_low": 0.01, "clip_high": 0.015},
    },
    "openrlhf": {
        "ppo": CLIPS,
        "ppo_sequence_mean": {**CLIPS, **BY_SEQUENCE},
        "dual_clip": {**CLIPS, "dual_clip": 1.3},
        "gspo": GSPO,
        # what is kept there has its token's weight: here a weight without a cap, and a rule that drops
        "icepop": {"importance": {**UNCAPPED, "reject": [{"over": "token", "low": 0.8, "high": 1.25}]}},
        "sequence_mask": {"importance": {**UNCAPPED, "reject": [{"low": 0.9, "high": 1.05}]}},
    },
    "liger": {
        "grpo": {**CLIPS, **BY_SEQUENCE},
        "bnpo": CLIPS,
        "dr_grpo": {**CLIPS, **NORM},
        "dapo": CLIPS,
        "cispo": {"loss": "cispo", "clip_low": 1.0, "clip_high": 0.1},
        "sapo": SAPO,
        "gspo": GSPO,
        "kl": {**CLIPS, "kl": {"coefficient": 0.3}},
        "kl_ratio_weighted": {**CLIPS, "kl": {"coefficient": 0.3, "ratio_weighted": True}},
    },
}
OURS_OF_NEMO: dict[str, dict[str, Any]] = {
    "ppo_token": {},
    "force_on_policy": {},
    "reinforce": {"loss": "policy_gradient"},
    "dual_clip": {"dual_clip": 3.0},
    "cispo_with_token_is": {
        "loss": "cispo", "clip_low": 0.2, "clip_high": 0.2, "importance": UNCAPPED
    },
    "tis_token": {"importance": {"mode": "truncate", "high": 1.3}},
    "icepop_token": {"importance": {"mode": "mask", "low": 0.75, "high": 1.25}},
    "seq_mask_tis": {"importance": {**UNCAPPED, "reject": [{"low": 0.95, "high": 1.15}]}},
    "gspo_sequence_is": {"loss": "gspo", **BY_SEQUENCE, "clip_low": 0.2, "clip_high": 0.2,
                         "importance": {**UNCAPPED, "level": "sequence"}},
    "vapo_mixed_rewards": {},
}  # fmt: skip


def loss_and_gradient(
    columns: dict[str, list[list[float]]],
    config: AlgorithmConfig,
    *,
    imitated: dict[int, float] | None = None,
) -> tuple[float, list[float]]:
    """By lists per sequence; `imitated` is the weight of -log p of every token of a sequence."""
    lengths = [len(row) for row in columns["logprobs"]]
    sequence_N = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    samples = [
        TrainingSample(
            prompt_ids=[1], completion_ids=[2] * n, sampler_logprobs_T=(), advantages_T=[0.0] * n,
            loss_mask_T=[1] * n,
            components={"cross_entropy": [imitated[at]] * n} if imitated and at in imitated else {},
        )
        for at, n in enumerate(lengths)
    ]  # fmt: skip

    def flat(rows: Iterable[Iterable[float]]) -> torch.Tensor:
        return torch.tensor([x for row in rows for x in row], dtype=torch.float64)

    batch = LossInput(
        logprobs_N=flat(columns["logprobs"]).requires_grad_(),
        old_logprobs_N=flat(columns["old_logprobs"]),
        advantages_N=flat(columns["advantages"]),
        mask_N=torch.ones(sum(lengths), dtype=torch.float64),
        sequence_N=sequence_N,
        num_sequences=len(lengths),
    )
    weights = {
        name: torch.tensor(per_sequence, dtype=torch.float64)[sequence_N]
        * flat(s.component(name) or [0.0] * len(s.completion_ids) for s in samples)
        for name, per_sequence in component_weights(samples, config).items()
    }
    terms = Terms(
        weights=weights,
        entropy_N=torch.zeros_like(batch.old_logprobs_N),
        sampler_logprobs_N=flat(columns["sampler_logprobs"]),
        ref_logprobs_N=flat(columns["ref_logprobs"]),
    )
    loss, _ = objective(
        batch, terms, policy_loss=policy_loss(config), config=config, kl_coefficient=config.kl.coefficient
    )
    loss.backward()
    assert batch.logprobs_N.grad is not None
    return loss.item(), batch.logprobs_N.grad.tolist()


def of_trl(peer: str) -> dict[str, list[list[float]]]:
    per_token = [[a] * len(row) for a, row in zip(INPUTS["advantages"], INPUTS["logprobs"], strict=True)]
    return {**{name: INPUTS[name] for name in INPUTS if name != "entropies"}, "advantages": per_token}


@pytest.mark.parametrize(("peer", "name"), [(peer, name) for peer, of in OURS.items() for name in of])
def test_loss_and_gradient_are_the_peers(peer: str, name: str) -> None:
    loss, gradient = loss_and_gradient(of_trl(peer), AlgorithmConfig(**OURS[peer][name]))
    recorded = PEERS[peer]["losses"][name]
    theirs = [x for row in recorded["gradient"] for x in row]
    if name.startswith("dppo"):  # their value is r A, ours log p times the same; the gradient is one
        assert loss != pytest.approx(recorded["loss"], rel=1e-3)
    else:
        assert loss == pytest.approx(recorded["loss"], rel=1e-6, abs=1e-9)
    assert gradient == pytest.approx(theirs, rel=1e-5, abs=1e-8)
    assert sum(abs(x) for x in theirs) > 0.05


@pytest.mark.parametrize("name", OURS_OF_NEMO)
def test_loss_and_gradient_are_nemo_rls(name: str) -> None:
    given = {**NEMO["inputs"], **NEMO["cases"][name].get("inputs", {})}
    if name == "force_on_policy":
        given["old_logprobs"] = given["logprobs"]
    imitated = {0: 0.3} if name.startswith("vapo") else None
    loss, gradient = loss_and_gradient(given, AlgorithmConfig(**OURS_OF_NEMO[name]), imitated=imitated)
    recorded = NEMO["cases"][name]
    # theirs divides by the count + 1e-8
    assert loss == pytest.approx(recorded["loss"], rel=1e-6)
    assert gradient == pytest.approx([x for row in recorded["gradient"] for x in row], rel=1e-6, abs=1e-9)


def test_every_recorded_loss_has_a_config() -> None:
    assert {peer: of.keys() for peer, of in OURS.items()} == {
        peer: of["losses"].keys() for peer, of in PEERS.items()
    }
    assert OURS_OF_NEMO.keys() == NEMO["cases"].keys()


CORRECTIONS: dict[str, dict[str, Any]] = {
    "tis_token": {"mode": "truncate", "high": 1.2},
    "tis_sequence": {"mode": "truncate", "level": "sequence", "high": 1.1},
    "mask_token": {"reject": [{"over": "token", "low": 0.8, "high": 1.25}]},
    "mask_geometric": {"reject": [{"over": "mean", "low": 0.9, "high": 1.05}]},
    "mask_product": {"reject": [{"over": "sum", "low": 0.5, "high": 1.5}]},
    "outlier": {"reject": [{"over": "min", "low": 0.7}, {"over": "max", "high": 1.6}]},
}


@pytest.mark.parametrize("name", sorted(PEERS["skyrl"]["weights"]))
def test_corrections_are_skyrls(name: str) -> None:
    lengths = [len(row) for row in INPUTS["logprobs"]]
    flat = {key: torch.tensor([x for row in INPUTS[key] for x in row]).double() for key in
            ("logprobs", "old_logprobs", "sampler_logprobs")}  # fmt: skip
    batch = LossInput(
        logprobs_N=flat["logprobs"],
        old_logprobs_N=flat["old_logprobs"],
        advantages_N=torch.ones(sum(lengths)),
        mask_N=torch.ones(sum(lengths)),
        sequence_N=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        num_sequences=len(lengths),
    )
    weight_N, _ = importance_weights(flat["sampler_logprobs"], batch, ImportanceConfig(**CORRECTIONS[name]))
    theirs = [x for row in PEERS["skyrl"]["weights"][name] for x in row]
    assert weight_N.tolist() == pytest.approx(theirs, rel=1e-6)
    assert len(set(theirs)) > 1


def test_estimators_and_the_controller_are_skyrls() -> None:
    skyrl = PEERS["skyrl"]
    rewards = skyrl["rewards"]  # 6 and 3 of one prompt, 9 and 12 of another
    ours = {"dr_grpo": group_center, "rloo": leave_one_out, "maxrl": mean_normalised}
    for name, estimate in ours.items():
        assert [*estimate(rewards[:2]), *estimate(rewards[2:])] == pytest.approx(
            skyrl["estimates"][name],
            rel=1e-6,  # maxrl: theirs divides by the mean + 1e-6
        )
    for key, theirs in skyrl["gae_returns"].items():
        gamma, lam = map(float, key.split("_"))
        assert gae([1.0, 2.0, 3.0], [0.5, 1.0, 1.5], gamma=gamma, lam=lam)[1] == pytest.approx(theirs)
    assert discounted_returns([1.0, 2.0, 3.0], 0.5) == pytest.approx(skyrl["returns"])
    controller = KLController(KLConfig(coefficient=0.2, target=0.1, horizon_samples=100))
    controller.update(0.2, num_samples=10)
    assert controller.coefficient == pytest.approx(skyrl["kl_coefficient"])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_both_divergences_are_ligers(direction: str) -> None:
    given = json.loads((FIXTURES / "trl_distillation.json").read_text())
    logits = torch.tensor(given["student_logits"], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor(given["teacher_logits"], dtype=torch.float64)
    student_NV, teacher_NV = ((one / given["temperature"]).log_softmax(-1) for one in (logits, teacher))
    pair = (teacher_NV, student_NV) if direction == "forward" else (student_NV, teacher_NV)
    loss = token_kl(*pair, is_complete=True).sum()
    loss.backward()
    theirs = PEERS["liger"]["divergences"][direction]
    assert loss.item() == pytest.approx(theirs["loss"], rel=1e-9)
    assert torch.allclose(logits.grad, torch.tensor(theirs["gradient"], dtype=torch.float64), atol=1e-12)


def test_numbers_of_prime_rls_published_tests() -> None:
    """Its cross-entropy channel sums weight x -log p; ours is the mean over the channel's two tokens."""
    assert [*group_center([1.0, 0.0]), *group_center([0.5, 0.5])] == [0.5, -0.5, 0.0, 0.0]
    columns = {"logprobs": [[-0.1, -0.2]], "advantages": [[0.0, 0.0]]}
    columns |= {f"{of}_logprobs": columns["logprobs"] for of in ("old", "sampler", "ref")}
    loss, _ = loss_and_gradient(columns, AlgorithmConfig(), imitated={0: 0.1})
    assert loss * 2 == pytest.approx(0.03)
