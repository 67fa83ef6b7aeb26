"""What an exact resume needs of a learner: saved, and loaded again, by one process or several ranks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verl_lite.engine.algorithm.entropy import EntropyController
from verl_lite.engine.algorithm.kl import KLController
from verl_lite.engine.learner.bad_steps import BadStepGuard
from verl_lite.engine.learner.checkpoint import is_sharded, saved_state, start_saving
from verl_lite.engine.learner.critic import Critic
from verl_lite.engine.learner.optimizer import PolicyOptimizer
from verl_lite.engine.learner.policy_weights import PolicyWeights
from verl_lite.engine.learner.reference import ReferencePolicy
from verl_lite.engine.types import Tokenizer, WeightSource


class ResumableLearner(PolicyWeights):
    """What checkpoints and samplers see of a learner: the parts that change, and their state."""

    kl_controller: KLController
    entropy_controller: EntropyController
    _reference: ReferencePolicy | None
    _optimizer: PolicyOptimizer
    _guard: BadStepGuard
    _critic: Critic | None
    _generator: torch.Generator

    @property
    def ema(self) -> WeightSource | None:
        """The moving average as a source of weights; None without one."""
        average = self._reference
        return None if average is None or not average.is_average else PolicyWeights(average.policy)

    def start_saving(self, folder: Path, tokenizer: Tokenizer) -> Callable[[], None]:
        """See PolicyLearner.start_saving."""
        return start_saving(self, folder, tokenizer)

    def restore(self, folder: Path) -> None:
        """See PolicyLearner.restore; the checkpoint may come from any number of ranks."""
        if is_sharded(folder):
            from verl_lite.engine.learner.sharded_checkpoint import read_sharded

            self.load_state_dict(read_sharded(self.template(), folder))
        else:
            self.load_state_dict(saved_state(folder, dtype=next(self.policy.model.parameters()).dtype))

    def template(self) -> dict[str, Any]:
        """A state dict with every tensor that later states have; moments may be zeros."""
        self._optimizer.init_moments()
        if self._critic is not None:
            self._critic.init_moments()
        return self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments, controllers, generator."""
        trained = self._trained_state()
        state: dict[str, Any] = {
            "model": trained,
            "optimizer": self._optimizer.state_dict(),
            "kl_controller": self.kl_controller.state_dict(),
            "entropy_controller": self.entropy_controller.state_dict(),
            "num_bad_steps": self._guard.num_bad_steps,
            "generator": self._generator.get_state(),
            "critic": self._critic.state_dict() if self._critic is not None else None,
        }
        if self._reference is not None and self._reference.is_average:  # others are made again
            average = self._reference.policy.model.state_dict()
            state["ema"] = {name: average[name] for name in trained}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of `state_dict`."""
        if self._trained_state().keys() != state["model"].keys():
            raise ValueError("the state belongs to a model of another shape or with other adapters")
        self.policy.model.load_state_dict(state["model"], strict=False)
        if self._reference is not None and "ema" in state:
            self._reference.policy.model.load_state_dict(state["ema"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        self.kl_controller.load_state_dict(state["kl_controller"])
        self.entropy_controller.load_state_dict(state["entropy_controller"])
        self._guard.num_bad_steps = int(state["num_bad_steps"])
        self._generator.set_state(state["generator"])
        if self._critic is not None:
            self._critic.load_state_dict(state["critic"])

    def _trained_state(self) -> dict[str, Tensor]:
        """The weights that change: under LoRA only the adapters."""
        model = self.policy.model
        every = model.named_parameters(remove_duplicate=False)  # tied weights have two names
        frozen = {name for name, p in every if not p.requires_grad}
        return {
            name: value
            for name, value in model.state_dict().items()
            if not any(name == one or name.startswith(f"{one}.") for one in frozen)
        }
