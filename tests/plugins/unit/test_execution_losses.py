"""What the end of a worker means for its calls, and the figures a run reports: by hand."""

import os
import signal
from collections import Counter
from collections.abc import Sequence

import pytest

from verl_lite.plugins import Rollout, Score, ScoreOutcome
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.reward_worker import KillReason, SentChunk
from verl_lite.plugins.execution.stats import StatsCollector, percentile
from verl_lite.plugins.execution.worker_failures import WorkerFailure, blame_calls
from verl_lite.plugins.score import SlowRow
from verl_lite.plugins.testing import fake_rollout
from verl_lite.workers import Progress, ProgressPage, how_it_ended

SEGFAULT = int(signal.SIGSEGV)  # as waitpid gives it


class NoRun:
    rollouts: list[Rollout] = []  # noqa: RUF012
    cancelled = False

    def complete(self, component: int, rows: Sequence[int], scores: Sequence[TimedScore]) -> None:
        raise AssertionError("blaming answers nobody")


def chunk_of(num_calls: int, *, answered: int = 0, limit: int | None = None, rows: int = 1) -> SentChunk:
    calls = [Call(NoRun(), 0, tuple(range(at * rows, (at + 1) * rows)), rows > 1) for at in range(num_calls)]
    for call in calls[:answered]:
        call.answered = True
    return SentChunk(7, 0, calls, num_calls if limit is None else limit, 0.0)


def blame(chunk: SentChunk, at: int | None, killed: KillReason | None = None) -> WorkerFailure:
    progress = Progress(7, at, 1) if at is not None else Progress(6, 3, 1)
    return blame_calls(chunk, progress, killed, SEGFAULT, timeout_s=2.0, printed=b"")


def rows_of(calls: Sequence[Call]) -> list[int]:
    return [row for call in calls for row in call.rows]


def test_a_call_past_its_deadline_is_the_only_one_to_lose() -> None:
    failure = blame(chunk_of(6, answered=1), 3, KillReason("timeout", 3, 2.1))
    [(call, timed)] = failure.failed
    assert call.rows == (3,)
    assert (timed.score.outcome, timed.latency_s, timed.attempts) == (ScoreOutcome.TIMEOUT, 2.1, 1)
    assert rows_of(failure.again) == [1, 2, 4, 5]
    assert not any(call.alone for call in failure.again)


def test_a_call_that_ended_between_the_deadline_and_the_kill_is_not_at_fault() -> None:
    failure = blame(chunk_of(6, answered=4), 4, KillReason("timeout", 3, 2.1))
    assert failure.failed == []
    assert rows_of(failure.again) == [4, 5]


def test_calls_that_were_given_to_others_are_not_handed_out_twice() -> None:
    failure = blame(chunk_of(6, limit=4), 3, KillReason("timeout", 3, 2.1))
    assert rows_of(failure.again) == [0, 1, 2]


def test_all_calls_since_the_last_answer_are_suspects_of_a_death() -> None:
    failure = blame(chunk_of(6, answered=1), 3)
    assert failure.failed == []
    assert [(call.rows, call.alone, call.starts) for call in failure.again] == [
        ((1,), True, 1),
        ((2,), True, 1),
        ((3,), True, 1),
        ((4,), False, 0),
        ((5,), False, 0),
    ]


def test_a_suspect_that_dies_alone_is_at_fault() -> None:
    chunk = chunk_of(1)
    chunk.calls[0].starts = 1
    [(_, timed)] = blame(chunk, 0).failed
    assert timed.score.outcome is ScoreOutcome.ERROR
    assert timed.score.reason == "the reward lost its worker process to SIGSEGV while it scored this row"
    assert timed.attempts == 2


def test_a_batch_that_dies_is_halved_until_one_row_is_left() -> None:
    failure = blame(chunk_of(1, rows=5), 0)
    assert failure.failed == []
    assert [(call.rows, call.alone) for call in failure.again] == [((0, 1), True), ((2, 3, 4), True)]


