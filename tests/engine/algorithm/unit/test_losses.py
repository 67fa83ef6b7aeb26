"""Policy losses, KL and importance weights against hand-computed numbers."""

import math

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.algorithm import (
    KLController,
    LossInput,
    Terms,
    cispo,
    dppo,
    gmpo,
    gspo,
    importance_weights,
    kl_estimate,
    mismatch_metrics,
    objective,
    policy_gradient,
    policy_loss,
    ppo_clip,
    sapo,
    token_weights,
)
from verl_lite.engine.algorithm.importance import mismatch_means
from verl_lite.engine.algorithm.loss_table import LOSSES
from verl_lite.engine.config import AlgorithmConfig, ImportanceConfig, KLConfig
from verl_lite.engine.config.algorithm import SEQUENCE_LOSSES
from verl_lite.engine.types import OF_THE_POLICY


def own(weights_N: torch.Tensor) -> dict[str, torch.Tensor]:
    """The token weights of the policy, its entropy and its KL to the reference."""
    return dict.fromkeys(OF_THE_POLICY, weights_N)


def batch_of(ratios, advantages, *, mask=None, sequence=None, old=-1.0) -> LossInput:
    """Tokens whose probability is `ratio` times the old one (log-probability `old`)."""
    old_N = torch.full((len(ratios),), old, dtype=torch.float64)
    logprobs_N = (old_N + torch.tensor(ratios, dtype=torch.float64).log()).requires_grad_()
    sequence = sequence or [0] * len(ratios)
    return LossInput(
        logprobs_N=logprobs_N,
        old_logprobs_N=old_N,
        advantages_N=torch.tensor(advantages, dtype=torch.float64),
        mask_N=torch.tensor(mask or [1] * len(ratios), dtype=torch.float64),
        sequence_N=torch.tensor(sequence),
        num_sequences=max(sequence) + 1,
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (0.5, 1.0, -0.5, -0.5),  # below the range, pushed up: free
        (1.5, 1.0, -1.2, 0.0),  # above the range, pushed up: clipped, no gradient
        (0.5, -1.0, 0.8, 0.0),  # below the range, pushed down: clipped
        (1.5, -1.0, 1.5, 1.5),  # above the range, pushed down: free
        (1.1, 2.0, -2.2, -2.2),
    ],
)
def test_ppo_clip(ratio, advantage, loss, gradient):
    batch = batch_of([ratio], [advantage])
    loss_N, _ = ppo_clip(batch, clip_low=0.2, clip_high=0.2)
    assert loss_N.item() == pytest.approx(loss)
    loss_N.sum().backward()
    assert batch.logprobs_N.grad.item() == pytest.approx(gradient)


def test_clip_bounds_are_separate():
    batch = batch_of([1.27, 1.3], [1.0, 1.0])
    assert ppo_clip(batch, clip_low=0.2, clip_high=0.28)[0].tolist() == pytest.approx([-1.27, -1.28])


def test_clip_fraction_counts_only_what_the_clip_changed_and_counts():
    batch = batch_of([1.5, 1.5, 0.5, 1.5], [1.0, -1.0, -1.0, 1.0], mask=[1, 1, 1, 0])
    metrics = ppo_clip(batch)[1]
    assert metrics["policy/clip_fraction"].item() == 2
    assert metrics["policy/ratio"].item() == pytest.approx(3.5)


def test_dual_clip_bounds_the_loss_of_negative_advantages():
    loss_N, _ = ppo_clip(batch_of([5.0, 5.0, 2.0], [-1.0, 1.0, -1.0]), dual_clip=3.0)
    assert loss_N.tolist() == pytest.approx([3.0, -1.2, 2.0])


def test_gspo_has_one_ratio_a_sequence():
    # sequence 0: geometric mean of 2 and 8 is 4, clipped; sequence 1: sqrt(1.21 * 1) = 1.1, free
    batch = batch_of([2.0, 8.0, 1.21, 1.0, 99.0], [1.0] * 5, sequence=[0, 0, 1, 1, 1], mask=[1, 1, 1, 1, 0])
    loss_N, _ = gspo(batch, clip_low=0.2, clip_high=0.2)
    assert loss_N.tolist() == pytest.approx([-1.2, -1.2, -1.1, -1.1, -1.1])
    (loss_N * torch.tensor([0.0, 0, 0.5, 0.5, 0])).sum().backward()
    # d(-s)/d log p_t = -s / length for each counted token of the free sequence
    assert batch.logprobs_N.grad.tolist() == pytest.approx([0.0, 0.0, -0.55, -0.55, 0.0])


