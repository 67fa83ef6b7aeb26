"""Covariances by hand, the adaptive bonus, and a bandit whose entropy collapses without either."""

from dataclasses import replace

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.algorithm import (
    EntropyController,
    LossInput,
    Terms,
    component_weights,
    limit_covariance,
    objective,
    policy_loss,
    token_covariances,
)
from verl_lite.engine.config import AlgorithmConfig
from verl_lite.errors import TrainingError


def sample_of(logprobs, advantages, mask=None) -> TrainingSample:
    return TrainingSample(
        prompt_ids=[1],
        completion_ids=[2] * len(logprobs),
        sampler_logprobs_T=logprobs,
        advantages_T=advantages,
        loss_mask_T=mask or [1] * len(logprobs),
    )


def test_covariances_by_hand_leave_masked_tokens_out():
    samples = [sample_of([-1.0, -3.0], [1.0, 1.0]), sample_of([-2.0, -9.0], [-2.0, 7.0], [1, 0])]
    # means over three tokens: log p -2, A 0
    assert token_covariances(samples) == {(0, 0): 1.0, (0, 1): -1.0, (1, 0): 0.0}


def test_clip_cov_takes_the_gradient_and_kl_cov_adds_a_component():
    samples = [sample_of([-1.0, -3.0, -2.0], [1.0, 1.0, 1.0]), sample_of([-2.0], [-3.0])]
    assert max(token_covariances(samples).items(), key=lambda item: item[1]) == ((0, 0), 1.0)
    clip = AlgorithmConfig(entropy={"covariance": "clip", "fraction": 0.3, "low": 0.5, "high": 2.0}).entropy
    assert [s.advantages_T for s in limit_covariance(samples, clip, seed=0)] == [[0.0, 1.0, 1.0], [-3.0]]
    kl = AlgorithmConfig(
        mini_batches=2, entropy={"covariance": "kl", "fraction": 0.3, "coefficient": 0.5}
    ).entropy
    changed = limit_covariance(samples, kl, seed=0)
    assert [s.component("kl_cov") for s in changed] == [[0.5, 0.0, 0.0], [0.0]]
    assert [s.advantages_T for s in changed] == [s.advantages_T for s in samples]


def test_covariances_need_the_samplers_log_probabilities():
    config = AlgorithmConfig(entropy={"covariance": "clip"}).entropy
    with pytest.raises(TrainingError, match="covariance needs the sampler's log-probability"):
        limit_covariance([replace(sample_of([-1.0], [1.0]), sampler_logprobs_T=())], config, seed=0)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_log_probability_that_is_no_number_is_refused(bad):
    config = AlgorithmConfig(entropy={"covariance": "clip"}).entropy
    with pytest.raises(TrainingError, match="is nan or inf"):
        limit_covariance([sample_of([-1.0, bad], [1.0, 1.0])], config, seed=0)


def test_the_bonus_moves_towards_the_target_and_stays_within_its_bounds():
    config = AlgorithmConfig(entropy={"target": 1.0, "step": 0.04}, entropy_bonus=0.01)
    controller = EntropyController(config.entropy, config.entropy_bonus)
    bonuses = []
    for entropy in (0.5, 0.5, 0.5, 2.0, 2.0, 2.0):
        controller.update(entropy)
        bonuses.append(controller.bonus)
    assert bonuses == pytest.approx([0.05, 0.09, 0.1, 0.06, 0.02, 0.0])
    other = EntropyController(config.entropy, 0.0)
    other.load_state_dict(controller.state_dict())
    assert other.bonus == controller.bonus


def entropy_after_training(**options) -> float:
    """A bandit of 16 arms, 8 of them right: noise in the reward makes it give up 7 of them."""
    config = AlgorithmConfig(advantage="dr_grpo", mini_batches=2, clip_high=0.3, **options)
    generator = torch.Generator().manual_seed(0)
    logits_V = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    controller = EntropyController(config.entropy, config.entropy_bonus)
    loss_of = policy_loss(config)
    for step in range(120):
        policy_V = logits_V.detach().log_softmax(0)
        arms_N = torch.multinomial(policy_V.exp(), 32, replacement=True, generator=generator)
        noise_N = torch.randn(32, generator=generator, dtype=torch.float64)
        rewards_N = (arms_N < 8).double() + 0.5 * noise_N
        advantages_N = rewards_N - rewards_N.mean()
        samples = [sample_of([float(policy_V[a])], [float(advantages_N[n])]) for n, a in enumerate(arms_N)]
        samples = limit_covariance(samples, config.entropy, seed=step)
        per_sample = component_weights(samples, config)
        weights = {
            name: torch.tensor(of) * torch.tensor([s.component(name)[0] for s in samples])
            for name, of in per_sample.items()
        }
        for _ in range(4):
            now_V = logits_V.log_softmax(0)
            entropy = -(now_V.exp() * now_V).sum()
            batch = LossInput(
                logprobs_N=now_V[arms_N],
                old_logprobs_N=policy_V[arms_N],
                advantages_N=torch.tensor([s.advantages_T[0] for s in samples], dtype=torch.float64),
                mask_N=torch.ones(32),
                sequence_N=torch.arange(32),
                num_sequences=32,
            )
            terms = Terms(weights=weights, entropy_N=entropy.expand(32))
            loss, _ = objective(
                batch,
                terms,
                policy_loss=loss_of,
                config=config,
                kl_coefficient=0.0,
                entropy_bonus=controller.bonus,
            )
            (gradient,) = torch.autograd.grad(loss, logits_V)
            with torch.no_grad():
                logits_V -= 3.0 * gradient
        controller.update(float(entropy.detach()))
    return float(entropy.detach())


def test_the_entropy_collapses_without_and_does_not_with():
    """log 8 = 2.08 nats are possible among the right arms."""
    assert entropy_after_training() < 0.5
    assert entropy_after_training(entropy={"target": 1.5, "step": 0.02, "max_bonus": 0.5}) > 1.3
    assert entropy_after_training(entropy={"covariance": "clip", "fraction": 0.3, "low": 0.05}) > 1.8
    assert entropy_after_training(entropy={"covariance": "kl", "fraction": 0.5, "coefficient": 1.0}) > 1.8
