"""One queue of sequences for many engines: which engine takes which, and what each one has.

An engine takes the next sequence when one of its own has ended. It may hold more than it works on at
once, so that a free place is taken at the very next step; once the queue is empty, an engine with free
places takes over what still waits inside another. Nothing here is thread-safe: EnginePool holds a lock.
"""

import math
import queue
from collections.abc import Iterable
from dataclasses import dataclass, field

from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest
from verl_lite.errors import VerlLiteError

__all__ = ["Batch", "Job", "SequenceQueue", "Share"]


@dataclass(slots=True, eq=False)
class Batch:
    """Sequences submitted together and where their answers go."""

    answers: "queue.SimpleQueue[FinishedSequence | VerlLiteError]"
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    request: SequenceRequest
    batch: Batch


@dataclass(slots=True, eq=False)
class Share:
    """What one engine has; it works on `places` of them at once and is handed out `in_flight` at most."""

    places: int = 0
    in_flight: int = 0
    is_ready: bool = False
    running: dict[str, Job] = field(default_factory=dict)  # in the order in which they were handed out
    given_away: list[str] = field(default_factory=list)  # what the engine still has to be told to forget

    @property
    def num_waiting(self) -> int:
        """How many wait inside the engine for a place: it begins them in the order it got them."""
        return max(len(self.running) - self.places, 0)


class SequenceQueue:
    """`shares` are those of all engines of the pool."""

    def __init__(self, shares: list[Share]) -> None:
        self._shares = shares
        self._waiting: list[Job] = []

    def add(self, jobs: Iterable[Job]) -> None:
        self._waiting.extend(jobs)

    def close(self, batch: Batch) -> None:
        """Nobody wants these any more; engines that have some are told at their next call."""
        batch.closed = True
        self._waiting = [job for job in self._waiting if job.batch is not batch]

    def has_some_for(self, share: Share) -> bool:
        return bool(self._room(share) or self._fullest_beside(share))

    def take(self, share: Share) -> list[Job]:
        """What this engine begins now; it is in its share from here on."""
        jobs = self._next(share) if self._waiting else self._take_over(share)
        share.running |= {job.request.id: job for job in jobs}
        return jobs

    def give_up(self, share: Share) -> list[str]:
        """Ids that the engine is to forget: those of closed batches, and those that went to other engines."""
        closed = [id for id, job in share.running.items() if job.batch.closed]
        for id in closed:
            del share.running[id]
        given_away, share.given_away = share.given_away, []
        return closed + given_away

    def put_back(self, share: Share) -> int:
        """The engine is lost: what it had goes to the front of the queue. Returns how many."""
        jobs = [job for job in share.running.values() if not job.batch.closed]
        self._waiting[:0] = jobs
        share.running.clear()
        share.given_away.clear()
        return len(jobs)

    def _room(self, share: Share) -> int:
        """How many of the waiting sequences this engine may take: no more than an even share of all."""
        if not self._waiting:
            return 0
        unfinished = len(self._waiting) + sum(len(other.running) for other in self._shares)
        limit = min(share.in_flight, math.ceil(unfinished / self._num_ready))
        return max(limit - len(share.running), 0)

    @property
    def _num_ready(self) -> int:
        return sum(share.is_ready for share in self._shares)

    def _next(self, share: Share) -> list[Job]:
        """As many as there is room for, each from beside those that the other engines take.

        A prompt's samples stand together and are long or short together.
        """
        room = self._room(share)
        step = min(self._num_ready, max(len(self._waiting) // max(room, 1), 1))
        places = slice(0, room * step, step)
        jobs = self._waiting[places]
        del self._waiting[places]
        return jobs

    def _take_over(self, share: Share) -> list[Job]:
        """What waits inside another engine, newest first, for this one's free places.

        One that has begun since the other engine's last answer begins again: the same tokens, by its seed.
        """
        other = self._fullest_beside(share)
        if other is None:
            return []
        count = min(other.num_waiting, share.places - len(share.running))
        jobs = [other.running.popitem()[1] for _ in range(count)]
        other.given_away += [job.request.id for job in jobs]
        return [job for job in jobs if not job.batch.closed]

    def _fullest_beside(self, share: Share) -> Share | None:
        """Inside which most wait, where this one has free places and the queue is empty."""
        if self._waiting or len(share.running) >= share.places:
            return None
        fullest = max(self._shares, key=lambda other: other.num_waiting)
        return fullest if fullest.num_waiting else None
