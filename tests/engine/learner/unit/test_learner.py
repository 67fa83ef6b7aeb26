"""The learner on a tiny Qwen3: exact whatever the packing, the micro-batches, the order."""

import copy
import json
import math
import random
from dataclasses import replace

import pytest
import torch

from verl_lite.engine.config import AlgorithmConfig, KLConfig, LearnerConfig, LoraConfig, OptimizerConfig
from verl_lite.engine.learner import Learner, attention_buckets
from verl_lite.engine.learner.device_sums import DeviceSums
from verl_lite.engine.types import OF_THE_POLICY
from verl_lite.errors import TrainingError


def make_learner(
    model, algorithm=None, *, total_steps=10, bad_batch_dir=None, temperature=1.0, **options
) -> Learner:
    return Learner(
        model,
        LearnerConfig(**options),
        algorithm or AlgorithmConfig(),
        pad_token_id=0,
        total_steps=total_steps,
        bad_batch_dir=bad_batch_dir,
        temperature=temperature,
    )


@pytest.fixture
def gradients(tiny_model):
    """The gradients of one update, caught before the optimiser takes them."""

    def run(samples, algorithm=None, *, model=None, **options) -> dict[str, torch.Tensor]:
        model = copy.deepcopy(model if model is not None else tiny_model())
        learner = make_learner(model, algorithm, **options)
        caught: dict[str, torch.Tensor] = {}

        def step(norm=None):
            caught.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            return 1.0, True

        learner._optimizer.step = step
        learner.update(samples)
        return caught

    return run


def assert_same(left, right, tolerance=1e-8):
    # Qwen3's RMSNorm and rotary tables are float32 even in a float64 model: 1e-8 is that rounding
    assert left.keys() == right.keys()
    assert max(float(g.abs().max()) for g in left.values()) > 1e-3, "the gradients are all but zero"
    for name in left:
        difference = float((left[name] - right[name]).abs().max())
        assert difference <= tolerance, f"{name}: {difference}"


def computed_tokens(samples):
    return sum(len(s.prompt_ids) + len(s.completion_ids) - 1 for s in samples)


