"""The critic learns a value it can learn; PPO's loop of statistics, GAE and update holds together."""

import math
import random
from dataclasses import replace

import pytest
import torch

from verl_lite.engine.algorithm import estimate_advantages
from verl_lite.engine.config import (
    AlgorithmConfig,
    CriticConfig,
    LearnerConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
)
from verl_lite.engine.learner import Learner, explained_variance, make_critic, value_loss
from verl_lite.engine.model import add_adapters, check_critic
from verl_lite.engine.testing import family_model
from verl_lite.errors import ConfigError, DataError, TrainingError
from verl_lite.plugins import Rollout, ScoredRollout

OPTIMIZER = OptimizerConfig(learning_rate=3e-3, schedule="constant")


def test_value_loss_takes_the_worse_of_both():
    values, old, returns = torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([2.0, 0.0])
    assert value_loss(values, old, returns, clip=0.2).tolist() == pytest.approx([1.8**2 / 2, 0.005])
    assert value_loss(values, old, returns, clip=None).tolist() == pytest.approx([0.5, 0.005])


def test_explained_variance():
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.ones(3), returns) == 0.0
    assert explained_variance(torch.ones(3), torch.ones(3)) == 0.0


def test_values_start_at_zero_and_learn_the_returns(tiny_model, make_samples):
    policy = tiny_model(torch.float32)
    critic = make_critic(
        CriticConfig(learning_rate=3e-3, value_clip=None), LearnerConfig(optimizer=OPTIMIZER), policy,
        pad_token_id=0, total_steps=50,
    )  # fmt: skip
    samples = make_samples(num_groups=4, group_size=2)
    assert all(value == 0.0 for one in critic.values(samples) for value in one)
    # the return is 1 where the prompt is that of an even group, else 0: the prompt tells it
    targets = [1.0 if s.group in ("g0", "g2") else 0.0 for s in samples]
    history = regress(critic, samples, targets, updates=25)
    assert history[-1]["loss/critic"] < 0.05 * history[0]["loss/critic"]
    assert history[-1]["critic/explained_variance"] > 0.8


def regress(critic, samples, targets, *, updates):
    """The metrics of so many updates on the returns `targets`, one a sample."""
    history = []
    for _ in range(updates):
        values = critic.values(samples)
        batch = [
            replace(s, returns_T=[t] * len(v), values_T=v)
            for s, t, v in zip(samples, targets, values, strict=True)
        ]
        history.append(critic.update(batch))
    return history


def test_a_large_mean_does_not_keep_the_critic_from_what_differs(tiny_model, make_samples):
    """From 0 the first gradients are all of the mean: they bend the body and fill AdamW's moments."""
    samples = make_samples(num_groups=4, group_size=2)
    targets = [6.0 if s.group in ("g0", "g2") else 5.0 for s in samples]
    explained = {}
    for start in (0.0, 5.5):
        critic = make_critic(
            CriticConfig(learning_rate=3e-3, value_clip=None), LearnerConfig(optimizer=OPTIMIZER),
            tiny_model(torch.float32), pad_token_id=0, total_steps=50,
        )  # fmt: skip
        critic.init_values(start)
        history = regress(critic, samples, targets, updates=25)
        explained[start] = history[-1]["critic/explained_variance"]
    assert explained[5.5] > 0.8
    assert explained[0.0] < 0.2


def test_the_first_values_are_the_mean_reward_and_later_ones_are_learned(tiny_model, make_samples):
    algorithm = AlgorithmConfig(advantage="gae", critic=CriticConfig(learning_rate=1e-3))
    config = LearnerConfig(optimizer=OPTIMIZER)
    learner = Learner(tiny_model(torch.float32), config, algorithm, pad_token_id=0, total_steps=4)
    rows = [replace(row, reward=2.0 + at) for at, row in enumerate(scored_rollouts(make_samples()))]
    rows[0] = replace(rows[0], reward=None)  # left out of the mean
    mean = sum(row.reward for row in rows[1:]) / len(rows[1:])
    stats = learner.token_statistics(rows)
    assert all(value == pytest.approx(mean) for one in stats[1:] for value in one.values_T)
    learner.update(estimate_advantages(rows, algorithm, stats))
    again = learner.token_statistics([replace(row, reward=0.0) for row in rows])  # no second beginning
    assert all(value > mean / 2 for one in again for value in one.values_T)
    assert len({value for one in again for value in one.values_T}) > 1


