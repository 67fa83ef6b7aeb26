"""A program's text and input as files in memory. Not loaded by the fork server, whose runs would copy it."""

import fcntl
import os

from verl_lite.sandbox._program_files import write_all


def memory_file(data: bytes) -> int:
    """An anonymous file with `data`, positioned at its start. As stdin it acts like a redirected file, but
    cannot grow: it is memory that no limit of the run covers.
    """
    descriptor = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if data:
        write_all(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
