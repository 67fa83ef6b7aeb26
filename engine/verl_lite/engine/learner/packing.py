"""Micro-batches filled by tokens, without padding and without computing anything shared twice.

A packed micro-batch is one row of prompts and completions, each with its own positions. `attention.py`
keeps the segments apart; a completion of a shared prompt attends to that prompt and to itself, so the
result is the same as in a separate row. Equal completions of a shared prompt, frequent in a trained policy,
are computed once. The last token of a completion predicts nothing and is not computed. The padded form
(right-padded rows of similar length) is for models our attention does not support.

Shapes: R rows and L columns (1 and all tokens if packed), N completion tokens predicted, T those of one
sample.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from verl_lite.engine.types import TrainingSample


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [start, end) of the row; they attend causally to themselves and to all of segment `prefix`."""

    start: int
    end: int
    prefix: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """One micro-batch as the model takes it.

    predict_from_N  index into the flattened (R*L) hidden states that predict each completion token
    targets_N       that token; sequence_N  its position in `sample_indices`
    segments        the segments of a packed row; empty if padded
    """

    input_ids_RL: Tensor
    position_ids_RL: Tensor
    predict_from_N: Tensor
    targets_N: Tensor
    sequence_N: Tensor
    sample_indices: tuple[int, ...]
    segments: tuple[Segment, ...] = ()

    def to(self, device: torch.device) -> "PackedBatch":
        """The batch with its tensors on `device`, without waiting for it."""
        return replace(
            self,
            input_ids_RL=to_device(self.input_ids_RL, device),
            position_ids_RL=to_device(self.position_ids_RL, device),
            predict_from_N=to_device(self.predict_from_N, device),
            targets_N=to_device(self.targets_N, device),
            sequence_N=to_device(self.sequence_N, device),
        )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; to a GPU from pinned memory, as other copies wait for its work."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def split_micro_batches(
    samples: Sequence[TrainingSample], *, max_tokens: int, shared: Sequence[int], padded: bool = False
) -> list[list[int]]:
    """Sample indices per micro-batch, each of at most `max_tokens` computed tokens.

    `shared[i]`: so many first tokens of sample i's prompt (0: none) are computed once per micro-batch for all
    samples that begin with them, and so are equal continuations. A sample longer than the budget gets its
    own micro-batch. Deterministic.
    """
    units = _units(samples, max_tokens, shared)
    units.sort(key=lambda unit: (-max(_num_tokens(samples[i]) for i in unit), unit[0]))
    if padded:
        return _split_padded(samples, units, max_tokens)
    used: list[int] = []
    batches: list[list[int]] = []
    for unit in units:  # first fit, longest first
        tokens = _unit_tokens(samples, unit, shared)
        at = next((at for at, total in enumerate(used) if total + tokens <= max_tokens), len(used))
        if at == len(used):
            used.append(0)
            batches.append([])
        used[at] += tokens
        batches[at] += unit
    return batches


