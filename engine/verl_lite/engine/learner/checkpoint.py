"""The learner's part of a checkpoint, written by one process and read back by any.

policy/ holds the weights (adapters merged), learner.pt the rest and any LoRA adapters. A sharded learner
also writes learner/ (see sharded_checkpoint.py).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.model.folder import save_policy
from verl_lite.engine.model.weights import named_weights
from verl_lite.engine.rundir.checkpoints import copy_of, load_tensors
from verl_lite.engine.types import Tokenizer


class _Learner(Protocol):
    policy: Policy

    def state_dict(self) -> dict[str, Any]: ...


def start_saving(learner: _Learner, folder: Path, tokenizer: "Tokenizer | None") -> Callable[[], None]:
    """Copy the learner's state now; the returned function writes the copy into `folder`."""
    model = learner.policy.model
    state = learner.state_dict()
    if not hasattr(model, "disable_adapter"):
        state.pop("model")  # policy/ holds the same weights
    return start_writing(state, model, tokenizer, folder)


def start_writing(
    state: Mapping[str, Any], model: nn.Module, tokenizer: "Tokenizer | None", folder: Path
) -> Callable[[], None]:
    """Copy `state` and the weights now; the returned function writes them to learner.pt and policy/."""
    state, weights = copy_of(state), copy_of(dict(named_weights(model)))

    def finish() -> None:
        save_policy(model, tokenizer, folder / "policy", weights=weights)
        torch.save(state, folder / "learner.pt")

    return finish


def is_sharded(folder: Path) -> bool:
    """Whether the checkpoint's learner state is sharded."""
    return (folder / "learner").is_dir()


def saved_state(folder: Path, *, dtype: torch.dtype = torch.float32) -> Mapping[str, Any]:
    """A learner's unsharded state, its weights in `dtype`; raises CheckpointError when damaged."""
    state = load_tensors(folder / "learner.pt")
    if "model" not in state:
        from transformers import AutoModelForCausalLM

        policy = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=dtype)
        state["model"] = dict(policy.state_dict())  # tied weights included
    return state
