"""The learner as the trainer sees it, when it is several ranks: one call here is a call on every rank.

How calls reach the ranks is the transport's: Ray actors (`ray_ranks.py`), or processes that torchrun
started, of which this one is the first (`torchrun_ranks.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from verl_lite.engine.cluster.weight_transfer import unpack
from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.types import TokenStatistics, TrainingSample, UpdateStats
from verl_lite.errors import TrainingError
from verl_lite.plugins import ScoredRollout

__all__ = ["LearnerGroup", "Transport"]


class Transport(Protocol):
    """Calls a method of RankWorker on every rank. Raises errors.RankLost, or the error the method raised."""

    def call(self, method: str, *args: Any) -> Any:
        """What rank 0's method returned, once every rank's has."""
        ...

    def start(self, method: str, *args: Any) -> Callable[[], Any]:
        """As `call`, which what it returns finishes; later calls come after it on every rank."""
        ...

    def put(self, method: str) -> Any:
        """As `call`, with the result left in Ray's object store: a reference to it."""
        ...

    def close(self) -> None: ...


class LearnerGroup:
    """See types.PolicyLearner for the methods without a docstring."""

    def __init__(self, transport: Transport, algorithm: AlgorithmConfig) -> None:
        self._ranks = transport
        self._kl_coefficient = algorithm.kl.coefficient
        self._needs_statistics = algorithm.critic is not None or algorithm.kl.in_reward

    @property
    def kl_coefficient(self) -> float:
        return self._kl_coefficient

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        if not self._needs_statistics:
            return [TokenStatistics()] * len(scored)
        stats: list[TokenStatistics] = self._ranks.call("token_statistics", scored)
        return stats

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        stats: UpdateStats = self._ranks.call("update", samples)
        self._kl_coefficient = stats.metrics["policy/kl_coefficient"]
        return stats

    def scale_learning_rate(self, scale: float) -> None:
        self._ranks.call("scale_learning_rate", scale)

    def start_saving(self, folder: Path, tokenizer: Any) -> Callable[[], None]:
        """As PolicyLearner.start_saving; `folder` must be one that every rank can write to.

        Finishing raises TrainingError where the ranks wrote to one of the same name on another disk.
        """
        tokenizer.save_pretrained(folder / "policy")
        finish = self._ranks.start("save", folder.absolute())

        def finish_here() -> None:
            finish()
            if not (folder / "learner.pt").is_file():
                raise TrainingError(
                    f"the learner ranks wrote their part of a checkpoint, but {folder.absolute()} has none "
                    "of it: name a run's folder that all nodes share with --run-dir"
                )

        return finish_here

    def restore(self, folder: Path) -> None:
        self._kl_coefficient = self._ranks.call("restore", folder.absolute())

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every (Hugging Face parameter name, full tensor) of the policy, on the CPU: only read them."""
        return unpack(self._ranks.call("packed_weights"))

    def put_weights(self, version: int) -> Any:
        """A reference to the packed weights in Ray's object store, put there by rank 0."""
        return self._ranks.put("packed_weights")

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        logprobs: list[float] = self._ranks.call("token_logprobs", list(token_ids))
        return logprobs

    def close(self) -> None:
        """End the ranks; the group cannot be used afterwards."""
        self._ranks.close()
