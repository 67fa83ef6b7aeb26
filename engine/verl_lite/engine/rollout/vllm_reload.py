"""What vLLM's reload would lose, in version 0.32.0.

While it reloads, parameters are on the meta device, and a layer is filled from what passed through the weight
loaders of its parameters. A model that copies onto a parameter itself (gpt-oss: experts and sinks) fills
nothing, and its layer keeps the old weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

try:
    from vllm.model_executor.model_loader.reload import layerwise
    from vllm.model_executor.model_loader.reload.meta import CopyCounter
except ImportError:  # a vLLM that reloads in another way
    layerwise = CopyCounter = None


class CopiesAreLoaded(TorchFunctionMode):
    """Inside, a copy onto a parameter on the meta device goes through a weight loader of that parameter."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # vLLM counts what a weight loader copies: that copy is loaded already
        is_loaded = layerwise is None or isinstance(_get_current_dispatch_mode(), CopyCounter)
        if func is not Tensor.copy_ or not args[0].is_meta or is_loaded:
            return func(*args, **(kwargs or {}))
        layer, name = _owner(args[0])
        parameter: Any = getattr(layer, name)
        parameter.weight_loader = _copy
        parameter.weight_loader = layerwise.make_online_process_loader(layer, name)
        parameter.weight_loader(parameter, args[1])
        return args[0]


def _owner(tensor: Tensor) -> tuple[nn.Module, str]:
    """The layer whose parameter `tensor` is, or is a view of, and the parameter's name."""
    storage = tensor.untyped_storage()._cdata
    for layer in layerwise.LAYERWISE_INFO:
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.is_meta and parameter.untyped_storage()._cdata == storage:
                return layer, name
    raise RuntimeError(f"vLLM copies weights of shape {tuple(tensor.shape)} onto no parameter of its model")


def _copy(param: Tensor, loaded_weight: Tensor) -> None:
    param.data.copy_(loaded_weight)
