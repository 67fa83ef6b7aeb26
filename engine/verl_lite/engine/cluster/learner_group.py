"""A learner of several ranks as the trainer sees it: each call here is a call on every rank.

A transport delivers calls to the ranks: Ray actors (`ray_ranks.py`), or torchrun's processes, of which this
is rank 0 (`torchrun_ranks.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from verl_lite.engine.cluster.weight_transfer import unpack
from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.types import Tokenizer, TokenStatistics, TrainingSample, UpdateStats
from verl_lite.errors import TrainingError
from verl_lite.plugins import ScoredRollout


class Transport(Protocol):
    """Calls methods of RankWorker on every rank. Raises errors.RankLost, or what the method raised."""

    def call(self, method: str, *args: Any) -> Any:
        """Rank 0's result, once all ranks have returned."""

    def start(self, method: str, *args: Any) -> Callable[[], Any]:
        """Start a `call`; the returned function waits for it. Later calls run after it on every rank."""

    def put(self, method: str) -> Any:
        """Like `call`, but leaves the result in Ray's object store and returns a reference to it."""

    def close(self) -> None: ...


class LearnerGroup:
    """See types.PolicyLearner for the methods without a docstring."""

    def __init__(self, transport: Transport, algorithm: AlgorithmConfig) -> None:
        self._ranks = transport
        self.kl_coefficient = algorithm.kl.coefficient
        self._needs_statistics = algorithm.critic is not None or algorithm.kl.in_reward

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        if not self._needs_statistics:
            return [TokenStatistics()] * len(scored)
        stats: list[TokenStatistics] = self._ranks.call("token_statistics", scored)
        return stats

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        stats: UpdateStats = self._ranks.call("update", samples)
        self.kl_coefficient = stats.metrics["policy/kl_coefficient"]
        return stats

    def scale_learning_rate(self, scale: float) -> None:
        self._ranks.call("scale_learning_rate", scale)

    def start_saving(self, folder: Path, tokenizer: Tokenizer) -> Callable[[], None]:
        """See PolicyLearner.start_saving; every rank must be able to write to `folder`.

        The returned function raises TrainingError if the ranks wrote to another disk.
        """
        tokenizer.save_pretrained(folder / "policy")
        finish = self._ranks.start("save", folder.absolute())

        def finish_here() -> None:
            finish()
            if not (folder / "learner.pt").is_file():
                raise TrainingError(
                    f"the learner ranks wrote their part of a checkpoint, but {folder.absolute()} does "
                    "not have it: name a run folder that all nodes share with --run-dir"
                )

        return finish_here

    def restore(self, folder: Path) -> None:
        self.kl_coefficient = self._ranks.call("restore", folder.absolute())

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every (name in the model, full tensor) of the policy, read-only, on the CPU."""
        return unpack(self._ranks.call("packed_weights", False))

    def checkpoint_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights as the policy's files have them."""
        return unpack(self._ranks.call("packed_weights"))

    def put_weights(self, version: int) -> Any:
        """A reference to the packed weights; rank 0 puts them into Ray's object store."""
        return self._ranks.put("packed_weights")

    @property
    def notes(self) -> list[str]:
        notes: list[str] = self._ranks.call("notes")
        return notes

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        logprobs: list[float] = self._ranks.call("token_logprobs", list(token_ids))
        return logprobs

    def logprob_noise(self, token_ids: Sequence[int], dtype: str) -> float:
        noise: float = self._ranks.call("logprob_noise", list(token_ids), dtype)
        return noise

    def close(self) -> None:
        """Stop the ranks; the group cannot be used afterwards."""
        self._ranks.close()
