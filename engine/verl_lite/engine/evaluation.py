"""Held-out accuracy: greedy answers, scored by the very rewards training uses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verl_lite.engine.types import PromptRow, Sampler, never_stop
from verl_lite.plugins import SamplerSettings, ScoredRollout
from verl_lite.plugins.scorer import Scorer

__all__ = ["Evaluation", "evaluate", "fraction_right"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`accuracy` over all rows; `reward_mean` over those that were scored; `rows` for the records."""

    accuracy: float
    reward_mean: float
    completion_tokens_mean: float
    rows: Sequence[ScoredRollout]

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "evaluation/accuracy": self.accuracy,
            "evaluation/reward_mean": self.reward_mean,
            "evaluation/completion_tokens_mean": self.completion_tokens_mean,
        }


def evaluate(
    sampler: Sampler,
    scorer: Scorer,
    prompts: Sequence[PromptRow],
    *,
    max_new_tokens: int,
    accuracy_reward: str,
    right_at: float,
    step: int,
    check: Callable[[], None] = never_stop,
) -> Evaluation:
    """One greedy answer a prompt, through the same template, sampler and scorer as training.

    What `check` raises, as in Sampler.generate, ends it.
    """
    settings = SamplerSettings(temperature=0.0, max_new_tokens=max_new_tokens, seed=0)
    session = scorer.start(step=step)
    try:
        for group in sampler.generate(prompts, num_samples=1, settings=settings, check=check):
            session.add(group)
    except BaseException:
        session.cancel()
        raise
    rows = session.finish().rows
    rewards = [row.reward for row in rows if row.reward is not None]
    return Evaluation(
        accuracy=fraction_right(rows, accuracy_reward, right_at),
        reward_mean=sum(rewards) / len(rewards) if rewards else float("nan"),
        completion_tokens_mean=sum(len(row.rollout.completion_ids) for row in rows) / len(rows),
        rows=rows,
    )


def fraction_right(rows: Sequence[ScoredRollout], accuracy_reward: str, right_at: float) -> float:
    """The part of the rows whose reward `accuracy_reward` is at least `right_at`; no value is not right."""
    values = [row.components[accuracy_reward].score.value for row in rows]
    return sum(value is not None and value >= right_at for value in values) / len(rows)
