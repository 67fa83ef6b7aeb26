"""Twenty updates of a seeded tiny model against a committed curve: any change of the numbers shows.

After an intended change run this file as a script, read the diff, and commit it:

    python tests/engine/golden/test_golden_curve.py
"""

import json
import random
import sys
from pathlib import Path

import pytest
import torch

from verl_lite.engine.algorithm import estimate_advantages
from verl_lite.engine.config import AlgorithmConfig, KLConfig, LearnerConfig, OptimizerConfig
from verl_lite.engine.learner import Learner
from verl_lite.plugins import Rollout, ScoredRollout

CURVE = Path(__file__).parents[2] / "fixtures" / "golden_grpo_curve.json"
NAMES = (
    "loss/policy",
    "loss/kl",
    "policy/clip_fraction",
    "policy/entropy",
    "learner/grad_norm",
    "even/probability",
)


def scored_batch(step: int) -> list[ScoredRollout]:
    """Random completions, rewarded by their share of even tokens: what to learn needs no sampling."""
    rng = random.Random(step)
    rows = []
    for group in range(4):
        prompt = [rng.randrange(1, 61) for _ in range(rng.randint(3, 12))]
        for _ in range(4):
            completion = [rng.randrange(1, 61) for _ in range(rng.randint(2, 16))]
            rollout = Rollout(
                completion="",
                prompt_ids=prompt,
                completion_ids=completion,
                logprobs=[-4.1] * len(completion),
                group=f"{step}-{group}",
            )
            reward = sum(token % 2 == 0 for token in completion) / len(completion)
            rows.append(ScoredRollout(rollout=rollout, components={}, reward=reward))
    return rows


def even_probability(learner: Learner) -> float:
    """The chance of an even next token after one of ten contexts: 0.5 before learning."""
    contexts = torch.tensor([[first, first + 1] for first in range(1, 60, 6)])
    with torch.no_grad():
        logits = learner.policy.model(contexts).logits[:, -1]
    return float(logits.softmax(-1)[:, 2::2].sum(-1).mean())


def run_curve(make_model) -> list[dict[str, float]]:
    algorithm = AlgorithmConfig(epochs=2, mini_batches=2, clip_high=0.28, kl=KLConfig(coefficient=0.02))
    # at 1e-2 the curve is chaotic: two CPUs' rounding made 0.5% of it; at this rate 0.01%
    optimizer = OptimizerConfig(learning_rate=6e-3, warmup_steps=4, weight_decay=0.01)
    learner = Learner(
        make_model(torch.float32),
        LearnerConfig(optimizer=optimizer, share_prompts="always", max_tokens_per_micro_batch=128),
        algorithm,
        pad_token_id=0,
        total_steps=20,
    )
    curve = []
    for step in range(20):
        metrics = dict(learner.update(estimate_advantages(scored_batch(step), algorithm)).metrics)
        metrics["even/probability"] = even_probability(learner)
        curve.append({name: metrics[name] for name in NAMES})
    return curve


def test_twenty_updates_follow_the_committed_curve(tiny_model):
    expected = json.loads(CURVE.read_text(encoding="utf-8"))
    got = run_curve(tiny_model)
    for step, (left, right) in enumerate(zip(got, expected, strict=True)):
        for name in NAMES:
            # other CPUs add up in another order: 20 updates amplify the last digit
            assert left[name] == pytest.approx(right[name], rel=2e-3, abs=2e-5), f"step {step}: {name}"


def test_the_committed_curve_learns():
    curve = json.loads(CURVE.read_text(encoding="utf-8"))
    assert curve[0]["even/probability"] < 0.55
    assert curve[-1]["even/probability"] > 0.75
    assert len(curve) == 20


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import conftest

    torch.set_num_threads(1)
    CURVE.write_text(json.dumps(run_curve(conftest.build_tiny_model), indent=1) + "\n", encoding="utf-8")
