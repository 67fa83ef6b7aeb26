"""Held-out accuracy: greedy answers, scored by the same rewards as in training."""

from collections.abc import Callable, Sequence

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.observe.rollout_metrics import fraction_right
from verl_lite.engine.rollout.scoring import scoring
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.types import PromptRow, Sampler, never_stop
from verl_lite.plugins import SamplerSettings
from verl_lite.plugins.scorer import Scorer


class HeldOutEvaluator:
    """Measures the sampler's current weights on `prompts`."""

    def __init__(
        self, sampler: Sampler, scorer: Scorer, prompts: Sequence[PromptRow], config: TrainConfig
    ) -> None:
        self._sampler = sampler
        self._scorer = scorer
        self._prompts = prompts
        self._config = config

    def evaluate(self, step: int, *, check: Callable[[], None] = never_stop) -> dict[str, float]:
        """One greedy answer per prompt, with training's template, sampler and rewards: the metrics.

        Accuracy is over all rows, the mean reward over those that have one. What `check` raises, as in
        Sampler.generate, ends it.
        """
        config = self._config
        settings = SamplerSettings(temperature=0.0, max_new_tokens=config.rollout.max_new_tokens, seed=0)
        with clear_memory_errors("generating", step=step):
            with scoring(self._scorer, step=step) as session:
                for group in self._sampler.generate(
                    self._prompts, num_samples=1, settings=settings, check=check
                ):
                    session.add(group)
            rows = session.finish().rows
        rewards = [row.reward for row in rows if row.reward is not None]
        num_tokens = sum(len(row.rollout.completion_ids) for row in rows)
        return {
            "evaluation/accuracy": fraction_right(rows, config.accuracy_reward, config.evaluation.right_at),
            "evaluation/reward_mean": sum(rewards) / len(rewards) if rewards else float("nan"),
            "evaluation/completion_tokens_mean": num_tokens / len(rows),
        }
