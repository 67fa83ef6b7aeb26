"""Decide what the loss of a worker means for the calls it had: who is at fault, who goes again.

Pure: what the worker was given, where it was, why and how it ended. A call that passed its deadline
is known with certainty. When a worker dies by itself, the calls since its last answer are handed out
one by one; the one that loses its worker again, alone, is the one at fault.
"""

import os
import signal
from dataclasses import dataclass, field, replace

from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.progress import Progress
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.wire import CHANNEL_CLOSED
from verl_lite.plugins.execution.worker_handle import Doom, Given
from verl_lite.plugins.score import Score, ScoreOutcome

_STOPPED = {"timeout": "took too long", "memory": "used too much memory"}

__all__ = ["Loss", "how_it_ended", "judge_loss"]


@dataclass(slots=True)
class Loss:
    """`failed` calls have their score, those in `again` go back to the front of the queue.

    `broken` is set when the worker died while it built the reward: no row of it can be scored.
    """

    failed: list[tuple[Call, TimedScore]] = field(default_factory=list)
    again: list[Call] = field(default_factory=list)
    broken: str = ""


def judge_loss(
    given: Given, progress: Progress, doom: Doom | None, status: int, *, timeout_s: float, printed: bytes
) -> Loss:
    """What becomes of the calls of a chunk whose worker is gone. `status` is as waitpid gives it."""
    unanswered = given.open_positions()
    at = progress.position if progress.chunk == given.serial else None
    if doom is not None:
        guilty = [at] if doom.position == at and at in unanswered else []
    else:
        guilty = [position for position in unanswered if at is not None and position <= at]
    loss = Loss()
    if at == -1 and (doom is None or doom.position == -1):
        how = _STOPPED.get(doom.why, doom.why) if doom else how_it_ended(status)
        loss.broken = f"the reward {how} while it was built"
    for position in unanswered:
        call = given.calls[position]
        if position not in guilty:
            loss.again.append(call)
        elif doom is None and len(guilty) > 1:
            call.alone = True
            call.starts += 1
            loss.again.append(call)
        elif doom is None and call.may_split and len(call.rows) > 1:
            loss.again += _halves(call)
        else:
            loss.failed.append((call, _failed(call, doom, status, timeout_s, printed)))
    return loss


def _halves(call: Call) -> list[Call]:
    middle = len(call.rows) // 2
    parts = (call.rows[:middle], call.rows[middle:])
    return [replace(call, rows=rows, starts=call.starts + 1, alone=True) for rows in parts]


def _failed(call: Call, doom: Doom | None, status: int, timeout_s: float, printed: bytes) -> TimedScore:
    details = {"printed": printed.decode(errors="replace")} if printed else {}
    if doom is None:
        reason = f"the reward {how_it_ended(status)} while it scored this row"
        return TimedScore(Score.failed(ScoreOutcome.ERROR, reason, **details), 0.0, call.starts + 1)
    if doom.why == "memory":
        reason = f"the reward used {doom.resident_mb:.0f} MiB of memory and was stopped"
        score = Score.failed(ScoreOutcome.ERROR, reason, **details)
    else:
        reason = f"no answer within {timeout_s:g} s; its worker process was killed"
        score = Score.failed(ScoreOutcome.TIMEOUT, reason, **details)
    return TimedScore(score, doom.elapsed_s / len(call.rows), call.starts + 1)


def how_it_ended(status: int) -> str:
    """In words, how a process ended whose waitpid status this is.

    >>> how_it_ended(9), how_it_ended(3 << 8)
    ('lost its worker process to SIGKILL', 'ended its worker process with exit code 3')
    """
    code = os.waitstatus_to_exitcode(status)
    if code == CHANNEL_CLOSED:
        return "closed its worker's channel to the trainer"
    if code >= 0:
        return f"ended its worker process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"lost its worker process to {name}"