def test_cispo_keeps_a_bounded_gradient_where_ppo_has_none():
    batch = batch_of([1.5, 0.5], [1.0, 1.0])
    loss_N, metrics = cispo(batch, clip_low=1.0, clip_high=0.2)
    expected = [-1.2 * (math.log(1.5) - 1), -0.5 * (math.log(0.5) - 1)]
    assert loss_N.tolist() == pytest.approx(expected)
    loss_N.sum().backward()
    assert batch.logprobs_N.grad.tolist() == pytest.approx([-1.2, -0.5])
    assert metrics["policy/clip_fraction"].item() == 1


@pytest.mark.parametrize(
    ("ratio", "advantage", "tau"), [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (2.0, -0.5, 1.05), (0.5, 3.0, 1.0)]
)
def test_sapo(ratio, advantage, tau):
    batch = batch_of([ratio], [advantage])
    loss_N, _ = sapo(batch)
    gate = 1 / (1 + math.exp(-tau * (ratio - 1)))
    assert loss_N.item() == pytest.approx(-4 / tau * gate * advantage)
    loss_N.sum().backward()  # 4 p (1 - p), which is 1 at ratio 1
    assert batch.logprobs_N.grad.item() == pytest.approx(-4 * gate * (1 - gate) * ratio * advantage)


def test_gmpo_is_the_geometric_mean_of_ratios_clipped_on_the_side_of_the_advantage():
    # up: log-ratios log 4 (clipped to 0.4) and log 0.25 (free); down: log 4 free, log 0.25 clipped to -0.4
    batch = batch_of([4.0, 0.25, 4.0, 0.25], [1.0, 1.0, -2.0, -2.0], sequence=[0, 0, 1, 1])
    loss_N, metrics = gmpo(batch)
    up, down = math.exp((0.4 - math.log(4)) / 2), math.exp((math.log(4) - 0.4) / 2)
    assert loss_N.tolist() == pytest.approx([-up, -up, 2 * down, 2 * down])
    assert metrics["policy/clip_fraction"].item() == 2
    (loss_N / 2).sum().backward()
    assert batch.logprobs_N.grad.tolist() == pytest.approx([0.0, -up / 2, down, 0.0])


@pytest.mark.parametrize(
    ("divergence", "ratio", "advantage", "gradient"),
    [
        ("tv", 1.5, 1.0, 0.0),  # p from 0.37 to 0.55: moved up by 0.18, pushed up
        ("tv", 1.5, -1.0, 1.5),  # pushed back
        ("tv", 1.2, 1.0, -1.2),  # moved by 0.07
        ("tv", 0.5, -1.0, 0.0),
        ("kl", 1.5, 1.0, 0.0),  # KL of (0.37, 0.63) and (0.55, 0.45) is 0.068
        ("kl", 1.2, 1.0, -1.2),  # 0.011
        ("kl", 0.5, 1.0, -0.5),
        ("kl", 0.5, -1.0, 0.0),
    ],
)
def test_dppo_has_a_gradient_only_inside_its_region_or_towards_it(divergence, ratio, advantage, gradient):
    batch = batch_of([ratio], [advantage])
    bound = 0.1 if divergence == "tv" else 0.05
    loss_N, metrics = dppo(batch, divergence=divergence, clip_low=bound, clip_high=bound)
    loss_N.sum().backward()
    assert batch.logprobs_N.grad.item() == pytest.approx(gradient)
    assert metrics["policy/clip_fraction"].item() == (gradient == 0.0)


def test_dppo_judges_a_rare_token_by_its_probability_not_by_its_ratio():
    """From 1e-4 to 5e-4 is a ratio of 5, which PPO clips; it moves the distribution by 4e-4."""
    batch = batch_of([5.0], [1.0], old=math.log(1e-4))
    assert dppo(batch, divergence="tv", clip_low=0.1, clip_high=0.1, ratio_cap=3.0)[
        0
    ].item() == pytest.approx(-3.0 * math.log(5e-4))


def test_policy_gradient_is_minus_advantage_times_logprob():
    loss_N, _ = policy_gradient(batch_of([1.0, 1.0], [2.0, -1.0], old=-3.0))
    assert loss_N.tolist() == pytest.approx([6.0, -3.0])


