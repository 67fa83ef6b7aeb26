"""One queue of sequences for many engines: which engine takes which sequence, and what each has in flight.

An engine takes the next sequence when one of its own finishes. It may hold more than it decodes at once,
so that a free slot is filled at the next step; once the queue is empty, an engine with free slots steals
sequences that wait inside another. Nothing here is thread-safe: EnginePool holds a lock.
"""

import math
import queue
from collections.abc import Iterable
from dataclasses import dataclass, field

from verl_lite.engine.rollout.requests import Result, SequenceRequest


@dataclass(slots=True, eq=False)
class Batch:
    """Sequences submitted together, and where their results go."""

    results: "queue.SimpleQueue[Result]"
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    request: SequenceRequest
    batch: Batch


@dataclass(slots=True, eq=False)
class EngineLoad:
    """What one engine has: it decodes `num_slots` sequences at once and holds at most `max_in_flight`."""

    num_slots: int = 0
    max_in_flight: int = 0
    is_ready: bool = False
    in_flight: dict[str, Job] = field(default_factory=dict)  # by id, oldest first
    stolen: list[str] = field(default_factory=list)  # ids for the engine to abort

    @property
    def num_queued(self) -> int:
        """How many wait inside the engine for a slot; it starts them in order of arrival."""
        return max(len(self.in_flight) - self.num_slots, 0)


class SequenceQueue:
    """`loads` has the load of every engine in the pool."""

    def __init__(self, loads: list[EngineLoad]) -> None:
        self._loads = loads
        self._waiting: list[Job] = []

    def add(self, jobs: Iterable[Job]) -> None:
        self._waiting.extend(jobs)

    def cancel(self, batch: Batch) -> None:
        """Drop the batch; engines abort their part of it with their next call."""
        batch.is_cancelled = True
        self._waiting = [job for job in self._waiting if job.batch is not batch]

    def has_work_for(self, load: EngineLoad) -> bool:
        return bool(self._capacity(load) or self._steal_from(load))

    def take(self, load: EngineLoad) -> list[Job]:
        """Jobs for this engine to start now; they then count as in flight."""
        jobs = self._take_waiting(load) if self._waiting else self._steal(load)
        load.in_flight |= {job.request.id: job for job in jobs}
        return jobs

    def take_aborts(self, load: EngineLoad) -> list[str]:
        """Ids for the engine to abort: of cancelled batches, or stolen by other engines."""
        cancelled = [id for id, job in load.in_flight.items() if job.batch.is_cancelled]
        for id in cancelled:
            del load.in_flight[id]
        stolen, load.stolen = load.stolen, []
        return cancelled + stolen

    def requeue(self, load: EngineLoad) -> int:
        """Move a lost engine's sequences to the front of the queue. Returns their number."""
        jobs = [job for job in load.in_flight.values() if not job.batch.is_cancelled]
        self._waiting[:0] = jobs
        load.in_flight.clear()
        load.stolen.clear()
        return len(jobs)

    def _capacity(self, load: EngineLoad) -> int:
        """How many waiting sequences this engine may take: at most an even share of all unfinished ones."""
        if not self._waiting:
            return 0
        unfinished = len(self._waiting) + sum(len(other.in_flight) for other in self._loads)
        limit = min(load.max_in_flight, math.ceil(unfinished / self._num_ready))
        return max(limit - len(load.in_flight), 0)

    @property
    def _num_ready(self) -> int:
        return sum(load.is_ready for load in self._loads)

    def _take_waiting(self, load: EngineLoad) -> list[Job]:
        """As many as fit, strided: a prompt's samples are neighbours with similar lengths, so spread them."""
        capacity = self._capacity(load)
        stride = min(self._num_ready, max(len(self._waiting) // max(capacity, 1), 1))
        taken = slice(0, capacity * stride, stride)
        jobs = self._waiting[taken]
        del self._waiting[taken]
        return jobs

    def _steal(self, load: EngineLoad) -> list[Job]:
        """Sequences that wait inside another engine, newest first, for this one's free slots.

        If one has started there meanwhile, it starts again here: its seed gives the same tokens.
        """
        other = self._steal_from(load)
        if other is None:
            return []
        count = min(other.num_queued, load.num_slots - len(load.in_flight))
        jobs = [other.in_flight.popitem()[1] for _ in range(count)]
        other.stolen += [job.request.id for job in jobs]
        return [job for job in jobs if not job.batch.is_cancelled]

    def _steal_from(self, load: EngineLoad) -> EngineLoad | None:
        """The engine with the most queued inside, if this one has free slots and the queue is empty."""
        if self._waiting or len(load.in_flight) >= load.num_slots:
            return None
        fullest = max(self._loads, key=lambda other: other.num_queued)
        return fullest if fullest.num_queued else None