@pytest.mark.parametrize("killed", [None, KillReason("rows"), KillReason("the fork server was killed")])
def test_a_worker_lost_before_it_began_costs_nobody(killed: KillReason | None) -> None:
    failure = blame(chunk_of(3), None, killed)
    assert (failure.failed, failure.broken, rows_of(failure.again)) == ([], "", [0, 1, 2])


def test_a_death_while_the_reward_is_built_is_said_to_be_that() -> None:
    assert blame(chunk_of(3), -1).broken == "the reward lost its worker process to SIGSEGV while it was built"
    late = blame(chunk_of(3), -1, KillReason("timeout", -1))
    assert late.broken == "the reward took too long while it was built"
    assert blame(chunk_of(3), -1, KillReason("the fork server was killed")).broken == ""


def test_how_a_process_ended_in_words() -> None:
    assert how_it_ended(int(signal.SIGKILL)) == "lost its worker process to SIGKILL"
    assert how_it_ended(3 << 8) == "ended its worker process with exit code 3"
    assert how_it_ended(34) == "lost its worker process to SIGRTMIN"
    assert how_it_ended(40) == "lost its worker process to signal 40"


def test_progress_is_read_as_it_was_written_through_another_mapping() -> None:
    page = ProgressPage.create(3)
    other = ProgressPage(os.dup(page.fd), 3)
    other.slots[1].begin_call(4, 2, 123)
    assert page.slots[1].read() == Progress(4, 2, 123)
    assert page.slots[0].read() == page.slots[2].read() == Progress(0, 0, 0)
    page.slots[1].limit = 5
    other.slots[1].end_call()
    assert (other.slots[1].limit, page.slots[1].read()) == (5, Progress(4, 2, 0))
    page.close()
    other.close()


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)]
)
def test_percentiles_of_one_to_a_hundred(fraction: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], fraction) == expected


def test_percentiles_of_little() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0], 0.99) == 3.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_a_run_reports_latencies_outcomes_and_its_slowest_rows_by_name() -> None:
    timed = [TimedScore(Score(1.0), n / 100, 1) for n in range(1, 101)]
    timed[41] = TimedScore(Score.failed(ScoreOutcome.TIMEOUT, "late"), 5.0, 1)
    timed[42] = TimedScore(Score.failed(ScoreOutcome.ERROR, "no"), 4.0, 3)
    timed[43] = TimedScore(Score(None), 0.0, 0)  # the component did not apply: not counted
    rollouts = [fake_rollout(id="" if n == 42 else f"row-{n}") for n in range(100)]
    replaced = Counter({"memory growth": 2})
    one, total = StatsCollector(["math"], replaced), StatsCollector(["math"], replaced)
    one.add(rollouts, [{"math": score} for score in timed])
    replaced["timeout"] += 1
    total.merge(one)
    total.merge(one)
    part = one.stats().components["math"]
    assert (part.calls, part.timeouts, part.errors, part.retries) == (99, 1, 1, 2)
    assert part.outcomes == {ScoreOutcome.OK: 97, ScoreOutcome.TIMEOUT: 1, ScoreOutcome.ERROR: 1}
    assert part.slowest[:3] == (SlowRow(5.0, "row-41"), SlowRow(4.0, "#42"), SlowRow(1.0, "row-99"))
    # 99 values: 0.01 ... 1.00 without 0.42, 0.43 and 0.44, then 4 and 5; ranks 50, 95 and 99 (98.01, up)
    assert one.stats().metrics() == {
        "reward/math/latency_p50_s": 0.53,
        "reward/math/latency_p95_s": 0.98,
        "reward/math/latency_p99_s": 5.0,
        "reward/math/timeouts": 1,
        "reward/math/errors": 1,
        "reward/math/retries": 2,
        "reward/workers_replaced": 1,
    }
    assert total.stats().components["math"].calls == 198
