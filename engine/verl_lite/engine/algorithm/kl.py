"""KL to the reference policy from sampled tokens, and the controller of its coefficient.

Departures: k3 in the loss is differentiated as it stands (like GRPO, arXiv:2402.03300 eq. 4); its gradient
is that of the *forward* KL, estimated on policy samples. `ratio_weighted` multiplies k1 or k3 by the ratio
with its gradient; the gradient is then that of KL(policy || reference) (DeepSeek-V3.2, arXiv:2512.02556).
k2 alone has that gradient in expectation. The gradient of k1 alone is 0 in expectation, and k2 times the
ratio is neither KL: the config refuses both. The controller is that of Ziegler et al., arXiv:1909.08593
sec. 2.2.
"""

from dataclasses import dataclass

from torch import Tensor

from verl_lite.engine.config.algorithm import KLConfig


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: str) -> Tensor:
    """An estimate of KL(policy || reference) at each sampled token, in nats (Schulman 2020).

    With r = p_ref / p:  k1 = -log r (unbiased),  k2 = (log r)^2 / 2,  k3 = r - 1 - log r (unbiased, >= 0).

    >>> import torch
    >>> [round(float(kl_estimate(torch.tensor(0.0), torch.tensor(-0.5), k)), 6) for k in ("k1", "k2", "k3")]
    [0.5, 0.125, 0.106531]
    """
    log_r = ref_logprobs - logprobs
    if estimator == "k1":
        return -log_r
    if estimator == "k2":
        return log_r.square() / 2
    return log_r.clamp(max=20.0).exp() - 1 - log_r


@dataclass
class KLController:
    """The coefficient: fixed, or moved so that the KL per completion approaches `target`."""

    config: KLConfig
    coefficient: float = 0.0

    def __post_init__(self) -> None:
        self.coefficient = self.config.coefficient

    def update(self, kl_per_completion: float, *, num_samples: int) -> None:
        """Multiply by 1 + error * samples / horizon, the relative error clipped to +-0.2."""
        if self.config.target is None:
            return
        error = max(-0.2, min(0.2, kl_per_completion / self.config.target - 1.0))
        self.coefficient *= 1.0 + error * num_samples / self.config.horizon_samples

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from what a checkpoint kept."""
        self.coefficient = float(state["coefficient"])
