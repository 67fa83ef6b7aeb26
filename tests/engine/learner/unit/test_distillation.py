"""Distillation in the learner: numbers by hand, and gradients against autograd of the divergence itself."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from verl_lite.engine.algorithm import sampled_divergence, token_kl
from verl_lite.engine.config import AlgorithmConfig, LearnerConfig
from verl_lite.engine.learner import Learner
from verl_lite.engine.learner.bad_steps import BadStepGuard
from verl_lite.engine.types import TeacherTokens


def test_divergences_by_hand():
    student, teacher = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.7, 0.2, 0.1]]).log()
    full = (
        0.5 * torch.log(torch.tensor(0.5 / 0.7))
        + 0.3 * torch.log(torch.tensor(1.5))
        + 0.2 * torch.log(torch.tensor(2.0))
    )
    assert token_kl(student, teacher, is_complete=True).item() == pytest.approx(full.item(), rel=1e-5)
    # 0.7 log(0.7/0.5) + 0.2 log(0.2/0.3) + 0.1 log(0.1/0.2)
    assert token_kl(teacher, student, is_complete=True).item() == pytest.approx(0.0851225, rel=1e-5)
    # of the first token and the other two as one: 0.5 log(0.5/0.7) + 0.5 log(0.5/0.3)
    assert token_kl(student[:, :1], teacher[:, :1], is_complete=False).item() == pytest.approx(0.0871767)
    assert sampled_divergence(torch.tensor([-1.0]), torch.tensor([-3.0])).tolist() == [2.0]
    never = torch.tensor([[0.0, -torch.inf]])
    assert token_kl(never, torch.tensor([[0.5, 0.5]]).log(), is_complete=True).isnan().item() is False


@pytest.fixture
def taught(tiny_model, make_samples):
    """A student, and samples that a teacher of another seed has read."""

    def make(kind: str, k: int = 5, temperature: float = 1.0):
        student, teacher = tiny_model(), make_learner(tiny_model(seed=1), temperature=temperature).policy
        samples = make_samples(num_groups=2, group_size=3)
        if kind == "sampled":
            answers = [TeacherTokens(logprobs_TK=torch.tensor(row, dtype=torch.float64)[:, None])
                       for row in teacher.completion_logprobs(samples)]  # fmt: skip
        else:
            found = teacher.top_logprobs(samples, 2**31 if kind == "full" else k)
            answers = [
                TeacherTokens(ids_TK=ids, logprobs_TK=top, is_complete=kind == "full") for ids, top in found
            ]
        distilled = [
            replace(
                sample,
                teacher=answer,
                advantages_T=[0.0] * len(sample.completion_ids),
                components={"distillation": [1.0] * len(sample.completion_ids)},
            )
            for sample, answer in zip(samples, answers, strict=True)
        ]
        return student, distilled

    return make


def make_learner(model, *, temperature=1.0, **options) -> Learner:
    return Learner(
        model,
        LearnerConfig(**options),
        AlgorithmConfig(),
        pad_token_id=0,
        total_steps=4,
        temperature=temperature,
    )


def gradients_of(student, samples, **options) -> tuple[dict[str, torch.Tensor], float]:
    model = copy.deepcopy(student)
    learner = make_learner(model, **options)
    caught: dict[str, torch.Tensor] = {}

    def step(norm=None):
        caught.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        return 1.0, True

    learner._optimizer.step = step
    metrics = learner.update(samples).metrics
    return caught, metrics[next(name for name in ("loss/distillation", "loss/forward_kl") if name in metrics)]


def plain_kl(student, samples, temperature: float, *, forward: bool = False):
    """The mean KL per token by full logits, sample by sample; `forward`: of the teacher to the student."""
    model = copy.deepcopy(student)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for sample in samples:
        ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
        logits = model(ids, use_cache=False).logits[0, len(sample.prompt_ids) - 1 : -1] / temperature
        ours, theirs = logits.log_softmax(-1).double(), sample.teacher.logprobs_TK
        first, second = (theirs, ours) if forward else (ours, theirs)
        total = total + (first.exp() * (first - second)).sum()
        count += len(sample.completion_ids)
    (total / count).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, float(
        (total / count).detach()
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    "options", [{}, {"share_prompts": "never", "backend": "padded"}, {"logits_tile_mb": 1}]
)
def test_the_full_divergence_has_autograds_gradient(taught, options, temperature):
    student, samples = taught("full", temperature=temperature)
    expected, value = plain_kl(student, samples, temperature)
    found, loss = gradients_of(student, samples, temperature=temperature, **options)
    assert loss == pytest.approx(value, rel=1e-6)
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-7), name


def of_saved(samples):
    """The samples as a teacher's saved rollouts: not the policy's own."""
    return [
        replace(s, sampler_logprobs_T=(), loss_mask_T=[0] * len(s.completion_ids),
                components={"forward_kl": s.components["distillation"]})
        for s in samples
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"share_prompts": "never", "backend": "padded"}])
def test_the_forward_divergence_of_saved_rollouts_has_autograds_gradient(taught, options):
    student, samples = taught("full")
    expected, value = plain_kl(student, samples, 1.0, forward=True)
    found, loss = gradients_of(student, of_saved(samples), **options)
    assert loss == pytest.approx(value, rel=1e-6)
    assert abs(value - plain_kl(student, samples, 1.0)[1]) > 1e-3 * value  # the reverse one
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-7), name


def test_saved_rollouts_and_own_ones_do_not_dilute_each_other(taught):
    student, samples = taught("top_k")
    saved = of_saved(samples[:2])
    metrics = make_learner(copy.deepcopy(student)).update([*samples, *saved]).metrics
    for name, alone in (("loss/distillation", samples), ("loss/forward_kl", saved)):
        assert metrics[name] == pytest.approx(gradients_of(student, alone)[1], rel=1e-6)


def test_all_tokens_but_one_and_the_rest_as_one_are_the_vocabulary(taught):
    student, samples = taught("full")
    expected, loss = gradients_of(student, samples)
    student, some = taught("top_k", k=60)  # of 61
    found, top_loss = gradients_of(student, some)
    # the rest is 1 minus a sum in float32: right to 1e-7 of about 1e-3
    assert top_loss == pytest.approx(loss, rel=1e-4)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


def test_fewer_tokens_are_a_lower_bound(taught):
    losses = [gradients_of(*taught("top_k", k=k))[1] for k in (1, 5, 20, 60)]
    assert losses == sorted(losses)
    assert 0 < losses[0] < losses[-1]


def test_the_sampled_estimate_is_its_mean_over_tokens(taught):
    student, samples = taught("sampled")
    ours = make_learner(student).policy.completion_logprobs(samples)
    gaps = [o - t for o_T, s in zip(ours, samples, strict=True)
            for o, t in zip(o_T, s.teacher.logprobs_TK[:, 0].tolist(), strict=True)]  # fmt: skip
    _, loss = gradients_of(student, samples)
    assert loss == pytest.approx(sum(gap * gap / 2 for gap in gaps) / len(gaps), rel=1e-5)


@pytest.mark.parametrize("kind", ["sampled", "top_k", "full"])
def test_a_teacher_that_is_the_student_teaches_nothing(taught, kind, tiny_model):
    _, samples = taught(kind)
    itself = tiny_model(seed=1)  # the teacher of `taught`
    for given in (samples, of_saved(samples)) if kind != "sampled" else (samples,):
        gradients, loss = gradients_of(itself, given)
        assert loss == pytest.approx(0.0, abs=1e-6)
        assert max(float(gradient.abs().max()) for gradient in gradients.values()) < 1e-6


def test_micro_batches_and_samples_without_a_teacher_change_nothing(taught):
    student, samples = taught("top_k")
    expected, loss = gradients_of(student, samples)
    rest = [replace(s, teacher=None, components={}) for s in samples]
    found, same = gradients_of(student, [*rest, *samples], max_tokens_per_micro_batch=64)
    assert same == pytest.approx(loss, rel=1e-6)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-7), name


def test_a_bad_batch_is_kept_with_its_components_and_teacher(taught, tmp_path):
    _, samples = taught("top_k", k=2)
    BadStepGuard(tmp_path, max_bad_steps=5).record(samples[:1], float("nan"))
    (path,) = tmp_path.iterdir()
    row = json.loads(path.read_text())
    assert row["components"] == {"distillation": [1.0] * len(samples[0].completion_ids)}
    assert len(row["teacher"]) == len(samples[0].completion_ids)


def test_the_full_divergence_is_trls():
    """Recorded by tests/fixtures/record_trl_distillation.py: the mean over the counted tokens."""
    fixture = json.loads((Path(__file__).parents[3] / "fixtures" / "trl_distillation.json").read_text())
    logits = torch.tensor(fixture["student_logits"], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor(fixture["teacher_logits"], dtype=torch.float64)
    student_TV, teacher_TV = ((one / fixture["temperature"]).log_softmax(-1) for one in (logits, teacher))
    kl_T = token_kl(student_TV, teacher_TV, is_complete=True)
    loss = kl_T[torch.tensor(fixture["counted"])].mean()
    loss.backward()
    assert loss.item() == pytest.approx(fixture["loss"], rel=1e-9)
    assert torch.allclose(logits.grad, torch.tensor(fixture["gradient"], dtype=torch.float64), atol=1e-12)


def test_a_step_on_saved_rollouts_alone_says_nothing_of_the_policys_tokens(taught):
    """An entropy or a mismatch of 0 would be read as a collapse, or as agreement."""
    student, samples = taught("full")
    saved = [
        replace(one, loss_mask_T=[0] * len(one.loss_mask_T), sampler_logprobs_T=(),
                components={"forward_kl": one.components["distillation"]})
        for one in samples
    ]  # fmt: skip
    metrics = make_learner(student).update(saved).metrics
    assert metrics["loss/forward_kl"] > 0
    assert not {"policy/entropy", "policy/kl_sampler_trainer", "policy/clip_fraction"} & metrics.keys()
    both = make_learner(student).update([*saved, samples[0]]).metrics
    assert both["policy/entropy"] > 1


def test_the_mismatch_is_measured_before_a_step_on_saved_rollouts_moves_the_policy(taught):
    """Own samples without a gradient beside saved ones: measured later, the update itself would count."""
    student, samples = taught("full")
    own = replace(samples[0], components={}, advantages_T=[0.0] * len(samples[0].completion_ids))
    saved = replace(
        samples[1],
        loss_mask_T=[0] * len(samples[1].loss_mask_T),
        components={"forward_kl": samples[1].components["distillation"]},
    )
    learner = make_learner(student, optimizer={"learning_rate": 0.1})
    (exact_T,) = learner.policy.completion_logprobs([own])
    own, saved = (
        replace(one, sampler_logprobs_T=list(exact_T)) if one is own else one for one in (own, saved)
    )
    metrics = learner.update([own, saved]).metrics
    assert metrics["loss/forward_kl"] > 0
    assert metrics["policy/kl_sampler_trainer"] < 1e-9
    (moved_T,) = learner.policy.completion_logprobs([own])
    assert max(abs(a - b) for a, b in zip(exact_T, moved_T, strict=True)) > 1e-3
