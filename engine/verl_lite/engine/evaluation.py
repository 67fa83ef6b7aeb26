"""Held-out accuracy: greedy answers, scored by the same rewards as in training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.observe.rollout_metrics import fraction_right
from verl_lite.engine.rollout.scoring import scoring
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.types import PolicyLearner, PromptRow, Sampler, WeightSource, never_stop
from verl_lite.plugins import SamplerSettings
from verl_lite.plugins.scorer import Scorer


@dataclass(frozen=True, slots=True)
class HeldOutEvaluator:
    """Measures on `prompts` the sampler's current weights, or the moving average of `learner`."""

    sampler: Sampler
    scorer: Scorer
    prompts: Sequence[PromptRow]
    config: TrainConfig
    learner: PolicyLearner

    def evaluate(self, step: int, *, check: Callable[[], None] = never_stop) -> dict[str, float]:
        """Metrics of one greedy answer per prompt, with the template, sampler and rewards of training.

        Accuracy is over all rows, the mean reward over the rows that have one. An exception from `check`
        ends the evaluation, as in Sampler.generate.
        """
        if self.config.evaluation.weights == "policy":
            return self._evaluate(step, check)
        average = getattr(self.learner, "ema", None)
        assert average is not None, "the config refuses it"
        try:
            self._load(average, step)
            return self._evaluate(step, check)
        finally:
            self._load(self.learner, step)

    def _load(self, source: WeightSource, step: int) -> None:
        with clear_memory_errors("loading the new weights", step=step):
            self.sampler.wake()
            self.sampler.load_weights(source, version=step)

    def _evaluate(self, step: int, check: Callable[[], None]) -> dict[str, float]:
        config = self.config
        settings = SamplerSettings(temperature=0.0, max_new_tokens=config.rollout.max_new_tokens, seed=0)
        with clear_memory_errors("generating", step=step):
            with scoring(self.scorer, step=step) as session:
                for group in self.sampler.generate(
                    self.prompts, num_samples=1, settings=settings, check=check
                ):
                    session.add(group)
            rows = session.finish().rows
        rewards = [row.reward for row in rows if row.reward is not None]
        num_tokens = sum(row.rollout.num_sampled for row in rows)
        return {
            "evaluation/accuracy": fraction_right(rows, config.accuracy_reward, config.evaluation.right_at),
            "evaluation/reward_mean": sum(rewards) / len(rewards) if rewards else float("nan"),
            "evaluation/completion_tokens_mean": num_tokens / len(rows),
        }
