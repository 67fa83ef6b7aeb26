"""Decide what the end of a worker means for the calls it had: which failed, which are repeated.

A pure function of what the worker was sent, its progress, why it was killed and how it ended. A call past
its deadline is certainly at fault. When a worker dies by itself, the calls since its last answer are sent
out again one by one; a call that then kills a worker alone is at fault.
"""

from dataclasses import dataclass, field, replace

from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.reward_worker import KillReason, SentChunk
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.workers import Progress, how_it_ended

_STOPPED = {"timeout": "took too long", "memory": "used too much memory"}


@dataclass(slots=True)
class WorkerFailure:
    """`failed` calls have their score, those in `again` go back to the front of the queue.

    `broken` is set when the worker died while it built the reward: no row of it can be scored.
    """

    failed: list[tuple[Call, TimedScore]] = field(default_factory=list)
    again: list[Call] = field(default_factory=list)
    broken: str = ""


def blame_calls(
    chunk: SentChunk,
    progress: Progress,
    killed: KillReason | None,
    status: int,
    *,
    timeout_s: float,
    printed: bytes,
) -> WorkerFailure:
    """What becomes of the calls of a chunk whose worker is gone. `status` is as waitpid gives it."""
    unanswered = chunk.open_positions()
    at = progress.position if progress.chunk == chunk.serial else None
    if killed is not None:
        guilty = [at] if killed.position == at and at in unanswered else []
    else:
        guilty = [position for position in unanswered if at is not None and position <= at]
    failure = WorkerFailure()
    if at == -1 and (killed is None or killed.position == -1):
        how = _STOPPED.get(killed.why, killed.why) if killed else how_it_ended(status)
        failure.broken = f"the reward {how} while it was built"
    for position in unanswered:
        call = chunk.calls[position]
        if position not in guilty:
            failure.again.append(call)
        elif killed is None and len(guilty) > 1:
            call.alone = True
            call.starts += 1
            failure.again.append(call)
        elif killed is None and call.may_split and len(call.rows) > 1:
            failure.again += halves(call)
        else:
            failure.failed.append((call, _failed(call, killed, status, timeout_s, printed)))
    return failure


def halves(call: Call) -> list[Call]:
    """Two calls with half of the rows each, to find the one that ends a worker."""
    middle = len(call.rows) // 2
    parts = (call.rows[:middle], call.rows[middle:])
    return [replace(call, rows=rows, starts=call.starts + 1, alone=True) for rows in parts]


def _failed(
    call: Call, killed: KillReason | None, status: int, timeout_s: float, printed: bytes
) -> TimedScore:
    details = {"printed": printed.decode(errors="replace")} if printed else {}
    if killed is None:
        reason = f"the reward {how_it_ended(status)} while it scored this row"
        return TimedScore(Score.failed(ScoreOutcome.ERROR, reason, **details), 0.0, call.starts + 1)
    if killed.why == "memory":
        reason = f"the reward used {killed.resident_mb:.0f} MiB of memory and was stopped"
        score = Score.failed(ScoreOutcome.ERROR, reason, **details)
    else:
        reason = f"no answer within {timeout_s:g} s; its worker process was killed"
        score = Score.failed(ScoreOutcome.TIMEOUT, reason, **details)
    return TimedScore(score, killed.elapsed_s / len(call.rows), call.starts + 1)
