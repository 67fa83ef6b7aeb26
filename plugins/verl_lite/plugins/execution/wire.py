"""The form chunks and answers have between the parent and a worker: plain builtins only.

A score with a value and nothing else, by far the most common, is one float.
"""

import pickle
from typing import TypeAlias

from verl_lite.plugins.score import Score, ScoreOutcome

__all__ = [
    "CHANNEL_CLOSED",
    "Answers",
    "Chunk",
    "Health",
    "PickledRow",
    "RowAnswer",
    "pack_score",
    "unpack_score",
]

CHANNEL_CLOSED = 71  # the exit code of a worker whose reward closed the channel to the parent

PickledRow: TypeAlias = bytes  # each row by itself: what a reward does to one cannot reach another
Chunk: TypeAlias = tuple[int, int, list[list[PickledRow]]]  # serial, component, rows of each call
RowAnswer: TypeAlias = tuple[float | bytes, float, int]  # score, latency_s, attempts
Health: TypeAlias = tuple[float, int, int, str]  # MiB grown, child processes, threads, damage
# serial of the chunk, position of the first answer, one list of rows a call; the health ends the chunk
Answers: TypeAlias = tuple[int, int, list[list[RowAnswer]], Health | None]


def pack_score(score: Score) -> float | bytes:
    if score.value is not None and not (score.reason or score.details or score.steps):
        return float(score.value)
    try:
        return pickle.dumps(score, 5)
    except Exception as error:  # noqa: BLE001 - pickling runs code of the plugin's details
        reason = f"the score cannot be pickled: {type(error).__name__}: {error}"
        return pickle.dumps(Score.failed(ScoreOutcome.ERROR, reason[:300]), 5)


def unpack_score(packed: float | bytes) -> Score:
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
