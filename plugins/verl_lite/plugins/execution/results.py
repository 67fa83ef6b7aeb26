"""What execution returns for one component and one rollout."""

from dataclasses import dataclass

from verl_lite.plugins.fast_init import fast_init
from verl_lite.plugins.score import Score


@fast_init
@dataclass(frozen=True, slots=True)
class TimedScore:
    """A component's score for one rollout, and what it cost.

    latency_s   seconds inside the reward, including retries and pauses; the rows of a batch or group
                call share its time equally
    attempts    how often the reward was called for this row; 0 where the component did not apply
    """

    score: Score
    latency_s: float = 0.0
    attempts: int = 1
