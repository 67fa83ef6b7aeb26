"""Packed by proof: how a model runs is decided by comparing the learner with plain transformers.

Before a model is trained it reads a few random sequences, once per sequence through its own forward pass and
once as the learner would: packed, with shared prompts. Log-probabilities (or a reward model's scores) and
gradients must agree. If they do not, the learner's padded form is tried; if that differs too, the model is
refused. Windows are shortened meanwhile, so that short sequences outgrow them.

The allowed difference is derived: the root mean square may be MARGIN times what rounding explains
(model/precision.py) and the rounding of the log-probability itself, the largest MARGIN**2 times. Gradients
are compared as vectors: the difference's length may be MARGIN**2 times the same, relative to theirs.

Verdicts are kept in the user's cache folder, by configuration, class, versions, dtype and device.
"""

import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.attention import ATTENTION_NAME
from verl_lite.engine.learner.backbone import set_attention, undisturbed
from verl_lite.engine.learner.packing import PackedBatch, pack, pack_padded
from verl_lite.engine.learner.ranks import SINGLE_RANK, Ranks
from verl_lite.engine.model.precision import logprob_noise, num_layers, rounding_unit, weights_dtype
from verl_lite.engine.types import PreTrainedModel, TrainingSample
from verl_lite.errors import ConfigError

MARGIN = 12.0
WINDOW = 8
MAX_GRADIENT_ELEMENTS = 4 * 2**20
_WINDOWS = (
    *("sliding_window", "sliding_window_size", "window_size", "attention_chunk_size"),
    *("attention_window_size", "index_topk", "indexer_budget"),
)
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)


class Reading(Protocol):
    """What is read from a model: by the learner's code, and by transformers alone."""

    def learned(self, batch: PackedBatch) -> Sequence[Tensor]:
        """The values of each sample in the batch, in the order of `batch.sample_indices`."""

    def plain(self, sample: TrainingSample) -> tuple[Tensor, float]:
        """The sample's values by the model's own forward pass, and the standard deviation of the logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How the learner runs a model, as proven: packed or padded, and by which attention of transformers.

    `note` says in one line why it is not packed; `seconds` is what the proof took.
    """

    is_packed: bool
    attention: str | None
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    values: Tensor
    gradients: Sequence[Tensor]


def arrange(
    model: PreTrainedModel,
    reading: Reading,
    config: LearnerConfig,
    *,
    pad_id: int,
    ranks: Ranks = SINGLE_RANK,
) -> Arrangement:
    """Choose and set how `model` runs; rank 0 proves for all, before the weights are distributed.

    Raises ConfigError if no way agrees with plain transformers.
    """
    own = {0: _verdict(model, reading, config, pad_id=pad_id)} if ranks.rank == 0 else {}
    verdict = ranks.all_gather(own)[0]
    if isinstance(verdict, ConfigError):
        raise verdict
    if verdict.attention is not None:
        set_attention(model, verdict.attention)
    return verdict


def _verdict(
    model: PreTrainedModel, reading: Reading, config: LearnerConfig, *, pad_id: int
) -> Arrangement | ConfigError:
    key = _key(model, type(reading).__qualname__, config)
    found = _known(key)
    if found is not None:
        return found
    try:
        found = _prove(model, reading, config, pad_id=pad_id)
    except ConfigError as error:
        return error
    _remember(key, found)
    return found


def _prove(model: PreTrainedModel, reading: Reading, config: LearnerConfig, *, pad_id: int) -> Arrangement:
    started = time.perf_counter()
    name = type(model).__name__
    samples = _samples(model, pad_id)
    why: list[str] = []
    with undisturbed(model), _short_windows(model), _few_gradients(model) as parameters:
        set_attention(model, "eager")
        try:
            expected, spread = _plain(reading, samples, parameters)
        except _FAILURES as error:
            raise ConfigError(
                f"{name} cannot be trained: given tokens alone, it fails with: {error}"
            ) from error
        relative = logprob_noise(weights_dtype(model), num_layers=num_layers(model), spread=1.0)
        allowed = relative * spread + rounding_unit(weights_dtype(model)) * float(expected.values.abs().max())
        for is_packed, attention in _candidates(model, config):
            form = f"{'packed' if is_packed else 'padded'}{f' ({attention})' if len(why) > 1 else ''}"
            try:
                if attention is not None and not set_attention(model, attention):
                    why.append(f"{form}: its attention cannot be replaced")
                    continue
                learned = _learned(reading, samples, parameters, pad_id=None if is_packed else pad_id)
            except _FAILURES as error:
                why.append(f"{form}: {_one_line(error)}")
                continue
            difference = _difference(learned, expected, allowed=allowed, relative=relative)
            if difference is None:
                note = f"{name} runs {form}; {why[0]}" if why else ""
                return Arrangement(
                    is_packed=is_packed, attention=attention, note=note, seconds=time.perf_counter() - started
                )
            why.append(f"{form}: {difference}")
    raise ConfigError(
        f"{name} cannot be trained: the learner does not compute what transformers does ({'; '.join(why)})"
    )


def _candidates(model: PreTrainedModel, config: LearnerConfig) -> Iterator[tuple[bool, str | None]]:
    """(is_packed, attention) in the order of preference; attention None: the model's own."""
    if config.backend == "packed":
        yield True, ATTENTION_NAME
    if not model._can_set_attn_implementation():
        yield False, None
        return
    if model._supports_sdpa:
        yield False, "sdpa"
    yield False, "eager"


def _plain(
    reading: Reading, samples: Sequence[TrainingSample], parameters: Sequence[nn.Parameter]
) -> tuple[_Measured, float]:
    values, spreads = zip(*(reading.plain(sample) for sample in samples), strict=True)
    measured = _with_gradients(torch.cat(values), parameters)
    if not bool(measured.values.isfinite().all()):
        raise ValueError("its values are not finite")
    return measured, max(spreads)