@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean", "sequence_sum_norm"])
def test_one_and_four_micro_batches_give_the_same_gradients(aggregate, gradients, tiny_model, make_samples):
    samples = make_samples()
    algorithm = AlgorithmConfig(aggregate=aggregate, norm_tokens=24)
    model = tiny_model(torch.float32)
    budget = {"max_tokens_per_micro_batch": computed_tokens(samples) // 3, "share_prompts": "never"}
    learner = make_learner(copy.deepcopy(model), algorithm, **budget)
    assert len(list(learner.policy.micro_batches(samples))) == 4
    one = gradients(samples, algorithm, model=model)
    assert_same(one, gradients(samples, algorithm, model=model, **budget), tolerance=1e-6)


@pytest.mark.parametrize(
    "algorithm",
    [
        AlgorithmConfig(loss="gspo", aggregate="sequence_mean", clip_low=3e-4, clip_high=4e-4),
        AlgorithmConfig(loss="cispo", entropy_bonus=0.01),
        AlgorithmConfig(kl=KLConfig(coefficient=0.1), importance={"mode": "truncate", "level": "sequence"}),
    ],
    ids=["gspo", "cispo-entropy", "kl-importance"],
)
def test_no_algorithm_depends_on_the_cut(algorithm, gradients, make_samples):
    samples = [replace(s, old_logprobs_T=s.sampler_logprobs_T) for s in make_samples()]
    cut = gradients(samples, algorithm, max_tokens_per_micro_batch=80)
    assert_same(gradients(samples, algorithm), cut)


@pytest.mark.parametrize("share_prompts", ["never", "always"])
def test_packed_rows_equal_padded_rows(share_prompts, gradients, make_samples):
    samples = make_samples()
    assert_same(gradients(samples, backend="padded"), gradients(samples, share_prompts=share_prompts))


def test_a_split_trajectory_that_shares_its_first_prompt_has_the_same_gradients(gradients, make_samples):
    samples = make_samples(num_groups=2)
    later = [
        replace(s, prompt_ids=[*s.prompt_ids, 7, *s.completion_ids, 8, *([9] * at)])
        for at, s in enumerate(samples)
    ]
    shared = gradients(samples + later, share_prompts="always")
    assert_same(gradients(samples + later, share_prompts="never"), shared)


def test_completions_computed_once_weigh_as_often_as_they_were_sampled(gradients, make_samples):
    """Also under other advantages and other old policies: the tokens are shared, the losses are not."""
    samples = make_samples()
    again = [
        replace(
            s, advantages_T=[0.5 - a for a in s.advantages_T], sampler_logprobs_T=[-1.5] * len(s.advantages_T)
        )
        for s in samples[::2]
    ]
    algorithm = AlgorithmConfig(importance={"mode": "truncate"}, entropy_bonus=0.01)
    once = gradients(samples + again, algorithm, share_prompts="always")
    assert_same(gradients(samples + again, algorithm, share_prompts="never"), once)


def test_checkpointed_layers_give_the_same_gradients(gradients, make_samples):
    samples = make_samples(num_groups=2)
    assert_same(gradients(samples), gradients(samples, gradient_checkpointing=True, share_prompts="always"))


def test_two_shards_with_global_weights_add_up(gradients, make_samples):
    """What data-parallel ranks do: each takes part of the batch and the batch's denominators."""
    samples = make_samples()
    zero = [replace(s, advantages_T=[0.0] * len(s.advantages_T)) for s in samples]
    left = gradients(samples[:7] + zero[7:])
    right = gradients(zero[:7] + samples[7:])
    assert_same(gradients(samples), {name: left[name] + right[name] for name in left})


def test_the_order_of_samples_changes_nothing(gradients, make_samples):
    samples = make_samples()
    shuffled = samples[:]
    random.Random(1).shuffle(shuffled)
    config = {"max_tokens_per_micro_batch": 100}
    assert_same(gradients(samples, **config), gradients(shuffled, **config))


def test_zero_advantage_samples_cost_no_compute_but_count(gradients, tiny_model, make_samples):
    samples = make_samples()
    zeroed = [replace(s, advantages_T=[0.0] * len(s.advantages_T)) if s.group == "g0" else s for s in samples]
    learner = make_learner(tiny_model())
    seen = []
    inner = learner.policy.logprobs_and_entropy

    def counting(batch, **options):
        seen.append(len(batch.sample_indices))
        return inner(batch, **options)

    learner.policy.logprobs_and_entropy = counting
    stats = learner.update(zeroed)
    assert sum(seen) == 12
    assert stats.metrics["learner/active_fraction"] == 0.75
    forced = [replace(s, advantages_T=[a or 1e-300 for a in s.advantages_T]) for s in zeroed]
    assert_same(gradients(zeroed), gradients(forced))


def test_gradients_are_those_of_finite_differences(gradients, tiny_model, make_samples):
    """The whole objective, off-policy, with KL and entropy, against central differences in float64."""
    samples = [
        replace(s, old_logprobs_T=s.sampler_logprobs_T) for s in make_samples(num_groups=2, group_size=2)
    ]
    samples = [replace(s, ref_logprobs_T=[lp - 0.1 for lp in s.sampler_logprobs_T]) for s in samples]
    algorithm = AlgorithmConfig(
        kl=KLConfig(coefficient=0.05), entropy_bonus=0.02, clip_low=0.5, clip_high=0.9
    )
    model = tiny_model()
    analytic = gradients(samples, algorithm, model=model)
    learner = make_learner(model, algorithm)

    def loss_at(parameter, index, delta):
        with torch.no_grad():
            parameter.view(-1)[index] += delta
            (micro,) = learner.policy.micro_batches(samples)
            order = list(micro.sample_indices)
            total = sum(len(s.completion_ids) for s in samples)
            weights = dict.fromkeys(OF_THE_POLICY, dict.fromkeys(order, 1 / total))
            value, _, _ = learner._loss(samples, order, micro, weights)
            parameter.view(-1)[index] -= delta
        return float(value)

    eps = 1e-4
    for name in (
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
        "lm_head.weight",
    ):
        parameter = dict(model.named_parameters())[name]
        index = int(analytic[name].abs().argmax())
        numeric = (loss_at(parameter, index, eps) - loss_at(parameter, index, -eps)) / (2 * eps)
        assert numeric == pytest.approx(float(analytic[name].view(-1)[index]), rel=2e-3), name


def test_old_logprobs_are_computed_once_and_only_where_needed(tiny_model, make_samples):
    """Two epochs of two mini-batches: only the second mini-batch's samples need a pass of their own."""
    samples = make_samples()
    learner = make_learner(tiny_model(torch.float32), AlgorithmConfig(epochs=2, mini_batches=2))
    calls = []
    inner = learner.policy.completion_logprobs

    def counting(chosen, **options):
        calls.append(len(chosen))
        return inner(chosen, **options)

    learner.policy.completion_logprobs = counting
    learner.update(samples)
    assert calls == [8]
    on_policy = make_learner(tiny_model(torch.float32))
    on_policy.policy.completion_logprobs = counting
    metrics = on_policy.update(samples).metrics
    assert calls == [8]
    assert metrics["policy/ratio"] == pytest.approx(1.0)


def test_second_epoch_ratios_are_to_the_start_of_the_step(tiny_model, make_samples):
    samples = make_samples()
    optimizer = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    model = tiny_model(torch.float32)
    learner = make_learner(
        model, AlgorithmConfig(epochs=2, clip_low=10.0, clip_high=10.0), optimizer=optimizer
    )
    before = learner.policy.completion_logprobs(samples)
    seen = []
    inner = learner._policy_loss

    def spying(batch):
        seen.append(batch)
        return inner(batch)

    learner._policy_loss = spying
    learner.update(samples)
    first, second = seen
    assert not torch.allclose(second.logprobs_N, second.old_logprobs_N, atol=1e-3)
    torch.testing.assert_close(first.old_logprobs_N.sort().values, second.old_logprobs_N.sort().values)
    assert float(second.old_logprobs_N.sum()) == pytest.approx(sum(map(sum, before)), rel=1e-5)


def test_token_logprobs_are_the_models(tiny_model):
    model = tiny_model()
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    learner = make_learner(model, temperature=0.7)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    expected = expected.gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
    torch.testing.assert_close(torch.tensor(learner.token_logprobs(ids), dtype=torch.float64), expected)


def test_plain_forward_and_generate_still_work(tiny_model):
    model = tiny_model(torch.float32)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        before = model(ids).logits
    make_learner(model)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, before)
    assert model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None).shape == (1, 8)


