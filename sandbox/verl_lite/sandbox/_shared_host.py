"""What holds a run where no namespace is allowed: its tree of processes, and a folder on the host's disk.

Landlock, the system-call filter (`_seccomp`) and the supervisor's answers (`_questions`) keep a run from
what is not its own; here is what ends it, counts its files and clears them away. The supervisor and the
fork server are subreapers: whatever a run starts stays below them.
"""

import _signal  # type: ignore[import-not-found]
import os
import stat
import time

from verl_lite.sandbox import _kernel
from verl_lite.sandbox._confinement import become_ordinary
from verl_lite.sandbox._usage import SOCKET_BYTES, Meter, Process, children, in_pipes, read_process

_PREFIX = "/tmp/verl-lite-run-"
_BLOCK = 512  # the unit of st_blocks
_PAUSE_S = 0.0005


def tasks_below(pid: int) -> set[int]:
    """Every process and thread below process `pid`."""
    found: set[int] = set()
    waiting = children(pid)
    while waiting:
        current = waiting.pop()
        if current not in found:
            waiting += children(current)
            found.add(current)
            try:
                found.update(map(int, os.listdir(f"/proc/{current}/task")))
            except OSError:
                continue
    return found


def end_tree(root: int, *, patience_s: float) -> bool:
    """Kill every process below `root`, and wait until they are gone; False when they are not in time.

    Some become children of `root` only when their parents end, so this looks again until there is none.
    """
    deadline_s = time.monotonic() + patience_s
    while children(root):
        for task in tasks_below(root):
            try:
                pidfd = os.pidfd_open(task)  # of threads there is none
            except OSError:
                continue
            try:
                _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(pidfd)
        if root == os.getpid():
            _reap_ended()
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_PAUSE_S)
    return True


def _reap_ended() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class SharedHost:
    """The place of one fork server's runs. `own_user` says whether their user is nobody else's."""

    def __init__(self, paths: list[str]) -> None:
        self.own_user = os.geteuid() == 0 and _became_ordinary()
        for path in paths:
            if not os.access(path, os.R_OK):
                raise OSError(
                    f"{path} cannot be read by the user that runs have here ({os.geteuid()}): use a Python "
                    "below /usr, or open the folders above it to others"
                )
        _kernel.prctl(_kernel.PR_SET_CHILD_SUBREAPER, 1)
        self.folder = f"{_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        os.mkdir(self.folder, 0o700)

    def meter(self, server: int) -> Meter:
        return HostMeter(server, folder=self.folder, base=read_process(server))

    def end(self, server: int, *, patience_s: float) -> bool:
        """Kill what runs below the fork server; False when it is not gone in time."""
        return end_tree(server, patience_s=patience_s)

    def tasks(self, server: int) -> set[int]:
        """The processes and threads of its run."""
        return tasks_below(server)

    def clear(self) -> None:
        """Remove what a run left in its folder. By moving folders up, since they may be nested deeper than
        any path or stack is long.
        """
        token, number = os.urandom(6).hex(), 0
        while names := os.listdir(self.folder):
            for name in names:
                path = f"{self.folder}/{name}"
                if not _is_folder(path):
                    os.unlink(path)
                    continue
                os.chmod(path, 0o700)
                for inner in os.listdir(path):
                    number += 1
                    if _is_folder(f"{path}/{inner}"):
                        os.chmod(f"{path}/{inner}", 0o700)  # to move a folder changes it
                    os.rename(f"{path}/{inner}", f"{self.folder}/{token}{number}")
                os.rmdir(path)

    def close(self) -> None:
        """End all processes below this one, and remove the folder."""
        end_tree(os.getpid(), patience_s=5.0)
        self.clear()
        os.rmdir(self.folder)


def _became_ordinary() -> bool:
    try:
        become_ordinary()
    except OSError:  # without CAP_SETUID
        return False
    return True


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


class HostMeter(Meter):
    """Measures runs whose files are in `folder`. `is_full`: the last look found more than is allowed."""

    def __init__(self, root: int, *, folder: str, base: Process) -> None:
        super().__init__(root, tmp=folder, base=base)
        self._device = os.stat(folder).st_dev

    def _outside_processes(self, pids: list[int], tmp_bytes: int, unseen: int) -> int:
        most_names = 4096 + tmp_bytes // 16384  # as many as in the tmpfs of a mount namespace
        files, names = self._in_folder(most_names)
        sockets: set[int] = set()
        for pid in pids:
            self._in_descriptors(pid, files, sockets)
        num_bytes = sum(files.values())
        self.is_full = num_bytes > tmp_bytes or names > most_names
        return num_bytes + len(sockets) * SOCKET_BYTES + sum(in_pipes(pid) for pid in pids)

    def _in_folder(self, most_names: int) -> tuple[dict[int, int], int]:
        """Bytes by inode, and the number of names; stops above `most_names`."""
        found: dict[int, int] = {}
        names, waiting = 0, [self._tmp]
        while waiting and names <= most_names:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        names += 1
                        status = entry.stat(follow_symlinks=False)
                        found[status.st_ino] = status.st_blocks * _BLOCK
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append(entry.path)
            except PermissionError:  # it took the right from itself
                os.chmod(folder, 0o700)
                waiting.append(folder)
            except FileNotFoundError:
                continue
            except OSError:  # a path that is too long
                return found, most_names + 1
        return found, names

    def _in_descriptors(self, pid: int, files: dict[int, int], sockets: set[int]) -> None:
        """Add what process `pid` has open: files that are in no folder any more, and sockets."""
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):
                status = os.stat(f"/proc/{pid}/fd/{number}")
                if stat.S_ISSOCK(status.st_mode):
                    sockets.add(status.st_ino)
                elif stat.S_ISREG(status.st_mode) and status.st_dev == self._device:
                    files[status.st_ino] = status.st_blocks * _BLOCK
        except OSError:
            return  # it has ended
