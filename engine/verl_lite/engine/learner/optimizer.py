"""AdamW, or Muon beside it: schedule, clipping; a step with nan or inf in its gradients is skipped."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.config.learner import OptimizerConfig
from verl_lite.engine.learner.muon import MuonWithAdamW, hidden_matrices
from verl_lite.engine.model.quantization import adamw_8bit
from verl_lite.engine.model.weights import base_model, full_tensor
from verl_lite.errors import ConfigError


def learning_rate_factor(step: int, config: OptimizerConfig, total_steps: int) -> float:
    """The fraction of the learning rate at `step` (0-based): linear warm-up, then the schedule.

    Warm-up starts above 0: step 0 of a warm-up of 4 gives 1/4. The schedule reaches `min_lr_fraction` at
    the last step.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    first = decay_start(config, total_steps) - 1 if config.schedule == "wsd" else config.warmup_steps
    span = max(total_steps - 1 - first, 1)
    progress = max(min((step - first) / span, 1.0), 0.0)
    if config.schedule in ("linear", "wsd"):
        shape = 1.0 - progress
    else:
        shape = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.min_lr_fraction + (1.0 - config.min_lr_fraction) * shape


def decay_start(config: OptimizerConfig, total_steps: int) -> int:
    """The first step of wsd's decay phase: of ten steps at decay_fraction=0.2, steps 8 and 9 decay."""
    return max(total_steps - round(config.decay_fraction * total_steps), config.warmup_steps)


class PolicyOptimizer:
    """One call per step: check, clip, schedule, update, zero the gradients."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        config: OptimizerConfig,
        *,
        total_steps: int,
        hidden: Collection[int] = (),
    ) -> None:
        """`hidden` are the ids of the parameters that Muon takes (see muon.hidden_matrices)."""
        self._config = config
        self._total_steps = total_steps
        self._trained = [p for p in parameters if p.requires_grad]
        # With offload the optimiser works on copies in CPU memory.
        self._parameters = self._trained
        if config.offload:
            self._parameters = [nn.Parameter(_host_like(p).copy_(p.detach())) for p in self._trained]
        if not self._parameters:
            raise ConfigError("the model has no trainable parameters: nothing to update")
        pairs = list(zip(self._trained, self._parameters, strict=True))
        matrices = [own for parameter, own in pairs if config.name == "muon" and id(parameter) in hidden]
        self._rest = [own for own in self._parameters if not any(own is matrix for matrix in matrices)]
        if config.name == "muon":
            adamw = _adamw(self._rest, config) if self._rest else None
            self._adam: torch.optim.Optimizer | MuonWithAdamW = MuonWithAdamW(matrices, config, adamw=adamw)
        else:
            self._adam = _adamw(self._parameters, config)
        self.num_steps = 0
        self.rate_scale = 1.0  # below 1 after a rollback

    @classmethod
    def of_model(cls, model: nn.Module, config: OptimizerConfig, *, total_steps: int) -> "PolicyOptimizer":
        """For the trained parameters of a causal model; Muon, if configured, takes its hidden matrices."""
        hidden = hidden_matrices(base_model(model))
        return cls(model.parameters(), config, total_steps=total_steps, hidden=hidden)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        factor = learning_rate_factor(self.num_steps, self._config, self._total_steps)
        return self._config.learning_rate * factor * self.rate_scale

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients, on their device; 0 without any."""
        gradients = [p.grad for p in self._trained if p.grad is not None]
        if not gradients:
            return torch.zeros((), device=self._trained[0].device)
        return full_tensor(nn.utils.get_total_norm(gradients))

    def step(self, norm: float | None = None) -> tuple[float, bool]:
        """Update if the gradients are finite. Returns (norm before clipping, whether it is finite).

        `norm`: what `gradient_norm` gave, if it was read already.
        """
        on_device = self.gradient_norm()
        norm = float(on_device) if norm is None else norm
        finite = math.isfinite(norm)
        if finite:
            if self._config.max_grad_norm is not None:
                nn.utils.clip_grads_with_norm_(self._trained, self._config.max_grad_norm, on_device)
            if self._config.offload:
                self._move_gradients()
            for group in self._adam.param_groups:
                group["lr"] = self.learning_rate
            self._adam.step()
            self.num_steps += 1
            if self._config.offload:
                self._copy_back()
        self.zero_grad()
        return norm, finite

    def zero_grad(self) -> None:
        for parameter in (*self._trained, *self._parameters):
            parameter.grad = None

    def _move_gradients(self) -> None:
        """Copy the gradients into pinned memory, all at once, and wait for them."""
        for parameter, host in zip(self._trained, self._parameters, strict=True):
            host.grad = None if parameter.grad is None else _host_like(parameter.grad)
            if host.grad is not None and parameter.grad is not None:
                host.grad.copy_(parameter.grad, non_blocking=True)
        if self._trained[0].is_cuda:
            torch.cuda.current_stream().synchronize()

    @torch.no_grad()
    def _copy_back(self) -> None:
        for parameter, host in zip(self._trained, self._parameters, strict=True):
            parameter.copy_(host, non_blocking=True)

    def init_moments(self) -> None:
        """Create zero moments for parameters without any, to read a state into."""
        adam = self._adam
        if isinstance(adam, MuonWithAdamW):
            adam.init_momenta()
            if adam.adamw is None:
                return
            adam = adam.adamw
        for parameter in self._rest:
            if not adam.state[parameter]:
                adam.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self._adam.state_dict(), "num_steps": self.num_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._adam.load_state_dict(state["adam"])
        self.num_steps = int(state["num_steps"])
        if self._config.offload:  # the model has the loaded weights: update the copies
            for parameter, host in zip(self._trained, self._parameters, strict=True):
                host.data.copy_(parameter.data)


def _host_like(tensor: Tensor) -> Tensor:
    """Empty CPU memory for a copy of the tensor; pinned if it is on a GPU."""
    return torch.empty_like(tensor, device="cpu", requires_grad=False, pin_memory=tensor.is_cuda)


def _adamw(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]  # norms and biases do not decay
    groups = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((matrices, config.weight_decay), (vectors, 0.0))
        if group
    ]
    options: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas, "eps": config.eps}
    if config.bits == 8:
        return adamw_8bit(groups, options)
    return torch.optim.AdamW(groups, fused=True, **options)
