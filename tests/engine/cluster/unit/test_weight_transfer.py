"""Packed weights come back bit for bit, whatever their dtype and layout, and tied ones travel once."""

import pickle

import pytest
import torch
from torch import Tensor

from verl_lite.engine.cluster import PackedWeights, pack, unpack

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int64, torch.bool]


def sent(packed: PackedWeights) -> PackedWeights:
    """As the object store hands it over: out-of-band buffers that cannot be written to."""
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    kept = [bytes(buffer.raw()) for buffer in buffers]
    assert len(text) < 1000 + 200 * len(packed.tensors)  # no tensor is inside the pickle itself
    received: PackedWeights = pickle.loads(text, buffers=kept)
    return received


def arrived(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(unpack(sent(pack(weights.items()))))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    tensor = (torch.randn(3, 5, generator=torch.Generator().manual_seed(1)) * 50).to(dtype)
    (back,) = arrived({"model.weight": tensor}).values()
    assert back.dtype == dtype
    assert torch.equal(back.view(torch.uint8), tensor.view(torch.uint8))


def test_odd_shapes_and_layouts_come_back() -> None:
    weights = {
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.empty(0, 4),
        "transposed": torch.arange(6.0).view(2, 3).t(),
        "part": torch.arange(20.0).view(4, 5)[1:3, 2:],
        "trained": torch.nn.Parameter(torch.ones(2)),
    }
    back = arrived(weights)
    assert list(back) == list(weights)
    for name, tensor in weights.items():
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor)


def test_tied_weights_travel_once_and_their_parts_do_not_pass_for_tied() -> None:
    embedding = torch.arange(12.0).view(3, 4)
    weights = {"embed": embedding, "head": embedding, "flat": embedding.view(-1), "column": embedding[:, :1]}
    packed = sent(pack(weights.items()))
    embed, head, *_ = packed.tensors
    assert embed.data is head.data
    assert packed.num_bytes == 48 + 48 + 12
    for name, tensor in unpack(packed):
        assert torch.equal(tensor, weights[name])


def test_temporary_tensors_at_the_same_address_are_told_apart() -> None:
    merged = ((f"layer.{i}", torch.full((1000,), float(i))) for i in range(50))
    assert [tensor[0].item() for _, tensor in unpack(pack(merged))] == list(range(50))


def test_contiguous_weights_are_not_copied() -> None:
    tensor = torch.zeros(1000, dtype=torch.bfloat16)
    packed = pack([("weight", tensor)])
    assert packed.tensors[0].data.ctypes.data == tensor.data_ptr()
    assert next(unpack(packed))[1].data_ptr() == tensor.data_ptr()
