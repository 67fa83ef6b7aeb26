"""Rollouts from vLLM in this process: one request per completion, each with its own seed.

A prompt's group is yielded when its last completion ends, so rewards are computed during generation.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from verl_lite.engine.config.algorithm import LoraConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.requests import GroupBuilder
from verl_lite.engine.rollout.vllm_engine import VllmEngine
from verl_lite.engine.types import PromptRow, Tokenizer, WeightSource, never_stop, weights_of
from verl_lite.plugins import Rollout, SamplerSettings


class VllmSampler:
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
        decode = partial(tokenizer.decode, skip_special_tokens=True)
        self._build_groups = partial(GroupBuilder, decode=decode, end_ids=end_ids)
        self.engine = VllmEngine(model_path, config, seed=seed, loads_midway=False, lora=lora)
        self.canary = Canary(canary_ids, dtype=self.engine.dtype, tolerance=config.canary_tolerance)

    @property
    def version(self) -> int:
        return self.engine.version

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. Each request's seed is derived from `settings.seed`."""
        groups = self._build_groups(prompts, num_samples=num_samples, settings=settings)
        try:
            self.engine.add(groups.requests)
            while self.engine.num_unfinished:
                check()
                yield from groups.completed(self.engine.step())
        finally:
            self.engine.abort_all()  # also if the caller stops early (Ctrl-C)

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
