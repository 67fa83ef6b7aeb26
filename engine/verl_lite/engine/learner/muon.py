"""Muon (torch's own) for the hidden matrices and AdamW for the rest, as one optimiser.

Muon orthogonalises the momentum of a matrix (Jordan et al. 2024; arXiv:2502.16982). Embeddings, the output
head, norms and biases stay with AdamW. `match_rms_adamw` scales Muon's steps to the size of AdamW's, so one
learning rate and schedule serve both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from verl_lite.engine.config.learner import OptimizerConfig


def hidden_matrices(model: nn.Module) -> set[int]:
    """The ids of the parameters that Muon takes: matrices that are neither embedding nor output head."""
    outer = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    outer |= set() if head is None else {id(p) for p in head.parameters()}
    return {id(p) for p in model.parameters() if p.ndim == 2 and id(p) not in outer}


class MuonWithAdamW:
    """What PolicyOptimizer needs of an optimiser, for both parts."""

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        config: OptimizerConfig,
        *,
        adamw: torch.optim.Optimizer | None,
    ) -> None:
        self._matrices = matrices
        self._muon = torch.optim.Muon(
            self._matrices,
            lr=config.learning_rate,
            momentum=config.muon_momentum,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adamw = adamw

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        rest = [] if self.adamw is None else self.adamw.param_groups
        return [*self._muon.param_groups, *rest]

    def step(self) -> None:
        self._muon.step()  # type: ignore[no-untyped-call]
        if self.adamw is not None:
            self.adamw.step()

    def init_momenta(self) -> None:
        """Zero momenta for matrices without any."""
        for matrix in self._matrices:
            if not self._muon.state[matrix]:
                self._muon.state[matrix] = {"momentum_buffer": torch.zeros_like(matrix)}

    def state_dict(self) -> dict[str, Any]:
        rest = {} if self.adamw is None else self.adamw.state_dict()
        return {"muon": self._muon.state_dict(), "adamw": rest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._muon.load_state_dict(state["muon"])
        if self.adamw is not None:
            self.adamw.load_state_dict(state["adamw"])
