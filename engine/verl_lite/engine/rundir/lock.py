"""One process per run: a lock on its folder that ends with the process.

It is a POSIX record lock: the kernel drops it after kill -9, network file systems support it, and reward
workers, which may outlive the run briefly, do not inherit it.
"""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verl_lite.engine.rundir.checkpoint_files import clear_write_errors
from verl_lite.errors import ConfigError

LOCK_FILE = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[str]:
    """Lock `folder` for this process; creates it if missing.

    Yields the last holder if it was killed, else "". Raises ConfigError if another process holds the lock,
    TrainingError if the folder is not writable.
    """
    with clear_write_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    with file:
        file.seek(0)
        holder = file.read().strip()
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _refusal(folder, holder, error) from None
        with clear_write_errors(str(folder)):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
        try:
            yield holder
        finally:
            if _same(folder, file.fileno()):
                file.truncate(0)


def _refusal(folder: Path, holder: str, error: OSError) -> ConfigError:
    if error.errno in (errno.EACCES, errno.EAGAIN):
        return ConfigError(
            f"{folder} is in use by {holder or 'another process'}: two at once would overwrite each other's "
            "steps. Wait for it or stop it, or choose another --run-dir"
        )
    return ConfigError(
        f"{folder} cannot be locked ({error.strerror}): two processes could write into it at once. "
        "Put runs on a file system with POSIX locks"
    )


def _same(folder: Path, descriptor: int) -> bool:
    """Whether the folder still has this lock file: the user may have deleted it meanwhile."""
    try:
        return os.path.samestat((folder / LOCK_FILE).stat(), os.fstat(descriptor))
    except OSError:
        return False
