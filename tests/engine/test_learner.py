"""The learner on a tiny Qwen3: exact whatever the packing, the micro-batches, the order."""

import copy
import random
from dataclasses import replace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from verl_lite.engine.algorithm_config import AlgorithmConfig, LearnerConfig, OptimizerConfig
from verl_lite.engine.learner import Learner
from verl_lite.engine.stages import TrainingSample

VOCAB = 61


def tiny_model(dtype: torch.dtype = torch.float64, seed: int = 0, **options) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, pad_token_id=0, **options,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).to(dtype)


def make_samples(
    *, num_groups=4, group_size=4, prompt=(5, 20), completion=(1, 24), seed=0
) -> list[TrainingSample]:
    rng = random.Random(seed)
    samples = []
    for group in range(num_groups):
        prompt_ids = [rng.randrange(1, VOCAB) for _ in range(rng.randint(*prompt))]
        for _ in range(group_size):
            completion_ids = [rng.randrange(1, VOCAB) for _ in range(rng.randint(*completion))]
            advantage = rng.uniform(-2, 2)
            samples.append(
                TrainingSample(
                    prompt_ids=prompt_ids,
                    completion_ids=completion_ids,
                    sampler_logprobs_T=[-4.0 + rng.uniform(-0.3, 0.3) for _ in completion_ids],
                    advantages_T=[advantage] * len(completion_ids),
                    loss_mask_T=[1] * len(completion_ids),
                    group=f"g{group}",
                )
            )
    return samples


def gradients(samples, algorithm=None, *, model=None, **options) -> dict[str, torch.Tensor]:
    """The gradients of one update, caught before the optimiser takes them."""
    model = copy.deepcopy(model if model is not None else tiny_model())
    learner = Learner(
        model, LearnerConfig(**options), algorithm or AlgorithmConfig(), pad_token_id=0, total_steps=10
    )
    caught: dict[str, torch.Tensor] = {}

    def step():
        caught.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        return 1.0, True

    learner._optimizer.step = step
    learner.update(samples)
    return caught


def assert_same(left, right, tolerance=1e-8):
    # Qwen3's RMSNorm computes in float32 even in a float64 model: 1e-8 is that rounding
    assert left.keys() == right.keys()
    assert max(float(g.abs().max()) for g in left.values()) > 1e-3, "the gradients are all but zero"
    for name in left:
        torch.testing.assert_close(
            left[name], right[name], atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean", "sequence_sum_norm"])
def test_one_and_four_micro_batches_give_the_same_gradients(aggregate):
    samples = make_samples()
    algorithm = AlgorithmConfig(aggregate=aggregate, norm_tokens=24)
    model = tiny_model(torch.float32)
    one = gradients(samples, algorithm, model=model)
    total = sum(len(s.prompt_ids) + len(s.completion_ids) - 1 for s in samples)
    config = {"max_tokens_per_micro_batch": total // 3}
    learner = Learner(copy.deepcopy(model), LearnerConfig(**config), algorithm, pad_token_id=0, total_steps=1)
    assert len(list(learner.policy.micro_batches(samples))) == 4
    assert_same(one, gradients(samples, algorithm, model=model, **config), tolerance=1e-6)


@pytest.mark.parametrize("share_prompts", ["never", "always"])
def test_packed_rows_equal_padded_rows(share_prompts):
    samples = make_samples()
    padded = gradients(samples, backend="padded")
    assert_same(padded, gradients(samples, share_prompts=share_prompts))


def test_the_order_of_samples_changes_nothing():
    samples = make_samples()
    shuffled = samples[:]
    random.Random(1).shuffle(shuffled)
    config = {"max_tokens_per_micro_batch": 100}
    assert_same(gradients(samples, **config), gradients(shuffled, **config))


def test_zero_advantage_samples_cost_no_compute_but_count():
    samples = make_samples()
    zeroed = [replace(s, advantages_T=[0.0] * len(s.advantages_T)) if s.group == "g0" else s for s in samples]
    learner = Learner(
        tiny_model(), LearnerConfig(), AlgorithmConfig(entropy_bonus=0.0), pad_token_id=0, total_steps=1
    )
    seen = []
    inner = learner.policy.logprobs
    learner.policy.logprobs = lambda batch, **kw: (
        seen.append(len(set(batch.sequence_N.tolist()))) or inner(batch, **kw)
    )
    stats = learner.update(zeroed)
    assert sum(seen) == 12
    assert stats.metrics["learner/active_fraction"] == 0.75
    without_skipping = gradients(
        [replace(s, advantages_T=[a or 1e-300 for a in s.advantages_T]) for s in zeroed]
    )
    assert_same(gradients(zeroed), without_skipping)


def test_token_logprobs_are_the_models():
    model = tiny_model()
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    learner = Learner(
        model, LearnerConfig(), AlgorithmConfig(), pad_token_id=0, total_steps=1, temperature=0.7
    )
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    expected = expected.gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
    torch.testing.assert_close(torch.tensor(learner.token_logprobs(ids), dtype=torch.float64), expected)


def test_update_moves_probability_towards_positive_advantage():
    samples = [replace(s, advantages_T=[1.0] * len(s.advantages_T)) for s in make_samples(num_groups=1)]
    optimizer = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    learner = Learner(
        tiny_model(torch.float32),
        LearnerConfig(optimizer=optimizer),
        AlgorithmConfig(),
        pad_token_id=0,
        total_steps=5,
    )
    before = sum(map(sum, learner.policy.completion_logprobs(samples)))
    for _ in range(5):
        learner.update(samples)
    assert sum(map(sum, learner.policy.completion_logprobs(samples))) > before + 1