def test_update_moves_probability_towards_positive_advantage(tiny_model, make_samples):
    samples = [replace(s, advantages_T=[1.0] * len(s.advantages_T)) for s in make_samples(num_groups=1)]
    optimizer = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    learner = make_learner(tiny_model(torch.float32), optimizer=optimizer)
    before = sum(map(sum, learner.policy.completion_logprobs(samples)))
    for _ in range(5):
        learner.update(samples)
    assert sum(map(sum, learner.policy.completion_logprobs(samples))) > before + 1


def test_a_resumed_learner_continues_exactly(tiny_model, make_samples):
    algorithm = AlgorithmConfig(epochs=2, mini_batches=2, kl=KLConfig(coefficient=0.1, target=0.5))
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=2)
    batches = [make_samples(seed=seed) for seed in range(3)]
    whole = make_learner(tiny_model(torch.float32), algorithm, optimizer=optimizer)
    for batch in batches[:2]:
        whole.update(batch)
    state = copy.deepcopy(whole.state_dict())
    expected = whole.update(batches[2]).metrics
    resumed = make_learner(tiny_model(torch.float32), algorithm, optimizer=optimizer)
    resumed.load_state_dict(state)
    got = resumed.update(batches[2]).metrics
    for name in expected.keys() - {"learner/tokens_per_s"}:
        assert got[name] == expected[name], name
    for (name, left), (_, right) in zip(whole.named_weights(), resumed.named_weights(), strict=True):
        assert torch.equal(left, right), name


