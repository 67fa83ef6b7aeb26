"""Several learner ranks over torch.distributed: the collectives, and how a module is sharded.

Gradients are *summed* over ranks: the loss's token weights are computed over the global mini-batch, so
each rank's gradient is its part of the sum. FSDP2 by default divides by the number of ranks.
"""

import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.utils._pytree import tree_map_only

from verl_lite.engine.config.learner import ParallelName
from verl_lite.engine.learner.ranks import Ranks

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
BUCKET_BYTES = 64 * 2**20


class RankGroup(Ranks):
    """This process as a rank of the default process group, which must be initialised.

    parallel  fsdp: each rank holds a shard of every weight, gradient and moment; replicated: all of each
    device    where this rank computes
    """

    def __init__(self, parallel: ParallelName, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.device = device
        self.is_sharded = parallel == "fsdp"
        self._mesh = init_device_mesh(device.type, (self.size,)) if self.is_sharded else None

    def distribute(self, module: nn.Module) -> None:
        """Shard the module layer by layer (fsdp), or broadcast rank 0's weights (replicated)."""
        if not self.is_sharded:
            module.to(self.device)
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.data, src=0)
            return
        layers = getattr(getattr(module, "model", None), "layers", ())
        for layer in layers:
            fully_shard(layer, mesh=self._mesh)
        # the backward pass starts with the root's weights (embedding, head)
        fully_shard(module, mesh=self._mesh, reshard_after_forward=False)
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)
        module._call_function = types.MethodType(_call_function, module)  # type: ignore[assignment]
        register_fsdp_forward_method(module, "_call_function")

    def forward(self, module: nn.Module, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if not isinstance(module, FSDPModule):
            return function(*args, **kwargs)
        result: R = module._call_function(function, *args, **kwargs)  # type: ignore[operator]
        if not torch.is_grad_enabled():
            module.reshard()  # else the full weights, without a backward pass, survive the next update
        return result

    def all_reduce_max(self, count: int) -> int:
        largest = torch.tensor(count)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def all_reduce_sum(self, values: Mapping[str, float]) -> dict[str, float]:
        total: dict[str, float] = defaultdict(float)
        for part in self._gather(dict(values)):
            for name, value in part.items():
                total[name] += value
        return dict(total)

    def all_gather(self, parts: Mapping[int, T]) -> dict[int, T]:
        return {key: value for part in self._gather(dict(parts)) for key, value in part.items()}

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.is_sharded:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _gather(self, value: T) -> list[T]:
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, value)
        return parts


def _call_function(module: nn.Module, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # FSDP puts its backward hook on the output, and a view could lose it
    return tree_map_only(Tensor, lambda t: t.clone() if t._is_view() else t, function(*args, **kwargs))


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one dtype, about BUCKET_BYTES together."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size >= BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket
