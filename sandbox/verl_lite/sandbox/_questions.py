"""Answers for what the system-call filter asks about: shared memory and, without namespaces, processes.

Shared anonymous memory is charged to no process: one can write it, leave it to a child, and unmap it. So a
mapping waits until its size is added to the run's. What a run unmaps again stays counted, since another
process may still have it.

Without namespaces, other processes of a run's user may not be its own. So each new process or thread waits
until the run's are counted, and each signal until its target is found among them.
"""

import errno
import fcntl
import struct
from collections.abc import Callable

from verl_lite.sandbox import _kernel, _syscalls

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctls of a seccomp listener
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, thread, flags, and struct seccomp_data
_ANSWER = struct.Struct("=QqiI")  # id, value, error, flags
_CONTINUE = 1
_COLUMN = _syscalls.COLUMN.get(_kernel.MACHINE, 0)
_MMAP = _syscalls.MMAP[_COLUMN]
_FORKS = {numbers[_COLUMN] for numbers in _syscalls.FORKS}


class Questions:
    """Those of one run at a time. `listener` is the descriptor of the filter of fork server `server`;
    `tasks` lists the processes and threads of the run, where the filter asks about those.
    """

    def __init__(self, listener: int, server: int, tasks: Callable[[], set[int]] | None) -> None:
        self.listener = listener
        self.num_bytes = 0
        self._server, self._tasks = server, tasks

    def begin_run(self) -> None:
        self.num_bytes = 0

    def answer(self, *, limit_bytes: int, processes: int, stopped: bool) -> bool:
        """Answer one question; False, and no answer, when shared memory is above `limit_bytes`.

        What is asked about are numbers in registers, so the caller cannot change them meanwhile. Who belongs
        to a `stopped` run waits until it is killed, so that its processes become no more.
        """
        question = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, question)
            identity, thread, _, call, _, _, first, second, *_ = _NOTIFICATION.unpack(question)
            if call == _MMAP:
                self.num_bytes += second
                if self.num_bytes > limit_bytes:
                    return False
            if stopped and self._tasks is not None and thread != self._server:
                return True
            error = 0 if call == _MMAP else self._error(thread, call, first & 0xFFFFFFFF, processes)
            answer = _ANSWER.pack(identity, 0, -error, 0 if error else _CONTINUE)
            fcntl.ioctl(self.listener, _SEND, bytearray(answer))
        except OSError:
            pass  # the caller was killed meanwhile
        return True

    def _error(self, thread: int, call: int, target: int, processes: int) -> int:
        if thread == self._server or self._tasks is None:
            return 0
        tasks = self._tasks()
        if call in _FORKS:
            return errno.EAGAIN if len(tasks) >= processes else 0
        group_of_caller = 0  # all in the run's own session
        return 0 if target == group_of_caller or target in tasks else errno.EPERM