@pytest.mark.parametrize("kind", ["copy", "adapter_off"])
def test_kl_to_the_reference_starts_at_zero_and_grows(kind, tiny_model, make_samples):
    optimizer = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    algorithm = AlgorithmConfig(kl=KLConfig(coefficient=0.01, reference=kind))
    lora = LoraConfig(rank=4) if kind == "adapter_off" else None
    learner = make_learner(tiny_model(torch.float32), algorithm, optimizer=optimizer, lora=lora)
    samples = make_samples()
    first = learner.update(samples).metrics["policy/kl_reference"]
    learner.update(samples)
    assert first == pytest.approx(0.0, abs=1e-9)
    assert learner.update(samples).metrics["policy/kl_reference"] > 1e-4


def test_lora_weights_come_out_merged_and_only_adapters_train(tiny_model, make_samples):
    base = tiny_model(torch.float32)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    optimizer = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    learner = make_learner(base, lora=LoraConfig(rank=4), optimizer=optimizer)
    learner.update(make_samples())
    learner.update(make_samples())
    merged = dict(learner.named_weights())
    assert merged.keys() == before.keys()
    assert not torch.equal(
        merged["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"]
    )
    assert torch.equal(merged["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    plain = tiny_model(torch.float32)
    plain.load_state_dict(merged)
    ids = [3, 1, 4, 1, 5, 9]
    assert learner.token_logprobs(ids) == pytest.approx(make_learner(plain).token_logprobs(ids), abs=1e-5)
    assert all("lora_" in name for name, _ in learner.adapter_weights())


def test_bfloat16_autocast_keeps_float32_master_weights(gradients, tiny_model, make_samples):
    samples = make_samples()
    model = tiny_model(torch.bfloat16)
    half = gradients(samples, model=model, dtype="bfloat16")
    full = gradients(samples, model=tiny_model(torch.bfloat16).float())
    for name, gradient in half.items():
        assert gradient.dtype == torch.float32, name
        similarity = torch.cosine_similarity(gradient.flatten(), full[name].flatten(), dim=0)
        assert similarity > 0.99, name


@pytest.mark.parametrize("shared", ["never", "always"])
def test_short_sequences_attend_in_float32_under_bfloat16_autocast_on_the_cpu(
    gradients, tiny_model, make_samples, monkeypatch, shared
):
    """SDPA's backward pass in bfloat16 takes up to eight times as long, and autocast would choose it."""
    inside = set()

    def watched(query, key, value, **options):
        output = torch.nn.functional.scaled_dot_product_attention(query, key, value, **options)
        inside.add(output.dtype)
        return output

    monkeypatch.setattr(attention_buckets, "scaled_dot_product_attention", watched)
    gradients(make_samples(), model=tiny_model(torch.float32), dtype="bfloat16", share_prompts=shared)
    assert inside == {torch.float32}


def test_the_canary_is_computed_in_the_dtype_the_weights_are_sent_in(tiny_model):
    """With autocast it would differ from a float32 sampler's by more than the float32 tolerance."""
    exact, mixed = (make_learner(tiny_model(torch.float32), dtype=d) for d in ("float32", "bfloat16"))
    ids = [3, 1, 4, 1, 5, 9]
    assert mixed.token_logprobs(ids) == exact.token_logprobs(ids)


def test_nan_skips_the_step_keeps_the_batch_and_stops_in_the_end(tiny_model, make_samples, tmp_path):
    optimizer = OptimizerConfig(learning_rate=1e-2, max_bad_steps=2)
    learner = make_learner(tiny_model(torch.float32), optimizer=optimizer, bad_batch_dir=tmp_path / "bad")
    samples = make_samples()
    poisoned = [replace(samples[0], advantages_T=[math.nan] * len(samples[0].advantages_T)), *samples[1:]]
    before = [tensor.clone() for _, tensor in learner.named_weights()]
    metrics = learner.update(poisoned).metrics
    assert metrics["learner/bad_steps"] == 1
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, learner.named_weights(), strict=True))
    rows = [json.loads(line) for line in (tmp_path / "bad" / "bad_batch_001.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    assert rows[0]["completion_ids"] == list(poisoned[0].completion_ids)
    with pytest.raises(TrainingError, match="max_bad_steps"):
        learner.update(poisoned)


def test_nothing_to_learn_is_no_step(tiny_model, make_samples):
    learner = make_learner(tiny_model(torch.float32))
    assert learner.update([]).metrics["learner/bad_steps"] == 0
    flat = [replace(s, advantages_T=[0.0] * len(s.advantages_T)) for s in make_samples()]
    before = [tensor.clone() for _, tensor in learner.named_weights()]
    for name in ("cross_entropy", "distillation", "forward_kl", "kl_cov"):  # with a denominator of 0
        empty = [replace(s, components={name: [0.0] * len(s.completion_ids)}) for s in flat]
        metrics = learner.update(empty).metrics
        assert f"loss/{name}" not in metrics
        assert metrics["learner/bad_steps"] == 0
    metrics = learner.update(flat).metrics
    assert metrics["learner/active_fraction"] == 0.0
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, learner.named_weights(), strict=True))


