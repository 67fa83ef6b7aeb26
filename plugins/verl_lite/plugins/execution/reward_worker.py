"""A worker process of the pool, the chunk it was sent, and why it was killed."""

import pickle
from dataclasses import dataclass

from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.wire import PickledRow
from verl_lite.workers import WorkerHandle


@dataclass(slots=True)
class SentChunk:
    """The chunk a worker has: `calls[limit:]` were sent to others since."""

    serial: int
    component: int
    calls: list[Call]
    limit: int
    sent_s: float

    def open_positions(self) -> list[int]:
        return [at for at, call in enumerate(self.calls[: self.limit]) if not call.answered]


@dataclass(frozen=True, slots=True)
class KillReason:
    """Why a worker is killed, and the position that is at fault (-1: building the reward; None: nobody)."""

    why: str
    position: int | None = None
    elapsed_s: float = 0.0
    resident_mb: float = 0.0


@dataclass(slots=True, eq=False)
class RewardWorker:
    process: WorkerHandle
    chunk: SentChunk | None = None
    killed: KillReason | None = None
    hung_up: bool = False  # its end of the channel is closed: the fork server will report that it exited
    received_s: float = 0.0
    rows_done: int = 0

    @property
    def is_idle(self) -> bool:
        return self.chunk is None and self.killed is None and not self.hung_up

    def send(self, chunk: SentChunk, reward: int, rows: list[list[PickledRow]]) -> None:
        self.chunk = chunk
        self.process.slot.clear()
        self.process.slot.limit = chunk.limit
        self.process.send(pickle.dumps((chunk.serial, reward, rows), 5))