def _learned(
    reading: Reading,
    samples: Sequence[TrainingSample],
    parameters: Sequence[nn.Parameter],
    *,
    pad_id: int | None,
) -> _Measured:
    """The values as the learner computes them: packed with every shared prompt, or padded with `pad_id`."""
    everything = range(len(samples))
    if pad_id is None:
        batch = pack(samples, everything, [sample.group != "" for sample in samples])
    else:
        batch = pack_padded(samples, everything, pad_id)
    found = dict(zip(batch.sample_indices, reading.learned(batch), strict=True))
    return _with_gradients(torch.cat([found[index] for index in everything]), parameters)


def _with_gradients(values: Tensor, parameters: Sequence[nn.Parameter]) -> _Measured:
    """The values and the gradients of a fixed random combination of them."""
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values)
    gradients = torch.autograd.grad((values * factors).sum(), parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return _Measured(values=values.detach().double(), gradients=filled)


def _difference(learned: _Measured, expected: _Measured, *, allowed: float, relative: float) -> str | None:
    """What differs by more than rounding explains, in words; None if nothing does."""
    gap = (learned.values - expected.values).abs()
    typical, largest = float(gap.square().mean().sqrt()), float(gap.max())
    checks = (("up to", largest, MARGIN**2 * allowed), ("a root mean square of", typical, MARGIN * allowed))
    for what, found, limit in checks:
        if not found <= limit:
            return (
                f"log-probabilities differ from plain transformers' by {what} {found:.2g} "
                f"(rounding explains {limit:.2g})"
            )
    pairs = list(zip(learned.gradients, expected.gradients, strict=True))
    length = math.sqrt(sum(float(right.double().square().sum()) for _, right in pairs))
    apart = math.sqrt(sum(float((left - right).double().square().sum()) for left, right in pairs))
    limit = MARGIN**2 * relative
    if not apart <= limit * length:
        return (
            f"gradients differ from plain transformers' by {apart / max(length, 1e-30):.2g} of their length "
            f"(rounding explains {limit:.2g})"
        )
    return None


def _samples(model: PreTrainedModel, pad_id: int) -> list[TrainingSample]:
    """Two prompts with several completions each, one twice, and two of their own; all outgrow WINDOW."""
    size = int(model.get_input_embeddings().weight.shape[0])
    choices = [token for token in range(size // 8, max(size // 2, size // 8 + 2)) if token != pad_id]
    rng = random.Random(0)

    def tokens(count: int) -> list[int]:
        return rng.choices(choices, k=count)

    first, second, again = tokens(12), tokens(12), tokens(9)
    parts = [(first, again, "a"), (first, tokens(14), "a"), (first, again, "a"), (second, tokens(9), "b")]
    parts += [(second, tokens(1), "b"), (tokens(5), tokens(17), ""), (tokens(19), tokens(4), "")]
    return [
        TrainingSample(prompt_ids=prompt, completion_ids=completion, group=group)
        for prompt, completion, group in parts
    ]


@contextmanager
def _short_windows(model: PreTrainedModel) -> Iterator[None]:
    """Inside, every window of the model's layers and configurations is WINDOW tokens at most."""
    holders: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        nested = getattr(config, "sub_configs", None) or ()
        for holder in (module, config, *(getattr(config, name, None) for name in nested)):
            holders[id(holder)] = holder
    changed = [
        (holder, name, value)
        for holder in holders.values()
        for name in _WINDOWS
        if isinstance(value := getattr(holder, name, None), int) and value > WINDOW
    ]
    try:
        for holder, name, _ in changed:
            setattr(holder, name, WINDOW)
        yield
    finally:
        for holder, name, value in changed:
            setattr(holder, name, value)


@contextmanager
def _few_gradients(model: PreTrainedModel) -> Iterator[list[nn.Parameter]]:
    """Inside, only the smallest parameters need a gradient; every layer has some of them."""
    every = list(model.parameters())
    needed = [parameter.requires_grad for parameter in every]
    floating = sorted((p for p in every if p.is_floating_point()), key=lambda p: p.numel())
    sizes = accumulate(parameter.numel() for parameter in floating)
    chosen = [p for p, total in zip(floating, sizes, strict=True) if total <= MAX_GRADIENT_ELEMENTS]
    try:
        model.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        yield chosen
    finally:
        for parameter, needs in zip(every, needed, strict=True):
            parameter.requires_grad_(needs)


def _one_line(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _key(model: PreTrainedModel, reading: str, config: LearnerConfig) -> str:
    """What a verdict depends on."""
    import transformers

    settings = model.config.to_dict()
    settings.pop("_name_or_path", None)
    parameter = next(model.parameters())
    parts = [
        *(type(model).__module__, type(model).__qualname__, reading, config.backend),
        *(str(weights_dtype(model)), parameter.device.type, transformers.__version__, torch.__version__),
        _own_sources(),
        json.dumps(settings, sort_keys=True, default=str),
    ]
    return sha256("\n".join(parts).encode()).hexdigest()[:32]


@cache
def _own_sources() -> str:
    """A digest of this folder's modules: a changed engine proves anew."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


_proven: dict[str, Arrangement] = {}


def _file(key: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "verl-lite" / "proofs" / f"{key}.json"


def _known(key: str) -> Arrangement | None:
    if key not in _proven:
        try:
            _proven[key] = Arrangement(**json.loads(_file(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
    return _proven[key]


def _remember(key: str, found: Arrangement) -> None:
    _proven[key] = found
    path = _file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(found)), encoding="utf-8")
        part.replace(path)
    except OSError:  # without a cache folder every process proves for itself
        return
