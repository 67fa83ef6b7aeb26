"""Metrics of a batch's rollouts: accuracy, length, repetition, staleness."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from verl_lite.plugins import ScoredRollout, ScoreOutcome

NGRAM = 4


def is_right(row: ScoredRollout, accuracy_reward: str, right_at: float) -> bool:
    """Whether the reward `accuracy_reward` is at least `right_at`; a row without its value is not right."""
    value = row.components[accuracy_reward].score.value
    return value is not None and value >= right_at


def fraction_right(rows: Sequence[ScoredRollout], accuracy_reward: str, right_at: float) -> float:
    """The fraction of right rows, by `is_right`."""
    return sum(is_right(row, accuracy_reward, right_at) for row in rows) / len(rows)


def success_rates(rows: Sequence[ScoredRollout], accuracy_reward: str, right_at: float) -> dict[str, float]:
    """The fraction of right rows of each group, by `is_right`, among those that were judged.

    A group without any is left out: an error says nothing about how hard its prompt is.
    """
    groups: dict[str, list[ScoredRollout]] = {}
    for row in rows:
        if row.components[accuracy_reward].score.value is not None:
            groups.setdefault(row.rollout.group, []).append(row)
    return {name: fraction_right(group, accuracy_reward, right_at) for name, group in groups.items()}


def why_unjudged(rows: Sequence[ScoredRollout]) -> str:
    """What to tell the user when no reward gave any row a value: each one's reason; "" if one did.

    Only abstentions count: errors and timeouts have their own limits.
    """
    parts = [(name, part.score) for row in rows for name, part in row.components.items()]
    if not parts or any(score.outcome != ScoreOutcome.ABSTAIN for _, score in parts):
        return ""
    counts = Counter((name, score.reason) for name, score in parts)
    reasons = "; ".join(
        f"{name}: {reason} ({count:,} times)" for (name, reason), count in counts.most_common(5)
    )
    if all(row.rollout.turns and row.rollout.is_truncated for row in rows):
        return (
            f"no reward judged any of {len(rows):,} trajectories: {reasons}. All were cut: give them more "
            "room (rollout.max_new_tokens and max_turn_tokens, environment.max_turns)"
        )
    first = rows[0].rollout
    has = f"reference {first.reference!r:.60}" if first.reference is not None else "no reference"
    return (
        f"no reward judged any of {len(rows):,} completions: {reasons}. The first row has {has} and the "
        f"columns {', '.join(first.columns)}: name the column with the right answer in reference (of "
        "data.train), or the columns that the rewards read in their options"
    )


def length_metrics(rows: Sequence[ScoredRollout], *, seconds: float) -> dict[str, float]:
    """Tokens per completion and per second of sampling, and the fraction truncated."""
    num_tokens = sum(row.rollout.num_sampled for row in rows)
    return {
        "rollout/completion_tokens_mean": num_tokens / len(rows),
        "rollout/truncated_fraction": sum(row.rollout.is_truncated for row in rows) / len(rows),
        "rollout/tokens_per_s": num_tokens / seconds,
    }


def quality_metrics(rows: Sequence[ScoredRollout], *, version: int) -> dict[str, float]:
    """Repetition, duplicates, and staleness relative to the policy version `version`."""
    return {
        "rollout/repetition": fmean(repetition(row.rollout.completion) for row in rows),
        "rollout/duplicate_fraction": duplicate_fraction(rows),
        "rollout/staleness_max": float(max(version - row.rollout.policy_version for row in rows)),
        "rollout/staleness_mean": _mean_staleness(rows, version),
    }


def repetition(text: str) -> float:
    """The fraction of four-word sequences in `text` that repeat earlier ones.

    >>> repetition("so it is so it is so it is"), repetition("one two three four five")
    (0.5, 0.0)
    """
    words = text.split()
    sequences = [tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def duplicate_fraction(rows: Sequence[ScoredRollout]) -> float:
    """The fraction of samples with the same text as another sample of their group."""
    keys = [(row.rollout.group, row.rollout.completion) for row in rows]
    counts = Counter(keys)
    return sum(counts[key] > 1 for key in keys) / len(keys)


def _mean_staleness(rows: Sequence[ScoredRollout], version: int) -> float:
    """Mean number of updates behind `version`, over completion tokens."""
    total = count = 0
    for row in rows:
        rollout, num_tokens = row.rollout, len(row.rollout.completion_ids)
        total += (
            sum(rollout.token_versions) if rollout.token_versions else rollout.policy_version * num_tokens
        )
        count += num_tokens
    return version - total / count if count else 0.0
