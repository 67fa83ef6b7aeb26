"""Sums of metrics that stay on their device until they are read: a number read at once waits for the GPU."""

from collections.abc import Mapping

import torch
from torch import Tensor


class DeviceSums:
    """Running sums by name, in float64."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add scalars; a name may be new."""
        for name, value in metrics.items():
            wide = value.detach().double()
            self._sums[name] = self._sums[name] + wide if name in self._sums else wide

    def read(self, **also: Tensor) -> dict[str, float]:
        """Every sum, and the scalars `also`, as numbers: one wait and one copy for all."""
        named = {**self._sums, **{name: value.detach().double() for name, value in also.items()}}
        if not named:
            return {}
        device = next(iter(named.values())).device
        together = torch.stack([value.to(device) for value in named.values()])
        return dict(zip(named, together.tolist(), strict=True))
