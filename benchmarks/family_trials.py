"""One row of the table of architectures (docs/architectures.md): a tiny model of a family, tried everywhere.

Every difference is the largest between two float32 computations that should agree: log-probabilities in nats,
gradients relative to the largest gradient of the model.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from verl_lite.engine.config.learner import LearnerConfig, LoraConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.model.checkpoint_names import in_checkpoint_format
from verl_lite.engine.model.folder import load_policy, save_policy
from verl_lite.engine.model.lora import adapter_weights, add_adapters
from verl_lite.engine.model.weights import named_weights
from verl_lite.engine.testing import FAMILIES, write_family
from verl_lite.engine.types import PreTrainedModel, TrainingSample
from verl_lite.errors import ConfigError

CPU = torch.device("cpu")
PAD = 0
RANK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerRow:
    """`form` is packed, padded or refused; `why` its reason. None: not tried, as the model was refused.

    `lora_why` is the message where adapters were refused.
    """

    family: str
    kind: str
    form: str
    why: str = ""
    logprobs: float | None = None
    gradients: float | None = None
    reload: float | None = None
    lora_reload: float | None = None
    lora_why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerRow:
    """Differences between vLLM and the learner: at the start, and after two syncs of changed weights.

    `implementation` is vLLM's class. `adapters`: the difference when only LoRA adapters are synced, or why
    not. `error` is the message where vLLM cannot run the model.
    """

    family: str
    implementation: str = ""
    dtype: str = "float32"
    start: float | None = None
    synced: float | None = None
    adapters: float | None = None
    adapters_why: str = ""
    error: str = ""


def learner_row(family: str) -> LearnerRow:
    """The learner on the family's tiny model beside plain transformers; the model saved and loaded again."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_family(family, path)
        form = _form(str(path))
        reload = _saved_and_loaded(_load(path), Path(folder) / "saved")
        lora_reload, lora_why = None, ""
        try:
            lora_reload = _saved_and_loaded(_with_lora(_load(path)), Path(folder) / "merged")
        except ConfigError as error:
            lora_why = str(error)
    return LearnerRow(
        family=family,
        kind=FAMILIES[family].kind,
        reload=reload,
        lora_reload=lora_reload,
        lora_why=lora_why,
        **form,
    )


def sampler_row(family: str, *, dtype: str = "auto", adapters: bool = False) -> SamplerRow:
    """vLLM on the family's tiny model, in this process, with two syncs of changed weights, or of adapters."""
    from verl_lite.engine.rollout.vllm_engine import VllmEngine

    lora = LoraConfig(rank=RANK) if adapters else None
    with TemporaryDirectory() as folder:
        path = Path(folder)
        write_family(family, path)
        config = RolloutConfig.model_validate(
            {
                "max_prompt_tokens": 64,
                "max_new_tokens": 32,
                "lora_sync": "adapters" if adapters else "merged",
                "vllm": {"kv_cache_gib": 0.1, "dtype": dtype},
            }
        )
        try:
            model = _load(path)
            expected, syncs = _moved(_with_lora(model) if adapters else model, adapters=adapters)
            engine = VllmEngine(str(path), config, seed=0, lora=lora)
        except ConfigError as error:
            return SamplerRow(family=family, error=str(error))
        try:
            ids = IDS_BT[0].tolist()
            start = _largest(torch.tensor(engine.token_logprobs(ids)), expected[0])
            after = []
            for version, weights in enumerate(syncs, start=1):
                engine.load(weights, version=version)
                after.append(_largest(torch.tensor(engine.token_logprobs(ids)), expected[version]))
            return SamplerRow(
                family=family,
                implementation=_implementation(engine),
                dtype=engine.dtype,
                start=start,
                synced=None if adapters else max(after),
                adapters=max(after) if adapters else None,
            )
        finally:
            engine.close()


def _implementation(engine: Any) -> str:
    return str(engine.llm.apply_model(lambda model: type(model).__name__)[0])


def _load(path: Path) -> PreTrainedModel:
    return load_policy(str(path), dtype="float32", device=CPU).eval()