def balance_ranks(
    samples: Sequence[TrainingSample], *, num_ranks: int, max_tokens: int, shared: Sequence[int]
) -> list[list[int]]:
    """Sample indices per rank, balanced by tokens: longest first, to the rank with the fewest.

    Samples of a shared prompt stay together up to half of a rank's fair share, so no rank exceeds its share
    by more than that. Deterministic.
    """
    fair = sum(_num_tokens(sample) for sample in samples) // num_ranks
    units = _units(samples, min(max_tokens, fair // 2), shared)
    costs = ((_unit_tokens(samples, unit, shared), unit) for unit in units)
    used = [0] * num_ranks
    shards: list[list[int]] = [[] for _ in range(num_ranks)]
    for tokens, unit in sorted(costs, key=lambda one: (-one[0], one[1][0])):
        rank = used.index(min(used))
        used[rank] += tokens
        shards[rank] += unit
    return [sorted(shard) for shard in shards]


def dummy_batch(*, packed: bool, token_id: int) -> PackedBatch:
    """One token that predicts nothing, for a rank to run while others have micro-batches left."""
    nothing = torch.zeros(0, dtype=torch.long)
    return PackedBatch(
        input_ids_RL=torch.tensor([[token_id]]),
        position_ids_RL=torch.tensor([[0]]),
        predict_from_N=nothing,
        targets_N=nothing,
        sequence_N=nothing,
        sample_indices=(),
        segments=(Segment(0, 1),) if packed else (),
    )


def by_samples(
    parts: Sequence[tuple[Tensor, PackedBatch]], samples: Sequence[TrainingSample]
) -> "dict[int, array[float]]":
    """The values_N of batches as arrays of length T by sample index, in one copy from the device."""
    if not parts:
        return {}
    order = [index for _, batch in parts for index in batch.sample_indices]
    joined_N = torch.cat([values_N.detach() for values_N, _ in parts]).cpu().double()
    values, found = array("d", joined_N.numpy().tobytes()), dict[int, "array[float]"]()
    start = 0
    for index in order:
        found[index] = values[start : start + len(samples[index].completion_ids)]
        start += len(found[index])
    return found


def token_column(rows: Iterable[Sequence[float]], like_N: Tensor) -> Tensor:
    """The rows' values end to end, with the dtype and device of `like_N`, without waiting for the device."""
    values = np.concatenate([np.zeros(0), *(np.asarray(row, dtype=np.float64) for row in rows)])
    return to_device(torch.from_numpy(values).to(like_N.dtype), like_N.device)


def _num_tokens(sample: TrainingSample) -> int:
    """Tokens computed for the sample alone: all but the last."""
    return len(sample.prompt_ids) + len(sample.completion_ids) - 1


def _units(samples: Sequence[TrainingSample], max_tokens: int, shared: Sequence[int]) -> list[list[int]]:
    """Samples that stay together: those of one shared prompt, split where they exceed the budget."""
    units: list[list[int]] = []
    open_units: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        if not shared[index]:
            units.append([index])
            continue
        key = tuple(sample.prompt_ids[: shared[index]])
        unit = open_units.get(key)
        if unit is None or _unit_tokens(samples, [*unit, index], shared) > max_tokens:
            unit = open_units[key] = []
            units.append(unit)
        unit.append(index)
    return units


def _unit_tokens(samples: Sequence[TrainingSample], unit: Sequence[int], shared: Sequence[int]) -> int:
    if not shared[unit[0]]:
        return sum(_num_tokens(samples[index]) for index in unit)
    distinct = {_computed(samples[index], shared[index]) for index in unit}
    return shared[unit[0]] + sum(len(tokens) for tokens in distinct)


def _computed(sample: TrainingSample, start: int) -> tuple[int, ...]:
    """The tokens from `start` on that the model reads: all but the last."""
    return (*sample.prompt_ids[start:], *sample.completion_ids[:-1])


def _split_padded(
    samples: Sequence[TrainingSample], units: Sequence[Sequence[int]], max_tokens: int
) -> list[list[int]]:
    batches: list[list[int]] = []
    for (index,) in units:  # longest first: the first of a batch sets its width
        width = _num_tokens(samples[batches[-1][0]]) if batches else 0
        if batches and (len(batches[-1]) + 1) * width <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pack(samples: Sequence[TrainingSample], indices: Sequence[int], shared: Sequence[int]) -> PackedBatch:
    """The samples at `indices` as one packed row; what is `shared` stands once, see split_micro_batches."""
    row = _Row()
    predict_from: list[np.ndarray] = []
    prefix_at: dict[tuple[int, ...], int] = {}
    start_of: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    order = _order(samples, indices, shared)
    for index in order:
        sample, num_shared = samples[index], shared[index]
        key, rest = tuple(sample.prompt_ids[:num_shared]), _computed(sample, num_shared)
        if num_shared and key not in prefix_at:
            row.add(key, 0, None)
            prefix_at[key] = len(row.segments) - 1
        prefix = prefix_at[key] if num_shared else None
        start = start_of.get((key, rest)) if num_shared else None
        if start is None:
            start = row.add(rest, num_shared, prefix)
            if num_shared:
                start_of[key, rest] = start
        before = len(sample.prompt_ids) - 1 - num_shared  # predicts the first token; -1 is in the prefix
        rows = np.arange(start + before, start + before + len(sample.completion_ids))
        if before < 0 and prefix is not None:
            rows[0] = row.segments[prefix].end - 1
        predict_from.append(rows)
    ids, positions = (np.concatenate(parts)[None] for parts in (row.ids, row.positions))
    return _packed(samples, order, ids, positions, predict_from, row.segments)


@dataclass(slots=True)
class _Row:
    """A packed row as it grows."""

    size: int = 0
    ids: list[np.ndarray] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def add(self, tokens: Sequence[int], first_position: int, prefix: int | None) -> int:
        """Append a segment of `tokens`; returns where it starts."""
        start, self.size = self.size, self.size + len(tokens)
        self.ids.append(np.asarray(tokens, dtype=np.int64))
        self.positions.append(np.arange(first_position, first_position + len(tokens)))
        if tokens:
            self.segments.append(Segment(start, self.size, prefix))
        return start


def _order(samples: Sequence[TrainingSample], indices: Sequence[int], shared: Sequence[int]) -> list[int]:
    """Shared prompts first, each with its completions, by length so that attention can batch them."""
    roots = {index: tuple(samples[index].prompt_ids[: shared[index]]) for index in indices}
    first: dict[tuple[int, ...], int] = {}

    def key(index: int) -> tuple[bool, int, int, int]:
        prompt_at = first[roots[index]] if shared[index] else 0
        return not shared[index], prompt_at, _num_tokens(samples[index]), index

    for index in indices:
        first.setdefault(roots[index], index)
    return sorted(indices, key=key)


def pack_padded(samples: Sequence[TrainingSample], indices: Sequence[int], pad_token_id: int) -> PackedBatch:
    """The samples at `indices` as right-padded rows; causal attention never reads the padding."""
    width = max(_num_tokens(samples[index]) for index in indices)
    ids = np.full((len(indices), width), pad_token_id)
    predict_from = []
    for row, index in enumerate(indices):
        prompt, completion = samples[index].prompt_ids, samples[index].completion_ids
        ids[row, : _num_tokens(samples[index])] = [*prompt, *completion[:-1]]
        first = row * width + len(prompt) - 1
        predict_from.append(np.arange(first, first + len(completion)))
    return _packed(samples, indices, ids, np.tile(np.arange(width), (len(ids), 1)), predict_from, [])


def _packed(
    samples: Sequence[TrainingSample],
    order: Sequence[int],
    ids_RL: np.ndarray,
    positions_RL: np.ndarray,
    predict_from: Sequence[np.ndarray],
    segments: Sequence[Segment],
) -> PackedBatch:
    assert all(left.end == right.start for left, right in pairwise(segments))
    lengths = torch.tensor([len(samples[index].completion_ids) for index in order])
    return PackedBatch(
        input_ids_RL=torch.from_numpy(ids_RL),
        position_ids_RL=torch.from_numpy(positions_RL),
        predict_from_N=torch.from_numpy(np.concatenate(predict_from)),
        targets_N=torch.from_numpy(np.concatenate([np.asarray(samples[at].completion_ids) for at in order])),
        sequence_N=torch.repeat_interleave(torch.arange(len(order)), lengths),
        sample_indices=tuple(order),
        segments=tuple(segments),
    )
