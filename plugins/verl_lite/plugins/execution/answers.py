"""Read what a worker sent: it is the reward's process, so nothing about it is taken for granted."""

from dataclasses import dataclass
from typing import Any

from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.wire import Health, unpack_score

__all__ = ["AnswerBatch", "read_answers"]


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """The scores of calls `first`, `first + 1`, ... of a chunk; `health` comes with the last of them."""

    serial: int
    first: int
    scores: list[list[TimedScore]]
    spent_s: float  # in the reward itself
    health: Health | None


def read_answers(message: Any) -> AnswerBatch:
    """Raises ValueError where the message is not what our own loop sends."""
    try:
        serial, first, answers, health = message
        scores = [
            [TimedScore(unpack_score(score), latency_s, attempts) for score, latency_s, attempts in rows]
            for rows in answers
        ]
        spent_s = sum(row.latency_s for rows in scores for row in rows)
        return AnswerBatch(int(serial), int(first), scores, spent_s, health)
    except TypeError as error:
        raise ValueError(f"a damaged message from a worker: {error}") from None
