"""What execution hands back for one component and one rollout."""

from dataclasses import dataclass

from verl_lite.plugins.score import Score

__all__ = ["TimedScore"]


@dataclass(frozen=True, slots=True)
class TimedScore:
    """A component's score for one rollout, and what it took to get it.

    latency_s   seconds inside the reward, retries and their pauses included; the rows of one batch
                or group call share its time equally
    attempts    how often the reward was asked about this row; 0 where the component did not apply
    """

    score: Score
    latency_s: float = 0.0
    attempts: int = 1
