"""What a Ray worker process does for the driver: own one vLLM engine and advance it a slice at a time.

Every method is short, so that an engine that does not answer is a lost one, and so that new weights
find their place between two slices. Methods run one after the other in the order of the calls.
"""

import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from verl_lite.engine.cluster.weight_transfer import PackedWeights, unpack
from verl_lite.engine.config.algorithm import LoraConfig
from verl_lite.engine.config.train import RolloutConfig
from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest

__all__ = ["EngineActor"]

SHORTEST_SLICE_S = 0.02  # so that calls cost little beside the steps between them
LONGEST_SLICE_S = 0.25  # so that new weights and new sequences do not wait long


class EngineActor:
    """One engine of the config, with the weights in `model_path` to begin with (version 0)."""

    def __init__(
        self,
        model_path: str,
        config: RolloutConfig,
        *,
        seed: int,
        options: dict[str, Any] | None = None,
        lora: LoraConfig | None = None,
    ) -> None:
        from verl_lite.engine.rollout.vllm_engine import VllmEngine

        # with asynchronous scheduling a token may be under way while weights change: no exact versions
        exact = {"async_scheduling": False}
        self._engine = VllmEngine(model_path, config, seed=seed, options=exact | (options or {}), lora=lora)
        self._next: deque[SequenceRequest] = deque()  # without a place yet; vLLM has only what it works on

    def describe(self) -> dict[str, Any]:
        """Its dtype, process id, kind of weights, and how many sequences it works on at once.

        The first answer says that the engine has started.
        """
        return {
            "dtype": self._engine.dtype,
            "pid": os.getpid(),
            "places": self._places,
            "takes_adapters": self._engine.takes_adapters,
        }

    @property
    def _places(self) -> int:
        """One fewer than vLLM has: the canary, on which training waits, finds the last one free."""
        return max(self._engine.places - 1, 1)

    def advance(self, add: Sequence[SequenceRequest], abort: Sequence[str]) -> list[FinishedSequence]:
        """Take these in and step for a while: until something ended, the slice is over, or all is done."""
        self._engine.abort(abort)
        self._next = deque(request for request in self._next if request.id not in abort)
        self._next.extend(add)
        started, finished = time.monotonic(), []
        while True:
            while self._next and self._engine.num_unfinished < self._places:
                self._engine.add([self._next.popleft()])
            if not self._engine.num_unfinished:
                break
            finished += self._engine.step()
            elapsed = time.monotonic() - started
            if elapsed > (SHORTEST_SLICE_S if finished else LONGEST_SLICE_S):
                break
        return finished

    def load(self, weights: PackedWeights, version: int, canary_ids: Sequence[int]) -> list[float]:
        """Take new weights in; returns the canary's log-probabilities by them."""
        self._engine.load(unpack(weights), version=version)
        return self._engine.token_logprobs(canary_ids)

    def transfer(self, method: str, *arguments: Any) -> None:
        """A call of vLLM's weight transfer, by the learner; no step comes between its calls."""
        getattr(self._engine.llm, method)(*arguments)

    def weights_arrived(self, version: int, canary_ids: Sequence[int]) -> list[float]:
        """After a transfer: its version, and the canary's log-probabilities by what arrived."""
        self._engine.weights_arrived(version=version)
        return self._engine.token_logprobs(canary_ids)

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self._engine.token_logprobs(token_ids)

    def sleep(self) -> None:
        self._engine.sleep()

    def wake(self) -> None:
        self._engine.wake()
