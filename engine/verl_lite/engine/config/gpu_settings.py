"""The settings that mean something only on a GPU, in two tables of their names.

At its default each of them runs everywhere; other values need a GPU, or do nothing without one.
"""

from collections.abc import Iterable
from operator import attrgetter

from verl_lite.plugins.config_file import ConfigModel

NEED_A_GPU = (
    "rollout.weight_transfer",
    "rollout.vllm.quantization",
    "rollout.vllm.tensor_parallel_size",
    "cluster.rewards.gpus",
)
IDLE_WITHOUT_A_GPU = (
    "rollout.vllm.gpu_memory_utilization",
    "rollout.vllm.enforce_eager",
    "rollout.vllm.sleep",
    "learner.offload_activations",
    "learner.optimizer.offload",
)


def changed(config: ConfigModel, paths: Iterable[str], *, section: str = "") -> list[str]:
    """Those of `paths` not at their default, as name=value. `config` is the whole tree, or its `section`."""
    found = []
    for path in paths:
        if not path.startswith(section):
            continue
        parent, _, name = path.removeprefix(section).lstrip(".").rpartition(".")
        holder = attrgetter(parent)(config) if parent else config
        value = getattr(holder, name)
        if value != type(holder).model_fields[name].default:
            found.append(f"{path}={str(value).lower() if isinstance(value, bool) else value}")
    return found
