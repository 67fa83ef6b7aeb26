"""A Ray actor that owns one vLLM engine and advances it one time slice per call.

Every method is short, so a missing answer means that the engine is lost, and new weights load between two
slices. Methods run one at a time, in call order.
"""

import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from verl_lite.engine.cluster.weight_transfer import PackedWeights, unpack
from verl_lite.engine.config.learner import LoraConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest

MIN_SLICE_S = 0.02  # long enough that calls cost little compared with decoding
MAX_SLICE_S = 0.25  # short enough that new weights and sequences do not wait long


class EngineActor:
    """One engine, loaded from `model_path` as version 0."""

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

        # with asynchronous scheduling a token may be in flight while weights change: its version is unknown
        exact = {"async_scheduling": False}
        self._engine = VllmEngine(model_path, config, seed=seed, options=exact | (options or {}), lora=lora)
        self._waiting: deque[SequenceRequest] = (
            deque()
        )  # for a slot; vLLM is given only what it can decode now

    def describe(self) -> dict[str, Any]:
        """dtype, process id, kind of weights, slots. The first answer means that the engine has started."""
        return {
            "dtype": self._engine.dtype,
            "pid": os.getpid(),
            "num_slots": self._num_slots,
            "takes_adapters": self._engine.takes_adapters,
        }

    @property
    def _num_slots(self) -> int:
        """One fewer than vLLM has: the canary, which training waits for, always finds a free slot."""
        return max(self._engine.places - 1, 1)

    def advance(self, add: Sequence[SequenceRequest], abort: Sequence[str]) -> list[FinishedSequence]:
        """Abort and add these, then decode until a sequence finishes, the slice ends, or nothing is left."""
        self._engine.abort(abort)
        self._waiting = deque(request for request in self._waiting if request.id not in abort)
        self._waiting.extend(add)
        started, finished = time.monotonic(), []
        while True:
            while self._waiting and self._engine.num_unfinished < self._num_slots:
                self._engine.add([self._waiting.popleft()])
            if not self._engine.num_unfinished:
                break
            finished += self._engine.step()
            elapsed = time.monotonic() - started
            if elapsed > (MIN_SLICE_S if finished else MAX_SLICE_S):
                break
        return finished

    def load(self, weights: PackedWeights, version: int, canary_ids: Sequence[int]) -> list[float]:
        """Load new weights. Returns the canary's log-probabilities under them."""
        self._engine.load(unpack(weights), version=version)
        return self._engine.token_logprobs(canary_ids)

    def transfer(self, method: str, *arguments: Any) -> None:
        """Make one call of vLLM's weight transfer for the learner. The engine must not step meanwhile."""
        getattr(self._engine.llm, method)(*arguments)

    def weights_arrived(self, version: int, canary_ids: Sequence[int]) -> list[float]:
        """Set the version after a transfer. Returns the canary's log-probabilities under the new weights."""
        self._engine.weights_arrived(version=version)
        return self._engine.token_logprobs(canary_ids)

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self._engine.token_logprobs(token_ids)

    def sleep(self) -> None:
        self._engine.sleep()

    def wake(self) -> None:
        self._engine.wake()
