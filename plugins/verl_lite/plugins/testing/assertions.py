"""Assertions about rewards; their messages say what the reward returned, and why.

They run the reward in the test's own process: breakpoints hit, a test takes microseconds, deadlines are
not enforced. `score_rollouts` runs it in worker processes, as training does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.plugins.testing.fakes import score_rollouts

TOLERANCE = 1e-9


def assert_score(
    reward: Callable[..., Any],
    rollout: Rollout,
    value: float | None,
    *,
    outcome: str = "",
    reason: str = "",
    options: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> Score:
    """Assert that the reward gives the rollout `value` (None for no value), and return the score.

    `outcome` ("abstain", "error", "timeout") is why there is no value; `reason` is a part of the
    score's reason. A reward of form "batch" or "group" gets only this rollout.
    """
    [score] = _scores(reward, [rollout], options)
    problems = _problems(score, value, outcome, reason, tolerance)
    assert not problems, f"{rollout.completion!r:.200}: {'; '.join(problems)}; it answered {_shown(score)}"
    return score


def assert_group_scores(
    reward: Callable[..., Any],
    group: Sequence[Rollout],
    values: Sequence[float | None],
    *,
    options: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> list[Score]:
    """Assert that the reward gives these values to the rollouts, scored together; return the scores."""
    assert len(group) == len(values), f"{len(group)} rollouts and {len(values)} expected values"
    scores = _scores(reward, group, options)
    problems = [
        f"  {position}: {'; '.join(found)}; it answered {_shown(score)} for {rollout.completion!r:.80}"
        for position, (rollout, score, value) in enumerate(zip(group, scores, values, strict=True))
        if (found := _problems(score, value, "", "", tolerance))
    ]
    assert not problems, "\n".join(["scores are not as expected:", *problems])
    return scores


def assert_any_order(
    reward: Callable[..., Any],
    rollouts: Sequence[Rollout],
    *,
    options: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Assert that no rollout's score depends on the order of the rollouts."""
    forwards = _scores(reward, rollouts, options)
    backwards = _scores(reward, rollouts[::-1], options)[::-1]
    problems = [
        f"  {rollout.completion!r:.80}: {_shown(one)}, in the reverse order {_shown(other)}"
        for rollout, one, other in zip(rollouts, forwards, backwards, strict=True)
        if one.outcome is not other.outcome or not _close(one.value, other.value, tolerance)
    ]
    assert not problems, "\n".join(["the order of the rollouts changes their scores:", *problems])


def _scores(
    reward: Callable[..., Any], rollouts: Sequence[Rollout], options: Mapping[str, Any] | None
) -> list[Score]:
    timed = score_rollouts(reward, rollouts, debug_inline=True, **(options or {}))
    return [row.score for row in timed]


def _problems(score: Score, value: float | None, outcome: str, reason: str, tolerance: float) -> list[str]:
    problems = []
    if not _close(score.value, value, tolerance):
        problems.append(f"expected the value {value}")
    if outcome and score.outcome != ScoreOutcome(outcome):
        problems.append(f"expected the outcome {outcome!r}")
    if reason not in score.reason:
        problems.append(f"expected {reason!r} in the reason")
    return problems


def _close(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0.0, abs_tol=tolerance)


def _shown(score: Score) -> str:
    answer = score.outcome.value if score.value is None else f"{score.value:g}"
    return f"{answer} ({score.reason})" if score.reason else answer
