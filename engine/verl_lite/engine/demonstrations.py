"""What a step learns from beside its rewards: teachers, their saved rollouts, demonstrations.

Which ones a step takes follows from the seed and the step alone, so a resumed run continues exactly.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Generic, TypeVar

from verl_lite.engine.algorithm.entropy import limit_covariance
from verl_lite.engine.config.sft import RowsPerStepConfig
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.sft.examples import SFTExample
from verl_lite.engine.sft.loss import as_sample
from verl_lite.engine.sft.saved_rollouts import SavedRollout
from verl_lite.engine.teachers import Teachers
from verl_lite.engine.types import ComponentName, PolicyLearner, TeacherTokens, TrainingSample
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.composite.schedule import weight_at

Example = TypeVar("Example", bound=SFTExample)


class StepRows(Generic[Example]):
    """`rows_per_step` rows for each step, in endless epochs with an order of their own; none without rows."""

    def __init__(
        self, config: RowsPerStepConfig | None, rows: Sequence[Example] | None, *, seed: int, name: str
    ) -> None:
        self._config, self._rows = config, rows or ()
        self._seed = derive_seed(seed, name)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> list[int]:
        return random.Random(f"{self._seed}:{epoch}").sample(range(len(self._rows)), len(self._rows))

    def of(self, step: int) -> tuple[list[Example], float]:
        """The rows of `step` and their weight; none where it is 0."""
        weight = weight_at(self._config.weight, step) if self._config is not None else 0.0
        if self._config is None or not weight:
            return [], 0.0
        first = step * self._config.rows_per_step
        places = (divmod(first + at, len(self._rows)) for at in range(self._config.rows_per_step))
        return [self._rows[self._order(epoch)[place]] for epoch, place in places], weight


def demonstrated(rows: StepRows[SFTExample], step: int) -> list[TrainingSample]:
    """The demonstrations of `step`: the component `cross_entropy`."""
    examples, weight = rows.of(step)
    return [_supervised(example, "cross_entropy", weight) for example in examples]


def from_saved(
    rows: StepRows[SavedRollout], teachers: Teachers, step: int
) -> tuple[list[TrainingSample], dict[str, float]]:
    """The saved rollouts of `step`, and what the teachers that wrote them reach themselves.

    The component is `forward_kl` where a teacher gives more than the sampled token, else `cross_entropy`.
    The metric `distillation/teacher_cross_entropy` is the mean -log p_teacher per token, where it was saved.
    """
    examples, weight = rows.of(step)
    plain = [_supervised(example, "cross_entropy", weight) for example in examples]
    answers = teachers.judge(plain, [example.source for example in examples])
    samples = [
        before if answer is None else _supervised(example, "forward_kl", weight, teacher=answer)
        for before, example, answer in zip(plain, examples, answers, strict=True)
    ]
    known = [
        (e.teacher_logprob, sum(map(bool, e.weights_T))) for e in examples if e.teacher_logprob is not None
    ]
    if not known:
        return samples, {}
    return samples, {
        "distillation/teacher_cross_entropy": -sum(p for p, _ in known) / sum(count for _, count in known)
    }


def _supervised(
    example: SFTExample, component: ComponentName, weight: float, *, teacher: TeacherTokens | None = None
) -> TrainingSample:
    sample, weights_T = as_sample(example)
    components = {component: [weight * own for own in weights_T]}
    return replace(sample, loss_mask_T=(), components=components, teacher=teacher)


class LearningSignals:
    """Everything that changes the samples of a step, or adds some, after their advantages are known."""

    def __init__(self, prepared: PreparedRun, learner: PolicyLearner) -> None:
        config, seed = prepared.config, prepared.config.seed
        self._entropy, self._seed = config.algorithm.entropy, seed
        self._teachers = Teachers(config, prepared.tokenizer, prepared.template, learner)
        self._shown = StepRows(config.demonstrations, prepared.demonstrated, seed=seed, name="demonstrations")
        self._saved = StepRows(
            config.distillation.rollouts, prepared.saved_rollouts, seed=seed, name="saved rollouts"
        )

    def apply(
        self, samples: Sequence[TrainingSample], rows: Sequence[ScoredRollout], *, step: int
    ) -> tuple[list[TrainingSample], list[TrainingSample], dict[str, float]]:
        """(the samples of `rows`, further ones, metrics)."""
        seed = derive_seed(self._seed, "covariance", step)
        own, taught = self._teachers.annotate(
            limit_covariance(samples, self._entropy, seed=seed), rows, step=step
        )
        saved, judged = from_saved(self._saved, self._teachers, step)
        return own, [*saved, *demonstrated(self._shown, step)], {**taught, **judged}

    def close(self) -> None:
        self._teachers.close()