def test_on_policy_losses_share_their_gradient():
    """At ratio 1 every loss has the gradient of REINFORCE."""
    for name in LOSSES:
        aggregate = "sequence_mean" if name in SEQUENCE_LOSSES else "token_mean"
        batch = batch_of([1.0] * 4, [0.5] * 2 + [-2.0] * 2, sequence=[0, 0, 1, 1])
        loss_N, _ = policy_loss(AlgorithmConfig(loss=name, aggregate=aggregate))(batch)
        (loss_N / 4).sum().backward()
        assert batch.logprobs_N.grad.tolist() == pytest.approx([-0.125, -0.125, 0.5, 0.5]), name


def test_an_extreme_ratio_stays_finite():
    batch = batch_of([1.0, 1.0], [1.0, -1.0], old=-200.0)
    batch.logprobs_N.data += 150
    loss_N, _ = ppo_clip(batch)
    loss_N.sum().backward()
    assert loss_N.isfinite().all()
    assert batch.logprobs_N.grad.isfinite().all()


def test_token_weights_by_hand():
    assert token_weights([2, 6], "token_mean") == [0.125, 0.125]
    assert token_weights([2, 8], "sequence_mean") == [0.25, 0.0625]
    assert token_weights([2, 0, 8], "sequence_mean") == [0.25, 0.0, 0.0625]
    assert token_weights([2, 8], "sequence_sum_norm", norm_tokens=10) == [0.05, 0.05]
    assert token_weights([0, 0], "token_mean") == [0.0, 0.0]


def test_kl_estimators_by_hand_and_in_expectation():
    logprobs, ref = torch.tensor(-1.0, dtype=torch.float64), torch.tensor(-1.5, dtype=torch.float64)
    assert kl_estimate(logprobs, ref, "k1").item() == pytest.approx(0.5)
    assert kl_estimate(logprobs, ref, "k2").item() == pytest.approx(0.125)
    assert kl_estimate(logprobs, ref, "k3").item() == pytest.approx(math.exp(-0.5) - 0.5)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    exact = float((p * (p / q).log()).sum())
    for estimator in ("k1", "k3"):  # unbiased: the expectation over p is the KL itself
        assert float((p * kl_estimate(p.log(), q.log(), estimator)).sum()) == pytest.approx(exact, rel=1e-5)


def test_kl_controller_moves_towards_its_target_at_a_bounded_rate():
    controller = KLController(KLConfig(coefficient=0.1, target=6.0, horizon_samples=1000))
    controller.update(6.6, num_samples=100)  # error 0.1
    assert controller.coefficient == pytest.approx(0.1 * 1.01)
    controller.update(600.0, num_samples=100)  # error bounded at 0.2
    assert controller.coefficient == pytest.approx(0.1 * 1.01 * 1.02)
    controller.update(0.0, num_samples=100)
    assert controller.coefficient == pytest.approx(0.1 * 1.01 * 1.02 * 0.98)
    copy = KLController(KLConfig(coefficient=0.1, target=6.0))
    copy.load_state_dict(controller.state_dict())
    assert copy.coefficient == controller.coefficient
    fixed = KLController(KLConfig(coefficient=0.1))
    fixed.update(600.0, num_samples=100)
    assert fixed.coefficient == 0.1


@pytest.mark.parametrize(
    ("mode", "level", "expected", "changed"),
    [
        ("truncate", "token", [1.0, 2.0, 0.25], 1),
        ("mask", "token", [1.0, 0.0, 0.0], 2),
        ("truncate", "sequence", [2.0, 2.0, 0.25], 2),
        ("mask", "sequence", [0.0, 0.0, 0.0], 3),
    ],
)
def test_importance_weights(mode, level, expected, changed):
    """p_old / p_sampler of 1, 4 (sequence 0: 4 together) and 0.25 (sequence 1)."""
    batch = batch_of([1.0] * 3, [1.0] * 3, sequence=[0, 0, 1])
    sampler_N = batch.old_logprobs_N - torch.tensor([1.0, 4.0, 0.25]).log()
    weight_N, metrics = importance_weights(sampler_N, batch, ImportanceConfig(mode=mode, level=level))
    assert weight_N.tolist() == pytest.approx(expected)
    assert metrics["policy/importance_changed_fraction"].item() == changed
    assert not weight_N.requires_grad


def test_mismatch_is_zero_when_both_sides_agree():
    same = torch.tensor([-1.0, -2.0])
    metrics = mismatch_metrics(same, same, torch.ones(2))
    assert metrics["policy/kl_sampler_trainer"].item() == 0.0
    other = mismatch_metrics(same, same - 0.5, torch.tensor([1.0, 0.0]))
    assert other["policy/kl_sampler_trainer"].item() == pytest.approx(math.exp(-0.5) - 0.5)
    assert other["policy/logprob_difference"].item() == pytest.approx(0.5)


