"""Answers for the shared anonymous memory that a run maps: the system-call filter asks about each mapping.

Such memory is charged to no process: one can write it, leave it to a child, and unmap it. So a mapping
waits until its size is added to the run's. What a run unmaps again stays counted, since another process
may still have it.
"""

import fcntl
import struct

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctls of a seccomp listener
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, and struct seccomp_data
_ANSWER = struct.Struct("=QqiI")  # id, value, error, flags
_CONTINUE = 1


class SharedMappings:
    """Those of one run at a time. `listener` is the descriptor of a filter that asks about nothing else."""

    def __init__(self, listener: int) -> None:
        self.listener = listener
        self.num_bytes = 0

    def begin_run(self) -> None:
        self.num_bytes = 0

    def answer(self, *, limit_bytes: int) -> bool:
        """Count one mapping and let the kernel continue; False, and no answer, above `limit_bytes`.

        What the call asks for are numbers in registers, so the caller cannot change them meanwhile.
        """
        question = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, question)
            identity, _, _, _, _, _, _, length, *_ = _NOTIFICATION.unpack(question)
            self.num_bytes += length
            if self.num_bytes > limit_bytes:
                return False
            fcntl.ioctl(self.listener, _SEND, bytearray(_ANSWER.pack(identity, 0, 0, _CONTINUE)))
        except OSError:
            pass  # the caller was killed meanwhile
        return True
