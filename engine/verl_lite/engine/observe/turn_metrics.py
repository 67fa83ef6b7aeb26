"""Metrics of trajectories of several turns: turns, calls and errors per tool, tokens by role, waiting."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from verl_lite.plugins import ScoredRollout, Turn

ENDS = ("turns", "tool_seconds", "context", "error")  # "length" is in rollout/truncated_fraction too
ROLES = ("assistant", "tool", "user")


def turn_metrics(rows: Sequence[ScoredRollout]) -> dict[str, float]:
    """See the table in docs/training.md; empty for single completions. Means are per trajectory."""
    rollouts = [row.rollout for row in rows]
    if not any(rollout.turns or rollout.finish_reason == "error" for rollout in rollouts):
        return {}
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    asked = [turn for turn in turns if turn.role == "assistant"]
    answers = [turn for turn in turns if turn.role != "assistant"]
    waited = sum(turn.seconds for turn in answers)
    everything = sum(turn.seconds for turn in turns)
    ends = Counter(rollout.finish_reason for rollout in rollouts)
    count = len(rollouts)
    return {
        "turns/mean": len(asked) / count,
        "turns/malformed_fraction": sum(turn.outcome == "malformed" for turn in asked) / max(len(asked), 1),
        "turns/waiting_share": waited / everything if everything else 0.0,
        "turns/split_fraction": sum(bool(rollout.segments) for rollout in rollouts) / count,
        **{f"turns/ended_{end}_fraction": ends[end] / count for end in ENDS},
        **{
            f"turns/tokens_{role}_mean": sum(one.end - one.start for one in turns if one.role == role) / count
            for role in ROLES
        },
        **_of_tools(answers, asked, count),
    }


def _of_tools(answers: Sequence[Turn], asked: Sequence[Turn], count: int) -> dict[str, float]:
    """Calls, errors and seconds per tool. A call that could not be read has no tool, but is an error."""
    by_name: dict[str, list[Turn]] = defaultdict(list)
    for turn in answers:
        if turn.role == "tool":
            by_name["unknown" if turn.outcome == "unknown_tool" else turn.name or "unnamed"].append(turn)
    unread = sum(turn.outcome == "malformed" for turn in asked)
    calls = sum(map(len, by_name.values())) + unread
    failed = sum(turn.outcome != "ok" for turns in by_name.values() for turn in turns) + unread
    metrics = {"turns/calls_mean": calls / count, "turns/tool_error_fraction": failed / max(calls, 1)}
    for name, turns in sorted(by_name.items()):
        metrics |= {
            f"tool/{name}/calls_mean": len(turns) / count,
            f"tool/{name}/error_fraction": sum(turn.outcome != "ok" for turn in turns) / len(turns),
            f"tool/{name}/seconds_mean": sum(turn.seconds for turn in turns) / len(turns),
        }
    return metrics