def test_objective_by_hand():
    """One token: ratio 1, advantage 1, weight 1/2, KL k3 at log-ratio 0.5, entropy 3."""
    config = AlgorithmConfig(
        kl=KLConfig(coefficient=0.1), entropy_bonus=0.01, importance={"mode": "truncate"}
    )
    batch = batch_of([1.0], [1.0])
    terms = Terms(
        weights=own(torch.tensor([0.5], dtype=torch.float64)),
        entropy_N=torch.tensor([3.0], dtype=torch.float64),
        sampler_logprobs_N=batch.old_logprobs_N - math.log(1.5),
        ref_logprobs_N=batch.old_logprobs_N - 0.5,
    )
    loss, metrics = objective(batch, terms, policy_loss=ppo_clip, config=config, kl_coefficient=0.2)
    kl = math.exp(-0.5) - 0.5
    assert loss.item() == pytest.approx(0.5 * (-1.0 * 1.5 + 0.2 * kl - 0.01 * 3.0))
    assert metrics["loss/policy"].item() == pytest.approx(-0.75)
    assert metrics["policy/kl_reference"].item() == pytest.approx(kl)


def test_a_kl_in_the_reward_is_measured_but_not_in_the_loss():
    config = AlgorithmConfig(
        advantage="reinforce_pp", kl=KLConfig(coefficient=0.1, placement="reward", estimator="k1")
    )
    batch = batch_of([1.0], [1.0])
    ones = torch.ones(1, dtype=torch.float64)
    terms = Terms(weights=own(ones), entropy_N=ones, ref_logprobs_N=batch.old_logprobs_N - 0.5)
    loss, metrics = objective(batch, terms, policy_loss=ppo_clip, config=config, kl_coefficient=0.1)
    assert loss.item() == pytest.approx(-1.0)
    assert metrics["policy/kl_reference"].item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("estimator", "ratio_weighted", "is_the_kls"),
    [
        ("k1", True, True),
        ("k3", True, True),
        ("k2", False, True),
        ("k3", False, False),  # that of KL(reference || policy)
    ],
)
def test_the_expected_gradient_of_a_kl_in_the_loss(estimator, ratio_weighted, is_the_kls):
    """Over every token of a vocabulary of 5, weighed by its probability, against autograd of the sum."""
    generator = torch.Generator().manual_seed(0)
    logits_V, ref_V = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    logits_V.requires_grad_()
    ref_V = ref_V.log_softmax(0)
    policy_V = logits_V.log_softmax(0)
    (exact,) = torch.autograd.grad((policy_V.exp() * (policy_V - ref_V)).sum(), logits_V)

    config = AlgorithmConfig(
        kl={"coefficient": 1.0, "estimator": estimator, "ratio_weighted": ratio_weighted}
    )
    policy_V = logits_V.log_softmax(0)
    batch = LossInput(
        logprobs_N=policy_V,
        old_logprobs_N=policy_V.detach(),
        advantages_N=torch.zeros(5, dtype=torch.float64),
        mask_N=torch.ones(5, dtype=torch.float64),
        sequence_N=torch.arange(5),
        num_sequences=5,
    )
    terms = Terms(
        weights=own(policy_V.detach().exp()), entropy_N=torch.zeros(5).double(), ref_logprobs_N=ref_V
    )
    loss, _ = objective(batch, terms, policy_loss=policy_loss(config), config=config, kl_coefficient=1.0)
    (estimated,) = torch.autograd.grad(loss, logits_V)
    assert torch.allclose(estimated, exact, rtol=1e-9, atol=1e-12) is is_the_kls
    assert exact.abs().max() > 0.05


