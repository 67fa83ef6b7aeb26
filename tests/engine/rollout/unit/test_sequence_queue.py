"""Who takes which sequence, step by step, without engines."""

import queue
from collections.abc import Sequence

from verl_lite.engine.cluster.sequence_queue import Batch, Job, SequenceQueue, Share
from verl_lite.engine.rollout.requests import SequenceRequest
from verl_lite.plugins import SamplerSettings


def jobs(count: int, batch: Batch, prefix: str = "") -> list[Job]:
    settings = SamplerSettings(max_new_tokens=1)
    return [
        Job(SequenceRequest(id=f"{prefix}{i}", prompt_ids=[1], settings=settings), batch)
        for i in range(count)
    ]


def ids(taken: Sequence[Job]) -> list[str]:
    return [job.request.id for job in taken]


def two_engines(*, places: int, in_flight: int) -> tuple[SequenceQueue, Share, Share]:
    shares = [Share(places=places, in_flight=in_flight, is_ready=True) for _ in range(2)]
    return SequenceQueue(shares), *shares


def ended(share: Share, *done: str) -> None:
    for id in done:
        del share.running[id]


def a_batch() -> Batch:
    return Batch(queue.SimpleQueue())


def test_neighbours_go_to_different_engines_up_to_the_limit() -> None:
    waiting, one, other = two_engines(places=2, in_flight=3)
    waiting.add(jobs(10, a_batch()))
    assert ids(waiting.take(one)) == ["0", "2", "4"]
    assert ids(waiting.take(other)) == ["1", "5", "7"]
    assert waiting.take(one) == []
    ended(one, "0")
    assert ids(waiting.take(one)) == ["3"]


def test_few_are_shared_evenly() -> None:
    waiting, one, other = two_engines(places=8, in_flight=12)
    waiting.add(jobs(5, a_batch()))
    assert len(waiting.take(one)) == 3
    assert len(waiting.take(other)) == 2


def test_a_free_place_takes_over_what_waits_inside_another_engine() -> None:
    waiting, one, other = two_engines(places=2, in_flight=4)
    waiting.add(jobs(8, a_batch()))
    waiting.take(one)
    assert ids(waiting.take(other)) == ["1", "3", "5", "7"]  # 5 and 7 wait for a place
    ended(one, "0", "2")
    assert not waiting.has_some_for(one)  # its own 4 and 6 have its places now
    ended(one, "4")
    assert waiting.has_some_for(one)
    assert ids(waiting.take(one)) == ["7"]
    assert list(other.running) == ["1", "3", "5"]
    assert waiting.give_up(other) == ["7"]
    assert waiting.give_up(other) == []
    ended(one, "6", "7")
    assert ids(waiting.take(one)) == ["5"]  # two places are free, one sequence waits
    assert not waiting.has_some_for(one)  # what runs elsewhere stays there


def test_nothing_is_taken_over_while_the_queue_has_some() -> None:
    waiting, one, other = two_engines(places=2, in_flight=4)
    waiting.add(jobs(8, a_batch()))
    waiting.take(other)
    waiting.take(one)
    waiting.add(jobs(1, a_batch(), "late"))
    ended(one, *list(one.running)[:3])
    assert ids(waiting.take(one)) == ["late0"]


def test_what_a_lost_engine_had_is_first_again_without_what_was_taken_over() -> None:
    waiting, one, other = two_engines(places=1, in_flight=3)
    waiting.add(jobs(6, a_batch()))
    waiting.take(one)
    waiting.take(other)
    ended(one, *list(one.running))
    assert ids(waiting.take(one)) == ["5"]
    waiting.add(jobs(1, a_batch(), "late"))
    assert waiting.put_back(other) == 2
    assert waiting.give_up(other) == []  # its process is gone, nothing to forget
    assert ids(waiting.take(other)) == ["1", "3"]
    ended(one, "5")
    assert ids(waiting.take(one)) == ["late0"]


def test_those_of_a_closed_batch_are_given_up_and_not_put_back() -> None:
    waiting, one, other = two_engines(places=4, in_flight=4)
    batch, wanted = a_batch(), a_batch()
    waiting.add(jobs(4, batch, "a"))
    waiting.add(jobs(4, wanted, "b"))
    waiting.take(one)
    waiting.take(other)
    waiting.close(batch)
    assert waiting.give_up(one) == ["a0", "a2"]
    other.is_ready = False  # as the pool has it, so that nothing is kept for its share
    assert waiting.put_back(other) == 2
    assert ids(waiting.take(one)) == ["b1", "b3"]
