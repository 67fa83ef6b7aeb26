"""Weights for Ray's object store: names and raw bytes, so that readers need no copy.

Pickle protocol 5 passes every array as an out-of-band buffer: `ray.put(pack(weights))` copies each tensor
once, into shared memory, and `unpack(ray.get(reference))` on the same node views it. Tensors travel as
bytes, since NumPy has no bfloat16.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A tensor: its Hugging Face name, torch dtype name, shape, and bytes (uint8, flat)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """Every weight of a policy. Tied weights share one `data`, which is stored once."""

    tensors: tuple[PackedTensor, ...]

    @property
    def num_bytes(self) -> int:
        return sum({id(tensor.data): tensor.data.nbytes for tensor in self.tensors}.values())


def pack(weights: Iterable[tuple[str, Tensor]]) -> PackedWeights:
    """Named full tensors as bytes; contiguous CPU tensors are viewed, others copied to the CPU.

    Views see later changes: put the result into the store before the weights change.
    """
    packed: list[PackedTensor] = []
    # Keep every source until the end: reused memory would look like a tied weight.
    seen: dict[tuple[int, torch.Size, tuple[int, ...], torch.dtype], tuple[Tensor, np.ndarray]] = {}
    for name, tensor in weights:
        source = tensor.detach()
        key = (source.data_ptr(), source.shape, source.stride(), source.dtype)
        if key not in seen:
            seen[key] = source, _bytes_of(source)
        dtype = str(source.dtype).removeprefix("torch.")
        packed.append(PackedTensor(name, dtype, tuple(source.shape), seen[key][1]))
    return PackedWeights(tuple(packed))


def unpack(packed: PackedWeights) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight, in the order packed. Read-only: the tensors view the packed bytes."""
    for tensor in packed.tensors:
        with warnings.catch_warnings():
            # from_numpy warns against writing, as the shared memory is read-only
            warnings.filterwarnings("ignore", message=".*not writable.*")
            data = torch.from_numpy(tensor.data)
        yield tensor.name, data.view(getattr(torch, tensor.dtype)).view(tensor.shape)


def _bytes_of(tensor: Tensor) -> np.ndarray:
    data: np.ndarray = tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return data