def everything_the_objective_can_do() -> list[AlgorithmConfig]:
    """Every loss with every importance correction, and every KL in the loss."""
    losses = [
        {"loss": "ppo_clip"},
        {"loss": "ppo_clip", "dual_clip": 3.0},
        {"loss": "gspo", "aggregate": "sequence_mean"},
        {"loss": "cispo"},
        {"loss": "policy_gradient"},
        {"loss": "sapo"},
        {"loss": "gmpo", "aggregate": "sequence_mean"},
        {"loss": "dppo_tv"},
        {"loss": "dppo_kl"},
    ]
    rules = [{"over": over, "low": 0.5, "high": 2.0} for over in ("token", "sum", "mean", "min", "max")]
    importances = [{"mode": "off"}, {"reject": rules}, {"level": "geometric", "mode": "mask"}]
    importances += [
        {"reject": [{"statistic": "k3", "high": 0.5, "learner": "current", "only_negative": True}]}
    ]
    corrections = [(mode, level) for mode in ("truncate", "mask") for level in ("token", "sequence")]
    importances += [{"mode": mode, "level": level} for mode, level in corrections]
    estimators = [("k1", True), ("k2", False), ("k3", True), ("k3", False)]
    kls = [{"coefficient": 0.0}]
    kls += [{"coefficient": 0.1, "estimator": e, "ratio_weighted": weighted} for e, weighted in estimators]
    kls += [{"coefficient": 0.1, "estimator": "k1", "placement": "reward"}]
    return [
        AlgorithmConfig(
            **loss,
            importance=importance,
            kl=kl,
            entropy_bonus=0.01,
            advantage="reinforce_pp" if kl.get("placement") else "grpo",
        )
        for loss in losses
        for importance in importances
        for kl in kls
    ]


FIELDS = ("logprobs_N", "old_logprobs_N", "advantages_N", "entropy_N", "sampler_logprobs_N", "ref_logprobs_N")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_at_masked_tokens_reaches_neither_loss_nor_gradient_nor_metrics(bad):
    """Under every option: with `bad` at the masked tokens of every input, the same bits as with 0 there."""
    generator = torch.Generator().manual_seed(0)
    mask_N = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0], dtype=torch.float64)
    sequence_N = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])  # the third sequence does not count at all
    clean = {name: torch.randn(8, generator=generator, dtype=torch.float64) for name in FIELDS}
    weights_N = mask_N / 4

    def run(config: AlgorithmConfig, at_masked: float):
        values = {name: torch.where(mask_N > 0, one, at_masked) for name, one in clean.items()}
        values["logprobs_N"].requires_grad_()
        values["entropy_N"].requires_grad_()
        batch = LossInput(
            **{name: values[name] for name in FIELDS[:3]},
            mask_N=mask_N,
            sequence_N=sequence_N,
            num_sequences=4,
        )
        terms = Terms(weights=own(weights_N), **{name: values[name] for name in FIELDS[3:]})
        loss, metrics = objective(
            batch, terms, policy_loss=policy_loss(config), config=config, kl_coefficient=0.1
        )
        inputs = (values["logprobs_N"], values["entropy_N"])
        return loss, metrics, torch.autograd.grad(loss, inputs)

    configs = everything_the_objective_can_do()
    assert len(configs) == 9 * 8 * 6
    for config in configs:
        loss, metrics, gradients = run(config, bad)
        expected_loss, expected_metrics, expected_gradients = run(config, 0.0)
        assert loss.isfinite()
        assert torch.equal(loss, expected_loss)
        assert metrics.keys() == expected_metrics.keys()
        for name, value in metrics.items():
            assert torch.equal(value, expected_metrics[name]), name
        for gradient, expected in zip(gradients, expected_gradients, strict=True):
            assert torch.equal(gradient, expected)
        assert not gradients[0][mask_N == 0].any()
        assert gradients[0].any() or config.loss in ("ppo_clip", "gmpo") or config.importance.reject


@pytest.mark.parametrize("name", FIELDS)
def test_nan_at_a_token_that_counts_is_not_hidden(name):
    """It makes loss or metrics nan, which the learner counts as a bad step and the monitors stop on."""
    config = AlgorithmConfig(importance={"mode": "truncate"}, kl={"coefficient": 0.1}, entropy_bonus=0.1)
    values = {field: torch.zeros(2, dtype=torch.float64) for field in FIELDS}
    values[name][1] = math.nan
    ones = torch.ones(2, dtype=torch.float64)
    batch = LossInput(
        **{field: values[field] for field in FIELDS[:3]},
        mask_N=ones,
        sequence_N=torch.tensor([0, 1]),
        num_sequences=2,
    )
    terms = Terms(weights=own(ones), **{field: values[field] for field in FIELDS[3:]})
    loss, _ = objective(batch, terms, policy_loss=policy_loss(config), config=config, kl_coefficient=0.1)
    assert loss.isnan()


def test_the_mismatch_of_a_batch_leaves_masked_tokens_out():
    sample = TrainingSample(
        prompt_ids=[1],
        completion_ids=[2, 3],
        sampler_logprobs_T=[-1.0, math.nan],
        advantages_T=[1.0, 1.0],
        loss_mask_T=[1, 0],
    )
    assert mismatch_means([sample], [[-1.5, math.inf]])["policy/logprob_difference"] == pytest.approx(0.5)
