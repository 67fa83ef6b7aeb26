"""How a model runs is proven against plain transformers; what the proof must find, and must leave alone."""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import LearnerConfig
from verl_lite.engine.learner import LayerRule, Policy, attention, attention_buckets, proof
from verl_lite.engine.testing import FAMILIES, family_model
from verl_lite.errors import ConfigError

PACKED = (
    *("llama", "mistral-window", "phi3-window", "starcoder2", "ministral", "qwen3-moe-window"),  # windows
    *("gemma3", "gemma4", "olmo3"),  # windows in nested configurations, and in some layers only
    *("gemma2", "nanochat", "granite", "cohere", "minicpm3", "phi"),  # heads: caps, factors, a bias
    *("gpt-oss", "gpt2", "gpt-neox", "opt"),  # sinks; backbones of other names
)
PADDED = ("nemotron", "phimoe", "doge", "recurrent-gemma", "llama4", "falcon", "gptj", "bloom", "mamba")
PADDED_HYBRIDS = ("falcon-h1", "qwen3_5", "lfm2")
SELECTING = ("glm-moe-dsa", "deepseek-v3_2")  # keys are selected by their scores


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every proof is made: the cache is empty."""
    monkeypatch.setattr(proof, "_proven", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def samples(vocabulary: int) -> list[TrainingSample]:
    """Two groups whose prompts are shared, far longer than the families' windows of 8 tokens."""
    rng = random.Random(7)
    found = []
    for group, prompt_tokens in enumerate((23, 11)):
        prompt = rng.choices(range(13, vocabulary // 2), k=prompt_tokens)
        for length in (1, 30, 17):
            completion = rng.choices(range(13, vocabulary // 2), k=length)
            found.append(
                TrainingSample(
                    prompt_ids=prompt,
                    completion_ids=completion,
                    loss_mask_T=[1] * length,
                    group=f"g{group}",
                )
            )
    return found


def plain_logprobs(model: nn.Module, sample: TrainingSample) -> Tensor:
    ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(sample.prompt_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(sample.completion_ids)[:, None])[:, 0]


def gradients(model: nn.Module, total: Tensor) -> list[Tensor]:
    every = list(model.parameters())
    found = torch.autograd.grad(total, every, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, every, strict=True)]


@pytest.mark.parametrize("family", [*PACKED, *PADDED, *PADDED_HYBRIDS, *SELECTING])
def test_a_family_agrees_with_plain_transformers(family: str) -> None:
    """Log-probabilities of every token, and gradients of every weight, by transformers' own attention."""
    model = family_model(family)
    plain = copy.deepcopy(model)
    if plain._can_set_attn_implementation():
        plain.set_attn_implementation("eager")
    rows = samples(model.get_input_embeddings().weight.shape[0])
    policy = Policy(model, LearnerConfig(max_tokens_per_micro_batch=150), pad_token_id=0)
    assert policy.is_packed == (family in PACKED), policy.arrangement.note
    assert bool(policy.arrangement.note) != policy.is_packed
    total = torch.zeros(())
    for batch in policy.micro_batches(rows):
        logprobs_N = policy.logprobs(batch)
        expected = torch.cat([plain_logprobs(plain, rows[index]) for index in batch.sample_indices])
        torch.testing.assert_close(logprobs_N, expected, atol=3e-5, rtol=0)
        total = total + (logprobs_N * torch.sin(expected.detach() * 9)).sum()
    own = gradients(model, total)
    expected = torch.cat([plain_logprobs(plain, row) for row in rows])
    theirs = gradients(plain, (expected * torch.sin(expected.detach() * 9)).sum())
    length = torch.sqrt(sum(g.square().sum() for g in theirs))
    apart = torch.sqrt(sum((a - b).square().sum() for a, b in zip(own, theirs, strict=True)))
    assert float(apart / length) < 3e-5


def without_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_buckets.Buckets, "mask_LK", _blind(attention_buckets.Buckets.mask_LK))


def _blind(old: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    return lambda self, bucket, window, device: old(self, bucket, None, device)


def without_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LayerRule, "is_plain", property(lambda self: True))


@pytest.mark.parametrize(
    ("family", "break_it"),
    [("mistral-window", without_windows), ("gemma3", without_windows), ("gpt-oss", without_sinks)],
)
def test_what_packing_ignores_is_found(
    family: str, break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    policy = Policy(family_model(family), LearnerConfig(), pad_token_id=0)
    assert not policy.is_packed
    assert "packed: log-probabilities differ from plain transformers' by up to" in policy.arrangement.note


def test_a_wrong_gradient_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a completion that reads its shared prompt without teaching it anything."""
    inner = attention_buckets._with_prefix
    monkeypatch.setattr(
        attention_buckets, "_with_prefix", lambda prompts, prefix, own: inner(prompts.detach(), prefix, own)
    )
    policy = Policy(family_model("llama"), LearnerConfig(), pad_token_id=0)
    assert not policy.is_packed
    assert "packed: gradients differ from plain transformers'" in policy.arrangement.note


def test_a_model_that_differs_padded_too_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model("llama")
    inner = Policy.logprobs

    def shifted(self: Policy, *args: object, **options: object) -> tuple[Tensor, Tensor]:
        logprobs_N, entropy_N = inner(self, *args, **options)
        return logprobs_N * 1.001, entropy_N

    monkeypatch.setattr(Policy, "logprobs", shifted)
    with pytest.raises(
        ConfigError,
        match=r"^LlamaForCausalLM cannot be trained: .*packed: .*; padded: .*; padded \(eager\): ",
    ):
        Policy(model, LearnerConfig(), pad_token_id=0)
    assert not proof._proven


@pytest.mark.parametrize("family", SELECTING)
def test_a_model_that_selects_other_keys_in_a_padded_row_is_refused(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one head, many scores are 0; which of the equal keys are selected hangs on the row's length."""
    zoo = FAMILIES[family]
    one_head = replace(zoo, options={**zoo.options, "index_n_heads": 1, "index_topk": 2048})
    monkeypatch.setitem(FAMILIES, family, one_head)
    with pytest.raises(ConfigError, match=r"cannot be trained: .*padded \(eager\): log-probabilities differ"):
        Policy(family_model(family), LearnerConfig(), pad_token_id=0)


def test_a_head_of_another_form_is_refused() -> None:
    model = family_model("llama")
    model.lm_head.register_forward_hook(lambda module, args, output: output.abs())
    with pytest.raises(ConfigError, match=r"^LlamaForCausalLM computes its logits in a way that"):
        Policy(model, LearnerConfig(), pad_token_id=0)


def test_a_model_that_fails_on_tokens_alone_is_refused() -> None:
    model = family_model("llama")
    model.lm_head.weight = nn.Parameter(torch.zeros(105, 64))
    with pytest.raises(
        ConfigError, match=r"^LlamaForCausalLM cannot be trained: given tokens alone, it fails"
    ):
        Policy(model, LearnerConfig(), pad_token_id=0)


def test_a_call_without_the_plan_inside_a_packed_forward_raises() -> None:
    model = family_model("llama")
    Policy(model, LearnerConfig(), pad_token_id=0)
    ids = torch.tensor([[13, 14, 15]])
    model(input_ids=ids)  # generation, outside
    with (
        attention.packed_forward(),
        pytest.raises(attention.NotPacked, match="LlamaAttention loses the plan"),
    ):
        model(input_ids=ids)


@pytest.mark.parametrize("family", ["gemma3", "gpt-neo"])
def test_the_proof_leaves_the_model_as_it_was(family: str) -> None:
    model = family_model(family)
    model.train()
    model.get_output_embeddings().requires_grad_(False)
    before = (
        model.config.to_dict(),
        [(name, module.training) for name, module in model.named_modules()],
        [(name, p.requires_grad, p.clone()) for name, p in model.named_parameters()],
        [getattr(m, "sliding_window", None) for m in model.modules()],
        torch.get_rng_state(),
    )
    Policy(model, LearnerConfig(), pad_token_id=0)
    after = model.config.to_dict()
    assert after == before[0]
    assert [(name, module.training) for name, module in model.named_modules()] == before[1]
    for (name, needs, value), (again, parameter) in zip(before[2], model.named_parameters(), strict=True):
        assert (name, needs) == (again, parameter.requires_grad)
        assert torch.equal(value, parameter)
        assert parameter.grad is None
    assert [getattr(m, "sliding_window", None) for m in model.modules()] == before[3]
    assert torch.equal(torch.get_rng_state(), before[4])


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes that were proven, in order."""
    made: list[str] = []
    inner = proof._prove

    def counting(model: nn.Module, *args: object, **options: object) -> proof.Arrangement:
        made.append(type(model).__name__)
        return inner(model, *args, **options)

    monkeypatch.setattr(proof, "_prove", counting)
    return made


def test_a_verdict_is_kept_for_the_same_model_and_versions(
    proofs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = Policy(family_model("llama4"), LearnerConfig(), pad_token_id=0).arrangement
    again = Policy(family_model("llama4", seed=1), LearnerConfig(), pad_token_id=0).arrangement
    monkeypatch.setattr(proof, "_proven", {})  # another process
    later = Policy(family_model("llama4"), LearnerConfig(), pad_token_id=0).arrangement
    assert proofs == ["Llama4ForCausalLM"]
    assert first == again == later
    assert first.note
    (file,) = (tmp_path / "cache" / "verl-lite" / "proofs").iterdir()
    file.write_text("{", encoding="utf-8")  # cut off
    monkeypatch.setattr(proof, "_proven", {})
    Policy(family_model("llama4"), LearnerConfig(), pad_token_id=0)
    assert len(proofs) == 2
    assert json.loads(file.read_text(encoding="utf-8"))["is_packed"] is False


def test_what_a_verdict_depends_on_makes_another(proofs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    Policy(family_model("llama"), LearnerConfig(), pad_token_id=0)
    Policy(family_model("qwen2"), LearnerConfig(), pad_token_id=0)  # class
    other = family_model("llama")
    other.config.rope_parameters = {**other.config.rope_parameters, "rope_theta": 1.0}
    Policy(other, LearnerConfig(), pad_token_id=0)  # configuration
    Policy(family_model("llama").bfloat16(), LearnerConfig(), pad_token_id=0)  # dtype
    Policy(family_model("llama"), LearnerConfig(backend="padded"), pad_token_id=0)
    monkeypatch.setattr(transformers, "__version__", "99.0")
    Policy(family_model("llama"), LearnerConfig(), pad_token_id=0)
    monkeypatch.setattr(proof, "_own_sources", lambda: "another engine")
    Policy(family_model("llama"), LearnerConfig(), pad_token_id=0)
    assert len(proofs) == 7


def test_where_nothing_can_be_written_every_process_proves(
    proofs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    Policy(family_model("llama"), LearnerConfig(), pad_token_id=0)
    monkeypatch.setattr(proof, "_proven", {})
    Policy(family_model("llama"), LearnerConfig(), pad_token_id=0)
    assert len(proofs) == 2


def test_padded_on_request_is_no_fallback() -> None:
    policy = Policy(family_model("llama"), LearnerConfig(backend="padded"), pad_token_id=0)
    assert not policy.is_packed
    assert not policy.arrangement.note


def test_the_families_of_these_tests_exist() -> None:
    assert {*PACKED, *PADDED, *PADDED_HYBRIDS} <= set(FAMILIES)