def scored_rollouts(samples):
    rng = random.Random(0)
    return [
        ScoredRollout(
            rollout=Rollout(completion="", prompt_ids=s.prompt_ids, completion_ids=s.completion_ids,
                            logprobs=s.sampler_logprobs_T, group=s.group),
            components={},
            reward=rng.choice([0.0, 1.0, None]),
        )
        for s in samples
    ]  # fmt: skip


def test_ppo_takes_statistics_estimates_warms_up_and_updates(tiny_model, make_samples):
    algorithm = AlgorithmConfig(
        advantage="gae", lam=0.95, critic=CriticConfig(warmup_steps=1, learning_rate=1e-3), mini_batches=2
    )
    model = tiny_model(torch.float32)
    learner = Learner(model, LearnerConfig(optimizer=OPTIMIZER), algorithm, pad_token_id=0, total_steps=4)
    scored = scored_rollouts(make_samples())
    stats = learner.token_statistics(scored)
    for row, one in zip(scored, stats, strict=True):
        assert len(one.values_T) == (0 if row.reward is None else len(row.rollout.completion_ids))
    before = [p.detach().clone() for p in model.parameters()]
    first = learner.update(estimate_advantages(scored, algorithm, stats)).metrics
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)), "critic warm-up"
    assert first["loss/critic"] > 0
    second = learner.update(estimate_advantages(scored, algorithm, learner.token_statistics(scored))).metrics
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert second["loss/critic"] < first["loss/critic"]
    assert "policy/clip_fraction" in second


def test_no_statistics_are_computed_without_a_critic_or_a_kl_reward(tiny_model, make_samples):
    learner = Learner(
        tiny_model(torch.float32), LearnerConfig(), AlgorithmConfig(), pad_token_id=0, total_steps=1
    )
    stats = learner.token_statistics(scored_rollouts(make_samples()))
    assert not any(one.values_T or one.old_logprobs_T or one.ref_logprobs_T for one in stats)


def test_a_smaller_critic_of_another_folder(tiny_model, make_samples, tmp_path):
    tiny_model(torch.float32, hidden_size=16, num_hidden_layers=1).save_pretrained(tmp_path / "small")
    tiny_model(torch.float32, vocab_size=11).save_pretrained(tmp_path / "foreign")
    policy = tiny_model(torch.float32)
    config = CriticConfig(model=str(tmp_path / "small"))
    critic = make_critic(config, LearnerConfig(), policy, pad_token_id=0, total_steps=1)
    assert len(critic.values(make_samples())[0]) == len(make_samples()[0].completion_ids)
    with pytest.raises(ConfigError, match="vocabulary of 11"):
        make_critic(
            CriticConfig(model=str(tmp_path / "foreign")),
            LearnerConfig(),
            policy,
            pad_token_id=0,
            total_steps=1,
        )
    with pytest.raises(ConfigError, match=r"critic\.model"):
        make_critic(
            CriticConfig(model=str(tmp_path / "absent")),
            LearnerConfig(),
            policy,
            pad_token_id=0,
            total_steps=1,
        )


def test_under_lora_the_critic_is_the_plain_base_and_all_of_it_learns(tiny_model, make_samples):
    plain = tiny_model(torch.float32)
    names = {name for name, _ in plain.named_parameters()}
    policy = add_adapters(plain, LoraConfig(rank=2))
    critic = make_critic(CriticConfig(), LearnerConfig(), policy, pad_token_id=0, total_steps=1)
    trained = critic.state_dict()["model"]
    assert set(trained) == set(tiny_model(torch.float32).state_dict())
    assert {name for name in trained if "lora" in name} == set()
    base = tiny_model(torch.float32).state_dict()
    assert all(torch.equal(trained[name], base[name]) for name in names)
    assert any("lora" in name for name, _ in policy.named_parameters()), "the policy keeps its adapters"
    samples = make_samples()
    for _ in range(2):  # the head starts at 0: the first update moves it alone
        values = critic.values(samples)
        critic.update(
            [replace(s, returns_T=[1.0] * len(v), values_T=v) for s, v in zip(samples, values, strict=True)]
        )
    moved = critic.state_dict()["model"]
    assert not any(torch.equal(moved[name], base[name]) for name in names if "proj" in name)


