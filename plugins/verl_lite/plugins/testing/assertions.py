"""Assertions about rewards; their messages say what the reward returned, and why.

They run the reward in the test's own process: breakpoints hit, a test takes microseconds, deadlines are
not enforced. Only an expected time-out runs as in training, in a worker process that is killed at the
deadline; `score_rollouts` runs everything so.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_lite.errors import PluginError
from verl_lite.plugins.contract import Component, definition_of
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.plugins.testing.fakes import score_rollouts, score_with

TOLERANCE = 1e-9


def assert_score(
    reward: Callable[..., object],
    rollout: Rollout,
    value: float | None,
    *,
    outcome: str = "",
    reason: str = "",
    options: Mapping[str, object] | None = None,
    tolerance: float = TOLERANCE,
    timeout_s: float | None = None,
) -> Score:
    """Assert that the reward gives the rollout `value` (None for no value), and return the score.

    `outcome` ("abstain", "error", "timeout") is why there is no value; `reason` is a part of the
    score's reason. A reward of form "batch" or "group" gets only this rollout. With outcome="timeout" the
    deadline holds: `timeout_s`, or the one that the reward declares. Raises PluginError for a reward that
    no deadline can stop (`isolate=False`).
    """
    if outcome == ScoreOutcome.TIMEOUT:
        score = _with_deadline(reward, rollout, options, timeout_s)
    else:
        [score] = _scores(reward, [rollout], options)
    problems = _problems(score, value, outcome, reason, tolerance)
    assert not problems, f"{rollout.completion!r:.200}: {'; '.join(problems)}; it answered {_shown(score)}"
    return score


def assert_group_scores(
    reward: Callable[..., object],
    group: Sequence[Rollout],
    values: Sequence[float | None],
    *,
    options: Mapping[str, object] | None = None,
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
    reward: Callable[..., object],
    rollouts: Sequence[Rollout],
    *,
    options: Mapping[str, object] | None = None,
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


def _with_deadline(
    reward: Callable[..., object],
    rollout: Rollout,
    options: Mapping[str, object] | None,
    timeout_s: float | None,
) -> Score:
    definition = definition_of(reward)
    if not (definition.isolate or definition.is_async):
        raise PluginError(
            f"reward {definition.name!r} has isolate=False, so it runs in the trainer's own process and "
            "nothing stops it at a deadline: it cannot end in a time-out"
        )
    # not by component_for: a reward may have an option of its own that is called timeout_s
    component = Component(
        name=definition.name,
        definition=definition,
        options=definition.options_model(**(options or {})),
        timeout_s=timeout_s or definition.timeout_s,
    )
    [timed] = score_with(component, [rollout])
    return timed.score


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
