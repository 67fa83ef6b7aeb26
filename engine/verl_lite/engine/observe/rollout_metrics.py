"""Numbers of a batch's rollouts: how many are right, how long they are, how often they repeat."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from verl_lite.plugins import ScoredRollout

NGRAM = 4


def fraction_right(rows: Sequence[ScoredRollout], accuracy_reward: str, right_at: float) -> float:
    """The fraction of rows whose reward `accuracy_reward` is at least `right_at`; no value is not right."""
    values = [row.components[accuracy_reward].score.value for row in rows]
    return sum(value is not None and value >= right_at for value in values) / len(rows)


def length_metrics(rows: Sequence[ScoredRollout], *, seconds: float) -> dict[str, float]:
    """Tokens per completion, per second of the `seconds` that sampling took, and the fraction cut off."""
    num_tokens = sum(len(row.rollout.completion_ids) for row in rows)
    return {
        "rollout/completion_tokens_mean": num_tokens / len(rows),
        "rollout/truncated_fraction": sum(row.rollout.is_truncated for row in rows) / len(rows),
        "rollout/tokens_per_s": num_tokens / seconds,
    }


def quality_metrics(rows: Sequence[ScoredRollout], *, version: int) -> dict[str, float]:
    """Repetition, duplicates, and how many updates old the rows were at policy version `version`."""
    return {
        "rollout/repetition": fmean(repetition(row.rollout.completion) for row in rows),
        "rollout/duplicate_fraction": duplicate_fraction(rows),
        "rollout/staleness_max": float(max(version - row.rollout.policy_version for row in rows)),
        "rollout/staleness_mean": _mean_staleness(rows, version),
    }


def repetition(text: str) -> float:
    """The fraction of the four-word sequences in `text` that occurred in it before.

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
    """Mean updates behind `version` over the completion tokens, each of which may have its own version."""
    total = count = 0
    for row in rows:
        rollout, num_tokens = row.rollout, len(row.rollout.completion_ids)
        total += (
            sum(rollout.token_versions) if rollout.token_versions else rollout.policy_version * num_tokens
        )
        count += num_tokens
    return version - total / count if count else 0.0
