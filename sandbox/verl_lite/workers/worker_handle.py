"""The parent's handle to one worker process: its socket, what it printed, how it ended."""

import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field

from verl_lite.workers.channel import Inbox, frame
from verl_lite.workers.progress import Slot

CHANNEL_CLOSED = 71  # the exit code of a worker that found its channel closed by a job
TAIL_BYTES = 2000  # of what a worker prints, kept for the message when it dies


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """Made by `ForkServerHandle.fork`. `pid` is None until the fork server has reported it."""

    key: int
    index: int  # of its slot
    slot: Slot
    channel: socket.socket  # non-blocking
    output_fd: int
    pid: int | None = None
    exit_status: int | None = None  # as waitpid gives it
    inbox: Inbox = field(default_factory=Inbox)
    outgoing: bytearray = field(default_factory=bytearray)
    tail: bytes = b""
    jobs_done: int = 0

    def send(self, body: bytes) -> bool:
        """Send as much as fits, the rest when `write` is called; False when the worker is gone."""
        self.outgoing += frame(body)
        return self.write()

    def write(self) -> bool:
        """Send as much of `outgoing` as fits; False when the worker is gone."""
        try:
            while self.outgoing:
                sent = self.channel.send(self.outgoing[: 1 << 18])
                del self.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()
            return False
        return True

    def ask(self, job: bytes, deadline_s: float) -> bytes:
        """Send a job to an idle worker and wait for its answer until `deadline_s` (monotonic clock).

        Raises TimeoutError at the deadline, BrokenPipeError when the worker died before it took the
        job, and EOFError when it died with the job.
        """
        if not self.send(job):
            raise BrokenPipeError
        poller = select.poll()
        while True:
            poller.register(self.channel, select.POLLIN | (select.POLLOUT if self.outgoing else 0))
            if not poller.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
                raise TimeoutError
            self.write()
            is_open = self.inbox.read(self.channel)
            for body in self.inbox.bodies():
                return body
            if not is_open:
                raise EOFError

    def read_output(self) -> bool:
        """Read what the worker printed; False at end of file."""
        try:
            printed = os.read(self.output_fd, 1 << 16)
        except BlockingIOError:
            return True
        self.tail = (self.tail + printed)[-TAIL_BYTES:]
        return bool(printed)

    def close(self) -> None:
        """Close our ends; the worker itself ends by `ForkServerHandle.kill` or with its channel."""
        self.channel.close()
        os.close(self.output_fd)


def resident_mb(pid: int | None) -> float:
    """The resident memory of a process in MiB; 0.0 for one that is gone or not known."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0


def how_it_ended(status: int) -> str:
    """How a job's worker ended, in words; `status` is as waitpid gives it.

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
