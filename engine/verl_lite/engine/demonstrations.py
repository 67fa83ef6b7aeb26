"""Supervised rows beside the rollouts of a step: tokens of the loss component `cross_entropy`.

Which rows a step takes follows from the seed and the step alone, so a resumed run continues exactly.
"""

from collections.abc import Sequence

from verl_lite.engine.config.sft import DemonstrationsConfig
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.sft.data import SFTData
from verl_lite.engine.sft.loss import as_sample
from verl_lite.engine.sft.stream import SFTStream
from verl_lite.engine.types import TrainingSample
from verl_lite.plugins.composite.schedule import weight_at


class Demonstrations:
    """The demonstrations of a run; none without data."""

    def __init__(self, config: DemonstrationsConfig | None, data: SFTData | None, *, seed: int) -> None:
        self._config = config
        self._data = data
        self._seed = derive_seed(seed, "demonstrations")
        self._start()

    def _start(self) -> None:
        self._step = 0
        self._stream = None if self._data is None else SFTStream(self._data.sources, seed=self._seed)

    def samples(self, step: int) -> Sequence[TrainingSample]:
        """The rows of `step`, weighted by the schedule; none where the weight is 0."""
        if self._config is None or self._stream is None:
            return []
        if step < self._step:
            self._start()
        assert self._stream is not None
        for _ in range(step - self._step + 1):
            examples = self._stream.next(self._config.rows_per_step)
        self._step = step + 1
        weight = weight_at(self._config.weight, step)
        return [_demonstration(*as_sample(example), weight=weight) for example in examples] if weight else []


def _demonstration(sample: TrainingSample, weights_T: Sequence[float], *, weight: float) -> TrainingSample:
    zeros = [0] * len(sample.completion_ids)
    return TrainingSample(
        prompt_ids=sample.prompt_ids,
        completion_ids=sample.completion_ids,
        sampler_logprobs_T=(),
        advantages_T=zeros,
        loss_mask_T=zeros,
        components={"cross_entropy": [weight * own for own in weights_T]},
    )
