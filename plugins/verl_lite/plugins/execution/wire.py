"""The form of chunks and answers between the parent and a worker: pickles of plain builtins.

A score with a value and nothing else, by far the most common, is one float.
"""

import pickle
from dataclasses import dataclass
from typing import TypeAlias

from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.score import Score, ScoreOutcome

PickledRow: TypeAlias = bytes  # each row by itself: what a reward does to one cannot reach another
Chunk: TypeAlias = tuple[int, int, list[list[PickledRow]]]  # serial, component, rows of each call
RowAnswer: TypeAlias = tuple[float | bytes, float, int]  # score, latency_s, attempts
Health: TypeAlias = tuple[float, int, int, str]  # MiB grown, child processes, threads, damage
# serial of the chunk, position of the first answer, one list of rows per call; the health ends the chunk
Answers: TypeAlias = tuple[int, int, list[list[RowAnswer]], Health | None]


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """The scores of calls `first`, `first + 1`, ... of a chunk; `health` comes with the last of them."""

    serial: int
    first: int
    scores: list[list[TimedScore]]
    spent_s: float  # in the reward itself
    health: Health | None


def read_answers(body: bytes) -> AnswerBatch:
    """Raises ValueError for a `body` that our own loop did not send: the reward may have written it."""
    try:
        serial, first, answers, health = pickle.loads(body)
        scores = [unpack_rows(rows) for rows in answers]
        spent_s = sum(row.latency_s for rows in scores for row in rows)
        return AnswerBatch(int(serial), int(first), scores, spent_s, health)
    except Exception as error:  # noqa: BLE001 - unpickling garbage raises anything at all
        raise ValueError(f"a damaged message from a worker: {type(error).__name__}: {error}") from None


def pack_row(timed: TimedScore) -> RowAnswer:
    return _pack_score(timed.score), timed.latency_s, timed.attempts


def _pack_score(score: Score) -> float | bytes:
    if score.value is not None and not (score.reason or score.details or score.steps):
        return float(score.value)
    try:
        return pickle.dumps(score, 5)
    except Exception as error:  # noqa: BLE001 - pickling runs code of the plugin's details
        reason = f"the score cannot be pickled: {type(error).__name__}: {error}"
        return pickle.dumps(Score.failed(ScoreOutcome.ERROR, reason[:300]), 5)


def unpack_rows(rows: list[RowAnswer]) -> list[TimedScore]:
    return [TimedScore(_unpack_score(score), latency_s, attempts) for score, latency_s, attempts in rows]


def _unpack_score(packed: float | bytes) -> Score:
    if not isinstance(packed, bytes):
        return Score(packed)
    try:
        score = pickle.loads(packed)
    except Exception as error:  # noqa: BLE001 - unpickling runs code of the plugin's details
        reason = f"the score cannot be unpickled: {type(error).__name__}: {error}"
        return Score.failed(ScoreOutcome.ERROR, reason[:300])
    if not isinstance(score, Score):
        return Score.failed(ScoreOutcome.ERROR, f"the worker sent a {type(score).__name__}, not a score")
    return score