def mean_mismatch(learner, samples) -> float:
    """k3 of KL(sampler || learner) per token, from the log-probabilities themselves."""
    logprobs = learner.policy.completion_logprobs(samples)
    pairs = [
        pair
        for s, lp in zip(samples, logprobs, strict=True)
        for pair in zip(s.sampler_logprobs_T, lp, strict=True)
    ]
    return sum(math.exp(old - drawn) - 1 - (old - drawn) for drawn, old in pairs) / len(pairs)


def test_the_mismatch_is_measured_where_no_sample_has_a_gradient(tiny_model, make_samples):
    """When every group is flat, and while only the critic learns."""
    samples = make_samples()
    flat = [replace(s, advantages_T=[0.0] * len(s.advantages_T)) for s in samples]
    learner = make_learner(tiny_model(torch.float32))
    expected = mean_mismatch(learner, samples)
    assert learner.update(flat).metrics["policy/kl_sampler_trainer"] == pytest.approx(expected, rel=1e-5)
    assert learner.update(samples).metrics["policy/kl_sampler_trainer"] == pytest.approx(expected, rel=1e-5)
    ppo = AlgorithmConfig(advantage="gae", critic={"warmup_steps": 1})
    learner = make_learner(tiny_model(torch.float32), ppo)
    valued = [
        replace(s, returns_T=[1.0] * len(v), values_T=v)
        for s in samples
        for v in [[0.0] * len(s.completion_ids)]
    ]
    found = learner.update(valued).metrics
    assert "loss/policy" not in found
    assert found["policy/kl_sampler_trainer"] == pytest.approx(expected, rel=1e-5)
    assert found["policy/logprob_difference"] > 0


def test_measuring_the_mismatch_alone_takes_a_few_samples(tiny_model, make_samples, monkeypatch):
    samples = [replace(s, advantages_T=[0.0] * len(s.advantages_T)) for s in make_samples(num_groups=10)]
    assert len(samples) == 40
    learner, computed = make_learner(tiny_model(torch.float32)), []
    inner = learner.policy.completion_logprobs
    monkeypatch.setattr(
        learner.policy, "completion_logprobs", lambda rows: computed.append(len(rows)) or inner(rows)
    )
    assert learner.update(samples).metrics["policy/kl_sampler_trainer"] > 0
    assert computed == [16]


@pytest.mark.parametrize("mini_batches", [1, 2])
def test_an_update_waits_for_the_gpu_once_per_optimiser_step(
    tiny_model, make_samples, monkeypatch, waits, mini_batches
):
    """All its numbers are read together; with several mini-batches the old log-probabilities once more."""
    reads = []
    inner = DeviceSums.read
    monkeypatch.setattr(DeviceSums, "read", lambda self, **also: reads.append(also) or inner(self, **also))
    algorithm = AlgorithmConfig(
        mini_batches=mini_batches,
        entropy_bonus=0.01,
        kl=KLConfig(coefficient=0.1),
        importance={"mode": "mask"},
    )
    samples = [replace(s, ref_logprobs_T=s.sampler_logprobs_T) for s in make_samples()]
    learner = make_learner(tiny_model(torch.float32), algorithm, max_tokens_per_micro_batch=100)
    learner.update(samples)  # the optimiser's first step creates its state
    reads.clear()
    with waits:
        learner.update(samples)
    assert len(reads) == mini_batches
    assert waits.seen == []


