"""The canary: after each weight sync, a fixed sequence must have the same log-probabilities on both sides.

Without it, weights that never reach the sampler go unnoticed, and training learns from an old policy. Both
sides compute log p of the same tokens; the largest difference must be within the dtype's tolerance. Smaller
updates are not detected, such as a single step at a learning rate of 1e-6 in bfloat16.
"""

import math
from collections.abc import Sequence

import torch

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.types import WeightSource
from verl_lite.errors import TrainingError

# The largest difference in log-probability (nats) between two correct implementations, by dtype.
# float32 on one CPU: 1e-6 measured; GPUs add TF32 and other summation orders.
TOLERANCES = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}


def canary_limit(config: TrainConfig) -> float:
    """The difference in log-probability (nats) at which a run with this config stops."""
    rollout = config.rollout
    if rollout.canary_tolerance is not None:
        return rollout.canary_tolerance
    if rollout.server is not None:
        return TOLERANCES[rollout.server.dtype]
    dtype = rollout.vllm.dtype if rollout.sampler == "vllm" else "auto"
    usual = "bfloat16" if torch.cuda.is_available() else "float32"
    return TOLERANCES[usual if dtype == "auto" else dtype]


class Canary:
    """The fixed sequence, and the largest difference allowed."""

    def __init__(self, token_ids: Sequence[int], *, tolerance: float) -> None:
        if len(token_ids) < 2:
            raise ValueError(f"a canary needs at least 2 tokens, got {len(token_ids)}")
        self.token_ids = list(token_ids)
        self.tolerance = tolerance

    def check(self, source: WeightSource, sampled: Sequence[float], *, version: int) -> float:
        """The largest difference between the sampler's log-probabilities and the source's.

        Raises TrainingError if it exceeds the tolerance or is nan.
        """
        return self.compare(source.token_logprobs(self.token_ids), sampled, version=version)

    def compare(self, trained: Sequence[float], sampled: Sequence[float], *, version: int) -> float:
        """Like `check`, with the learner's log-probabilities."""
        differences = [abs(a - b) for a, b in zip(trained, sampled, strict=True)]
        largest = max(differences, key=lambda d: math.inf if math.isnan(d) else d)
        # `not <=` instead of `>`: nan must fail too
        if not largest <= self.tolerance:
            position = differences.index(largest)
            raise TrainingError(
                f"the weights of version {version} did not reach the sampler: the canary's log-probabilities "
                f"differ by {largest:.3g} at token {position + 1} (learner "
                f"{trained[position]:.4f}, sampler {sampled[position]:.4f}), allowed {self.tolerance:g}. "
                "Training on would learn from a stale policy; if only the dtypes differ, set "
                "rollout.canary_tolerance"
            )
        return largest
