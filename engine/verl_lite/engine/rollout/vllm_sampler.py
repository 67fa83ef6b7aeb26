"""Rollouts from vLLM in this process: one request per completion, each with its own seed."""

from collections.abc import Callable, Sequence
from typing import Self

from verl_lite.engine.config.learner import LoraConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest
from verl_lite.engine.rollout.streams import SequenceStream, StreamSampler
from verl_lite.engine.rollout.vllm_engine import VllmEngine
from verl_lite.engine.types import Tokenizer, WeightSource, weights_of
from verl_lite.plugins import SamplerSettings


class VllmSampler(StreamSampler):
    """A Sampler on vLLM. `model_path` is loaded once; later weights come from the learner.

    With `lora`, only the adapters are synced, if vLLM supports them for the model.
    """

    def __init__(
        self,
        model_path: str,
        tokenizer: Tokenizer,
        config: RolloutConfig,
        *,
        canary_ids: Sequence[int],
        seed: int,
        end_ids: Sequence[int] = (),
        lora: LoraConfig | None = None,
    ) -> None:
        super().__init__(tokenizer, end_ids)
        self.engine = VllmEngine(model_path, config, seed=seed, loads_midway=False, lora=lora)
        self.canary = Canary(canary_ids, dtype=self.engine.dtype, tolerance=config.canary_tolerance)

    @property
    def version(self) -> int:
        return self.engine.version

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> SequenceStream:
        return _EngineStream(self.engine, check)

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self.engine.token_logprobs(token_ids)

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        self.engine.load(weights_of(source, adapters=self.engine.takes_adapters), version=version)
        return self.canary.check(source, self.token_logprobs(self.canary.token_ids), version=version)

    def sleep(self) -> None:
        self.engine.sleep()

    def wake(self) -> None:
        self.engine.wake()

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


class _EngineStream:
    """The sequences of an engine that has only one caller."""

    def __init__(self, engine: VllmEngine, check: Callable[[], None]) -> None:
        self._engine = engine
        self._check = check

    @property
    def num_unfinished(self) -> int:
        return self._engine.num_unfinished

    def add(self, requests: Sequence[SequenceRequest]) -> None:
        self._engine.add(requests)

    def step(self) -> list[FinishedSequence]:
        """One token for every running sequence."""
        self._check()
        return self._engine.step()

    def wake(self) -> None:
        """Steps are short."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.abort_all()  # also if the caller stops early (Ctrl-C)