def test_samples_without_the_samplers_logprobs(tiny_model, make_samples):
    """Weights cannot be made of them; the mismatch is measured on the others, however they are cut."""
    samples = make_samples()
    mixed = [replace(samples[0], sampler_logprobs_T=()), *samples[1:]]
    for mode in ("truncate", "mask"):
        learner = make_learner(tiny_model(torch.float32), AlgorithmConfig(importance={"mode": mode}))
        with pytest.raises(TrainingError, match=r"importance weighs .* but 1 of 16 came without"):
            learner.update(mixed)
    for max_tokens in (64, 16_384):
        learner = make_learner(tiny_model(torch.float32), max_tokens_per_micro_batch=max_tokens)
        expected = mean_mismatch(learner, samples[1:])
        found = learner.update(mixed).metrics["policy/kl_sampler_trainer"]
        assert found == pytest.approx(expected, rel=1e-5)
    none = [replace(s, sampler_logprobs_T=()) for s in samples]
    assert "policy/kl_sampler_trainer" not in learner.update(none).metrics


def test_a_mini_batch_without_a_gradient_does_not_dilute_what_the_others_measure(tiny_model, make_samples):
    samples = make_samples(num_groups=2, group_size=4)
    half = [replace(s, advantages_T=[0.0] * len(s.advantages_T)) if s.group == "g1" else s for s in samples]
    learner = make_learner(tiny_model(torch.float32), AlgorithmConfig(mini_batches=2))
    active = [s for s in samples if s.group == "g0"]
    expected = mean_mismatch(learner, active)
    metrics = learner.update(half).metrics
    assert metrics["learner/active_fraction"] == 0.5
    assert metrics["policy/kl_sampler_trainer"] == pytest.approx(expected, rel=1e-5)


def test_a_component_has_a_denominator_of_its_own(gradients, tiny_model, make_samples):
    """Demonstrations beside rollouts add their own mean: the sum of the gradients of either alone."""
    model = tiny_model()
    rollouts = make_samples()
    demonstrations = [
        replace(
            sample,
            loss_mask_T=[0] * len(sample.completion_ids),
            components={"cross_entropy": [0.5] * len(sample.completion_ids)},
        )
        for sample in make_samples(num_groups=2, seed=1)
    ]
    for algorithm in (AlgorithmConfig(), AlgorithmConfig(importance={"mode": "truncate"}, mini_batches=1)):
        together = gradients([*rollouts, *demonstrations], algorithm, model=model)
        alone = [gradients(part, algorithm, model=model) for part in (rollouts, demonstrations)]
        assert_same(together, {name: alone[0][name] + alone[1][name] for name in together})


def test_the_cross_entropy_component_is_the_mean_negative_log_probability(tiny_model, make_samples):
    model = tiny_model()
    (sample,) = make_samples(num_groups=1, group_size=1, completion=(4, 4))
    weights_T = [1.0, 0.0, 0.5, 0.0]
    sample = replace(
        sample, loss_mask_T=[0] * 4, advantages_T=[9.0] * 4, components={"cross_entropy": weights_T}
    )
    learner = make_learner(model)
    logprobs_T = learner.policy.completion_logprobs([sample])[0]
    metrics = learner.update([sample]).metrics
    assert metrics["loss/cross_entropy"] == pytest.approx(-(logprobs_T[0] + 0.5 * logprobs_T[2]) / 2)
    assert "loss/policy" not in metrics


def test_an_average_follows_the_policy_and_is_in_the_state(tiny_model, make_samples):
    algorithm = AlgorithmConfig(kl=KLConfig(coefficient=0.1, reference="ema", ema_decay=0.75))
    model = tiny_model()
    start = copy.deepcopy(model.state_dict())
    learner = make_learner(model, algorithm)
    samples = make_samples()
    learner.update(samples)
    average = dict(learner.ema.named_weights())
    for name, value in model.state_dict().items():
        assert torch.allclose(average[name], 0.75 * start[name] + 0.25 * value), name
    resumed = make_learner(tiny_model(seed=3), algorithm)
    resumed.load_state_dict(learner.state_dict())
    assert all(torch.equal(value, average[name]) for name, value in resumed.ema.named_weights())
    assert learner.update(samples).metrics["policy/kl_reference"] > 0
    assert make_learner(tiny_model(), AlgorithmConfig(kl=KLConfig(reference="ema"))).ema is not None
    assert make_learner(tiny_model(), AlgorithmConfig()).ema is None
