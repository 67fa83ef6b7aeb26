"""What other models say of the policy's tokens must be finite numbers: one refusal for all of them."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from verl_lite.engine.types import TrainingSample
from verl_lite.errors import TrainingError

ADVICE = "is it the right model, in a dtype that holds its logits?"


def refuse_not_finite(
    who: str,
    samples: Sequence[TrainingSample],
    rows: Iterable[Sequence[float] | Tensor],
    *,
    may_be_impossible: bool = False,
    what: str = "log-probability",
) -> None:
    """Raise TrainingError for nan or inf in the values of a sample's tokens, or of K tokens at each.

    `who` gave them; `may_be_impossible` allows minus infinity, the log-probability of an impossible token.
    """
    for at, (sample, row) in enumerate(zip(samples, rows, strict=True)):
        values = row if isinstance(row, Tensor) else torch.from_numpy(np.asarray(row, dtype=np.float64))
        bad = ~(values < math.inf) if may_be_impossible else ~values.isfinite()  # nan is below nothing
        if bool(bad.any()):
            token, first = int(bad.nonzero()[0, 0]), float(values[bad][0])
            raise TrainingError(
                f"{who} gives a {what} of {first} at token {token} of completion {at} (prompt "
                f"{sample.group!r}): expected a finite number; {ADVICE}"
            )
