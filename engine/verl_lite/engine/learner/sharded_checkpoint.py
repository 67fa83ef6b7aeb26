"""A sharded learner's state on disk: every rank writes its shards, any number of ranks reads them.

learner/*.safetensors   the sharded tensors, by torch.distributed.checkpoint in its safetensors format,
                        whose index is JSON (that of its default format is a pickle)
learner.pt              the state's tree, with "sharded:<name>" in place of each sharded tensor

A learner in one process saves and loads the same tree with full tensors.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from verl_lite.engine.rundir.checkpoint_files import damaged
from verl_lite.engine.rundir.checkpoints import load_tensors

SHARDS = "learner"
MARK = "sharded:"


def write_sharded(
    state: Mapping[str, Any], folder: Path, *, rank: int, broadcast: Callable[[Any], Any]
) -> None:
    """Write the state, which holds DTensors; every rank calls it. `broadcast` returns rank 0's value."""
    tensors = {name: leaf for name, leaf in _leaves(state).items() if isinstance(leaf, DTensor)}
    names: Mapping[str, str] = broadcast(_first_names(tensors))
    shards = {name: tensor for name, tensor in tensors.items() if names[name] == name}
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        tree = _map(state, lambda name, leaf: MARK + names[name] if name in names else leaf)
        torch.save(tree, folder / "learner.pt")
    # last: it returns on all ranks together, so no rank reads what another has yet to write
    save(shards, storage_writer=HuggingFaceStorageWriter(str(folder / SHARDS), save_distributed=True))


def read_sharded(template: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The state in `folder`, its tensors distributed like those of `template`; every rank calls it.

    `template` is a state of the same learner, whose sharded tensors are overwritten. Raises
    CheckpointError when the state is damaged or belongs to another learner.
    """
    tree = load_tensors(folder / "learner.pt")
    wanted = {
        leaf.removeprefix(MARK): name
        for name, leaf in _leaves(tree).items()
        if isinstance(leaf, str) and leaf.startswith(MARK)
    }
    own = _leaves(template)
    shards = {name: own.get(name) for name in wanted}
    missing = [name for name, tensor in shards.items() if not isinstance(tensor, Tensor)]
    if missing:
        raise damaged(folder, ValueError(f"{missing[0]} is in it, but not in this run's learner"))
    _read(shards, folder)
    return _map(  # type: ignore[no-any-return]
        tree,
        lambda _, leaf: (
            shards[leaf.removeprefix(MARK)] if isinstance(leaf, str) and leaf.startswith(MARK) else leaf
        ),
    )


def read_policy(folder: Path) -> dict[str, Tensor]:
    """The policy's full weights and buffers by name, tied ones once; for one process, without a model."""
    tree = load_tensors(folder / "learner.pt")
    own = {f"{MARK}model/{name}": name for name in tree["model"]}
    names = {name for name, leaf in tree["model"].items() if own.get(leaf) == name}
    found = HuggingFaceStorageReader(str(folder / SHARDS)).read_metadata().state_dict_metadata
    shards: dict[str, Any] = {}
    for name in names:
        shard = found.get(f"model/{name}")
        if not isinstance(shard, TensorStorageMetadata):
            raise damaged(folder, ValueError(f"the shards of {name} are missing"))
        shards[f"model/{name}"] = torch.empty(shard.size, dtype=shard.properties.dtype)
    _read(shards, folder)
    whole = {name: leaf for name, leaf in tree["model"].items() if isinstance(leaf, Tensor)}
    return {name: shards[f"model/{name}"] for name in sorted(names)} | whole


def _read(shards: dict[str, Any], folder: Path) -> None:
    """Fill the tensors, by name, from the folder's shards."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*load in a single process.*")  # it may be one
            load(shards, storage_reader=HuggingFaceStorageReader(str(folder / SHARDS)))
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise damaged(folder, error) from error
    except CheckpointException as error:
        raise damaged(folder, ValueError(str(next(iter(error.failures.values()))[0]))) from error


def distribute_like(template: Any, state: Any) -> Any:
    """`state` with each full tensor sharded like its counterpart in `template`."""
    own = _leaves(template)

    def shard(name: str, leaf: Any) -> Any:
        like = own.get(name)
        if not isinstance(like, DTensor):
            return leaf
        return distribute_tensor(leaf.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    return _map(state, shard)


def _first_names(tensors: Mapping[str, DTensor]) -> dict[str, str]:
    """Each name's tensor under its first name: tied weights are written once."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {
        name: first.setdefault((tensor.to_local().data_ptr(), tensor.shape), name)
        for name, tensor in tensors.items()
    }


def _leaves(tree: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    _map(tree, lambda name, leaf: found.__setitem__(name, leaf))
    return found


def _map(tree: Any, function: Callable[[str, Any], Any], at: str = "") -> Any:
    """The tree with every leaf replaced by function("path/to/it", leaf)."""
    if isinstance(tree, Mapping):
        return {key: _map(value, function, f"{at}/{key}" if at else str(key)) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_map(value, function, f"{at}/{i}") for i, value in enumerate(tree))
    return function(at, tree)
