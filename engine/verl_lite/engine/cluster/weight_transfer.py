"""Weights as Ray's object store takes them: raw bytes beside names, so that both ends read without a copy.

Pickle protocol 5 hands every array to the store as a buffer of its own: `ray.put(pack(weights))`
copies each tensor once, into shared memory, and `unpack(ray.get(reference))` on the same node gives
tensors that lie there. Works for every dtype torch has (NumPy has no bfloat16, so bytes travel).
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["PackedTensor", "PackedWeights", "pack", "unpack"]


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """One tensor: its Hugging Face name, torch's name of its dtype, its shape, its bytes (uint8, flat)."""

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

    The views see later changes: put the result into the store before the weights move on.
    """
    packed: list[PackedTensor] = []
    # Every source is kept until the end: memory freed and used again would look like a tied weight.
    seen: dict[tuple[int, torch.Size, tuple[int, ...], torch.dtype], tuple[Tensor, np.ndarray]] = {}
    for name, tensor in weights:
        source = tensor.detach()
        key = (source.data_ptr(), source.shape, source.stride(), source.dtype)
        if key not in seen:
            seen[key] = source, _bytes_of(source)
        packed.append(PackedTensor(name, _dtype_name(source), tuple(source.shape), seen[key][1]))
    return PackedWeights(tuple(packed))


def unpack(packed: PackedWeights) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight, in the order packed. The tensors lie in the packed bytes: only read."""
    for tensor in packed.tensors:
        with warnings.catch_warnings():
            # from_numpy warns that writing to shared memory that others read would be an error
            warnings.filterwarnings("ignore", message=".*not writable.*")
            data = torch.from_numpy(tensor.data)
        yield tensor.name, data.view(getattr(torch, tensor.dtype)).view(tensor.shape)


def _bytes_of(tensor: Tensor) -> np.ndarray:
    data: np.ndarray = tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return data


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