def test_a_critic_that_cannot_be_is_refused_before_anything_runs(tiny_model, tmp_path):
    tiny_model(torch.float32, vocab_size=11).save_pretrained(tmp_path / "foreign")
    tiny_model(torch.float32).save_pretrained(tmp_path / "policy")
    policy = ModelConfig(path=str(tmp_path / "policy"))
    check_critic(str(tmp_path / "policy"), policy)
    with pytest.raises(DataError, match=r"algorithm\.critic\.model='/nope': there is no folder /nope"):
        check_critic("/nope", policy)
    with pytest.raises(ConfigError, match="a vocabulary of 11, the policy 61"):
        check_critic(str(tmp_path / "foreign"), policy)
    with pytest.raises(ConfigError, match="a vocabulary of 11"):
        check_critic(str(tmp_path / "foreign"), ModelConfig(tiny={}))


def test_nan_in_the_critic_is_kept_counted_and_stops_the_run(tiny_model, make_samples, tmp_path):
    algorithm = AlgorithmConfig(advantage="gae", critic=CriticConfig(warmup_steps=9, epochs=2))
    config = LearnerConfig(optimizer=OptimizerConfig(max_bad_steps=3))
    learner = Learner(
        tiny_model(torch.float32), config, algorithm, pad_token_id=0, total_steps=4, bad_batch_dir=tmp_path
    )
    values = [[0.0] * len(s.completion_ids) for s in make_samples()]
    samples = [
        replace(s, returns_T=[1.0] * len(v), values_T=v) for s, v in zip(make_samples(), values, strict=True)
    ]
    poisoned = [replace(samples[0], returns_T=[math.nan] * len(values[0])), *samples[1:]]
    before = learner.token_statistics(scored_rollouts(make_samples()))
    metrics = learner.update(poisoned).metrics
    assert (metrics["critic/bad_steps"], metrics["learner/bad_steps"]) == (2.0, 2.0)
    assert learner.token_statistics(scored_rollouts(make_samples())) == before
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == ["bad_batch_001.jsonl", "bad_batch_002.jsonl"]
    assert len(kept[0].read_text().splitlines()) == len(samples)
    assert learner.update(samples).metrics["critic/bad_steps"] == 0.0
    with pytest.raises(TrainingError, match="max_bad_steps"):
        learner.update(poisoned)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi", "falcon", "mamba"])
def test_critics_of_other_families(make_samples, family):
    """Caps, biases and names of their language models are nothing to the critic: it reads hidden states."""
    model = family_model(family)
    learner = LearnerConfig(optimizer=OPTIMIZER)
    critic = make_critic(CriticConfig(), learner, model, pad_token_id=0, total_steps=2)
    if model._can_set_attn_implementation():
        model.set_attn_implementation("eager")  # SDPA has no soft cap
    torch.nn.init.constant_(critic._head.weight, 0.1)
    samples = make_samples(num_groups=2, group_size=2)
    backbone = model.base_model
    for sample, values_T in zip(samples, critic.values(samples), strict=True):
        ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
        hidden_TD = backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
        expected_T = 0.1 * hidden_TD[len(sample.prompt_ids) - 1 : -1].sum(-1)
        assert values_T == pytest.approx(expected_T.tolist(), abs=1e-4)
    before = torch.tensor([value for one in critic.values(samples) for value in one])
    regress(critic, samples, [1.0] * len(samples), updates=1)
    after = torch.tensor([value for one in critic.values(samples) for value in one])
    assert not torch.equal(before, after)


def test_nan_at_masked_tokens_does_not_reach_the_critic(tiny_model, make_samples):
    def trained(bad):
        critic = make_critic(
            CriticConfig(), LearnerConfig(optimizer=OPTIMIZER), tiny_model(), pad_token_id=0, total_steps=1
        )
        samples = [
            replace(
                sample,
                loss_mask_T=[int(at != 0)] * len(sample.completion_ids),
                returns_T=[bad if at == 0 else 1.0] * len(sample.completion_ids),
                values_T=[bad if at == 0 else 0.0] * len(sample.completion_ids),
            )
            for at, sample in enumerate(make_samples(num_groups=1, group_size=3))
        ]
        return critic.update(samples), critic.values(samples)

    metrics, values = trained(math.nan)
    assert metrics["critic/bad_steps"] == 0
    assert (metrics, values) == trained(0.0)
