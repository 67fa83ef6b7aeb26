"""One worker process as the parent sees it: its socket, what it was given, what it printed."""

import os
import socket
from dataclasses import dataclass, field

from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.channel import Inbox, pack
from verl_lite.plugins.execution.progress import Slot
from verl_lite.plugins.execution.wire import PickledRow

__all__ = ["Doom", "Given", "WorkerHandle"]

TAIL_BYTES = 2000  # of what a reward prints, kept for the reason when its worker is lost


@dataclass(slots=True)
class Given:
    """The chunk a worker has: `calls[limit:]` were given to others since."""

    serial: int
    component: int
    calls: list[Call]
    limit: int
    sent_s: float

    def open_positions(self) -> list[int]:
        """The positions still this worker's to answer."""
        return [at for at, call in enumerate(self.calls[: self.limit]) if not call.answered]


@dataclass(frozen=True, slots=True)
class Doom:
    """Why a worker is killed, and the position that is at fault (-1: the building; None: nobody)."""

    why: str
    position: int | None = None
    elapsed_s: float = 0.0
    resident_mb: float = 0.0


@dataclass(slots=True, eq=False)
class WorkerHandle:
    key: int
    index: int  # of its slot
    slot: Slot
    channel: socket.socket
    output_fd: int
    pid: int | None = None
    given: Given | None = None
    doom: Doom | None = None
    hung_up: bool = False  # its end of the channel is closed: the nursery will report that it exited
    inbox: Inbox = field(default_factory=Inbox)
    outgoing: bytearray = field(default_factory=bytearray)
    tail: bytes = b""
    heard_s: float = 0.0
    rows_done: int = 0

    @property
    def is_idle(self) -> bool:
        return self.given is None and self.doom is None and not self.hung_up

    def give(self, given: Given, reward: int, rows: list[list[PickledRow]]) -> None:
        self.given = given
        self.slot.clear()
        self.slot.limit = given.limit
        self.outgoing += pack((given.serial, reward, rows))
        self.write()

    def write(self) -> None:
        """Send as much as fits; the rest waits until the socket takes more."""
        try:
            while self.outgoing:
                sent = self.channel.send(self.outgoing[: 1 << 18])
                del self.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()  # it died: the nursery reports that

    def read_output(self) -> bool:
        """Take in what the reward printed; False at the end of it."""
        try:
            printed = os.read(self.output_fd, 1 << 16)
        except BlockingIOError:
            return True
        self.tail = (self.tail + printed)[-TAIL_BYTES:]
        return bool(printed)

    def resident_mb(self) -> float:
        if self.pid is None:
            return 0.0
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return 0.0

    def close(self) -> None:
        self.channel.close()
        os.close(self.output_fd)
