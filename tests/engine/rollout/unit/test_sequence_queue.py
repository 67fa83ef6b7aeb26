"""Who takes which sequence, step by step, without engines."""

import queue
from collections.abc import Sequence

from verl_lite.engine.cluster import Batch, EngineLoad, Job, SequenceQueue
from verl_lite.engine.rollout import SequenceRequest
from verl_lite.plugins import SamplerSettings


def jobs(count: int, batch: Batch, prefix: str = "") -> list[Job]:
    settings = SamplerSettings(max_new_tokens=1)
    return [
        Job(SequenceRequest(id=f"{prefix}{i}", prompt_ids=[1], settings=settings), batch)
        for i in range(count)
    ]


def ids(taken: Sequence[Job]) -> list[str]:
    return [job.request.id for job in taken]


def two_engines(*, num_slots: int, max_in_flight: int) -> tuple[SequenceQueue, EngineLoad, EngineLoad]:
    loads = [EngineLoad(num_slots=num_slots, max_in_flight=max_in_flight, is_ready=True) for _ in range(2)]
    return SequenceQueue(loads), *loads


def ended(load: EngineLoad, *done: str) -> None:
    for id in done:
        del load.in_flight[id]


def a_batch() -> Batch:
    return Batch(queue.SimpleQueue())


def test_neighbours_go_to_different_engines_up_to_the_limit() -> None:
    waiting, one, other = two_engines(num_slots=2, max_in_flight=3)
    waiting.add(jobs(10, a_batch()))
    assert ids(waiting.take(one)) == ["0", "2", "4"]
    assert ids(waiting.take(other)) == ["1", "5", "7"]
    assert waiting.take(one) == []
    ended(one, "0")
    assert ids(waiting.take(one)) == ["3"]


def test_few_are_shared_evenly() -> None:
    waiting, one, other = two_engines(num_slots=8, max_in_flight=12)
    waiting.add(jobs(5, a_batch()))
    assert len(waiting.take(one)) == 3
    assert len(waiting.take(other)) == 2


def test_a_free_place_takes_over_what_waits_inside_another_engine() -> None:
    waiting, one, other = two_engines(num_slots=2, max_in_flight=4)
    waiting.add(jobs(8, a_batch()))
    waiting.take(one)
    assert ids(waiting.take(other)) == ["1", "3", "5", "7"]  # 5 and 7 wait for a slot
    ended(one, "0", "2")
    assert not waiting.has_work_for(one)  # its own 4 and 6 have its slots now
    ended(one, "4")
    assert waiting.has_work_for(one)
    assert ids(waiting.take(one)) == ["7"]
    assert list(other.in_flight) == ["1", "3", "5"]
    assert waiting.take_aborts(other) == ["7"]
    assert waiting.take_aborts(other) == []
    ended(one, "6", "7")
    assert ids(waiting.take(one)) == ["5"]  # two places are free, one sequence waits
    assert not waiting.has_work_for(one)  # what runs elsewhere stays there


def test_nothing_is_taken_over_while_the_queue_has_some() -> None:
    waiting, one, other = two_engines(num_slots=2, max_in_flight=4)
    waiting.add(jobs(8, a_batch()))
    waiting.take(other)
    waiting.take(one)
    waiting.add(jobs(1, a_batch(), "late"))
    ended(one, *list(one.in_flight)[:3])
    assert ids(waiting.take(one)) == ["late0"]


def test_what_a_lost_engine_had_is_first_again_without_what_was_taken_over() -> None:
    waiting, one, other = two_engines(num_slots=1, max_in_flight=3)
    waiting.add(jobs(6, a_batch()))
    waiting.take(one)
    waiting.take(other)
    ended(one, *list(one.in_flight))
    assert ids(waiting.take(one)) == ["5"]
    waiting.add(jobs(1, a_batch(), "late"))
    assert waiting.requeue(other) == 2
    assert waiting.take_aborts(other) == []  # its process is gone, nothing to abort
    assert ids(waiting.take(other)) == ["1", "3"]
    ended(one, "5")
    assert ids(waiting.take(one)) == ["late0"]


def test_a_cancelled_batch_is_aborted_and_not_requeued() -> None:
    waiting, one, other = two_engines(num_slots=4, max_in_flight=4)
    batch, wanted = a_batch(), a_batch()
    waiting.add(jobs(4, batch, "a"))
    waiting.add(jobs(4, wanted, "b"))
    waiting.take(one)
    waiting.take(other)
    waiting.cancel(batch)
    assert waiting.take_aborts(one) == ["a0", "a2"]
    other.is_ready = False  # as the pool has it, so that nothing is kept for its load
    assert waiting.requeue(other) == 2
    assert ids(waiting.take(one)) == ["b1", "b3"]