VOCAB = 105  # the tiny tokenizer's
IDS_BT = torch.randint(6, VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _token_logprobs(model: Any, ids_BT: Tensor = IDS_BT) -> Tensor:
    logprobs_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    chosen: Tensor = logprobs_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
    return chosen


def _largest(found: Tensor, expected: Tensor) -> float:
    difference = float((found - expected).detach().abs().max())
    return difference if difference == difference else float("inf")


def _saved_and_loaded(model: Any, folder: Path) -> float:
    expected = _token_logprobs(model)
    save_policy(model, None, folder)
    return _largest(_token_logprobs(_load(folder)), expected)


@torch.no_grad()
def _with_lora(model: PreTrainedModel) -> Any:
    """The model with adapters on all layers that take them, far from zero."""
    adapted = add_adapters(model, LoraConfig(rank=RANK)).eval()
    _move(adapted, seed=1, scale=0.05, only="lora_")
    return adapted


@torch.no_grad()
def _move(model: Any, *, seed: int, scale: float, only: str = "") -> None:
    """Add noise to weights and saved buffers whose name contains `only`."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if only in name and tensor.is_floating_point():
            tensor.add_(scale * torch.randn(tensor.shape, generator=generator))


def _moved(model: Any, *, adapters: bool) -> tuple[list[Tensor], list[list[tuple[str, Tensor]]]]:
    """(log-probabilities before and after each of two changes, what to sync after each)."""
    ids_1T = IDS_BT[:1]
    expected = [_token_logprobs(model, ids_1T)[0]]
    if adapters:  # vLLM starts without any
        with model.disable_adapter():
            expected = [_token_logprobs(model, ids_1T)[0]]
    syncs = []
    for seed in (2, 3):
        _move(model, seed=seed, scale=0.02, only="lora_" if adapters else "")
        named = adapter_weights(model) if adapters else in_checkpoint_format(model, named_weights(model))
        syncs.append([(name, tensor.clone()) for name, tensor in named])
        expected.append(_token_logprobs(model, ids_1T)[0])
    return expected, syncs


def _samples() -> list[TrainingSample]:
    """Two prompts with two completions each, longer than the windows."""
    rng = random.Random(0)
    samples = []
    for group in range(2):
        prompt = [rng.randrange(6, VOCAB) for _ in range(20)]
        for _ in range(2):
            ids = [rng.randrange(6, VOCAB) for _ in range(rng.randint(14, 20))]
            samples.append(
                TrainingSample(
                    prompt_ids=prompt,
                    completion_ids=ids,
                    advantages_T=[rng.uniform(-1, 1) for _ in ids],
                    loss_mask_T=[1] * len(ids),
                    group=str(group),
                )
            )
    return samples


def _form(path: str) -> dict[str, Any]:
    """How the learner runs the model, and how far that is from plain transformers."""
    samples = _samples()
    plain = load_policy(path, dtype="float32", device=CPU).eval()
    plain.set_attn_implementation("eager")
    expected = [_plain_logprobs(plain, sample) for sample in samples]
    learner = load_policy(path, dtype="float32", device=CPU)
    try:
        policy = Policy(learner, LearnerConfig(share_prompts="always"), pad_token_id=PAD)
    except ConfigError as error:
        return {"form": "refused", "why": str(error)}
    learner.eval()
    found: dict[int, Tensor] = {}
    for batch in policy.micro_batches(samples):
        logprobs_N = policy.logprobs(batch)
        lengths = [len(samples[index].completion_ids) for index in batch.sample_indices]
        starts = accumulate(lengths, initial=0)
        parts = [logprobs_N[start : start + count] for start, count in zip(starts, lengths, strict=False)]
        found |= dict(zip(batch.sample_indices, parts, strict=True))
    ordered = [found[index] for index in range(len(samples))]
    return {
        "form": "packed" if policy.is_packed else "padded",
        "why": policy.arrangement.note,
        "logprobs": max(_largest(a, b) for a, b in zip(ordered, expected, strict=True)),
        "gradients": _gradient_difference(_gradients(learner, ordered), _gradients(plain, expected)),
    }


def _plain_logprobs(model: Any, sample: TrainingSample) -> Tensor:
    prompt, completion = list(sample.prompt_ids), list(sample.completion_ids)
    logits_TV = model(input_ids=torch.tensor([prompt + completion]), use_cache=False).logits[0]
    logprobs_TV = logits_TV[len(prompt) - 1 : -1].float().log_softmax(-1)
    chosen: Tensor = logprobs_TV.gather(-1, torch.tensor(completion)[:, None])[:, 0]
    return chosen


def _gradients(model: Any, logprobs: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """The gradients of a weighted sum, in which every token has a weight of its own."""
    loss = sum((values * torch.linspace(-1, 1, len(values))).sum() for values in logprobs)
    loss.backward()  # type: ignore[union-attr]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _gradient_difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    nothing: Callable[[Tensor], Tensor] = torch.zeros_like
    return max(
        _largest(found.get(name, nothing(gradient)), gradient) / largest
        for name, gradient in expected.items()
    )
