"""From a fresh process in fresh namespaces to one that may run a stranger's program.

Runs in the first process of the run's PID namespace, which then forks the program and waits for it.
Everything is locked before the fork, so that this first process is as confined as the program.
"""

import os
import resource
import select
import struct
from dataclasses import dataclass

from verl_lite.sandbox import _kernel, _landlock
from verl_lite.sandbox._rootfs import WORK_DIR

_TMP_FLAGS = _kernel.MS_NOSUID | _kernel.MS_NODEV | _kernel.MS_NOEXEC
_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class CellLimits:
    """The limits the kernel enforces, as they travel to the fork server."""

    memory_bytes: int
    cpu_s: int
    processes: int
    file_bytes: int
    disk_bytes: int
    open_files: int

    def pack(self) -> bytes:
        """As bytes, for the fork server."""
        return _LIMITS.pack(
            self.memory_bytes, self.cpu_s, self.processes, self.file_bytes, self.disk_bytes, self.open_files
        )

    @classmethod
    def unpack(cls, data: bytes) -> "CellLimits":
        """The inverse of `pack`."""
        return cls(*_LIMITS.unpack(data))


_LIMITS = struct.Struct("<6q")
LIMITS_BYTES = _LIMITS.size


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a fork server confines: fixed when it starts, the same for each of its runs."""

    uid: int
    gid: int
    change_identity: bool  # as root: become `uid`, which nothing else on the host uses
    own_proc: bool
    landlock_abi: int
    seccomp_filter: bytes
    base_address_space: int  # what the interpreter has mapped before the program starts
    execute_paths: list[str]
    extra_processes: int  # ours that the kernel counts with the run's


def mount_private(confinement: Confinement, limits: CellLimits) -> None:
    """A /tmp and a /proc of the run's own, over the read-only root."""
    inodes = 4096 + limits.disk_bytes // 16384
    options = (
        f"mode=700,size={limits.disk_bytes},nr_inodes={inodes},uid={confinement.uid},gid={confinement.gid}"
    )
    _kernel.mount("tmpfs", "/tmp", "tmpfs", _TMP_FLAGS, options)
    if confinement.own_proc:
        _kernel.mount("proc", "/proc", "proc", _TMP_FLAGS, "subset=pid,hidepid=2")
    _kernel.set_host_name("sandbox")


def confine(confinement: Confinement, limits: CellLimits, lifeline: int) -> None:
    """Drop identity and capabilities, tie this process's life to the fork server's, set the limits,
    and lock the file system and the system calls. In this order: each step needs what a later one takes.
    """
    os.setsid()  # kill(0, ...) must not reach the process group of the trainer
    if confinement.change_identity:
        os.setgroups([])
        os.setresgid(confinement.gid, confinement.gid, confinement.gid)
        os.setresuid(confinement.uid, confinement.uid, confinement.uid)
    _kernel.drop_capabilities()
    _kernel.prctl(_kernel.PR_SET_NO_NEW_PRIVS, 1)
    die_with_parent(lifeline)
    _set_limits(confinement, limits)
    os.umask(0o077)
    for folder in (WORK_DIR, "/tmp/.shm"):
        os.mkdir(folder)
    os.chdir(WORK_DIR)
    if confinement.landlock_abi:
        _landlock.restrict(
            version=confinement.landlock_abi,
            execute=confinement.execute_paths,
            read=["/"],
            write_files=["/dev/null", "/dev/zero"],
            own=["/tmp"],
        )
    _kernel.install_seccomp(confinement.seccomp_filter)


def die_with_parent(lifeline: int) -> None:
    """Be killed when the parent dies, also if it died just before this call.

    `lifeline` is the reading end of a pipe that only the parent can write to; a hang-up means it is
    gone. Changing identity clears the setting, so this comes after that.
    """
    _kernel.prctl(_kernel.PR_SET_PDEATHSIG, 9)
    poll = select.poll()
    poll.register(lifeline, 0)
    if poll.poll(0):
        os._exit(1)


def _set_limits(confinement: Confinement, limits: CellLimits) -> None:
    address_space = confinement.base_address_space + limits.memory_bytes
    processes = limits.processes + confinement.extra_processes
    stack = min(max(limits.memory_bytes // 4, 8 * _MB), 64 * _MB)
    table = (
        (resource.RLIMIT_AS, address_space, address_space),
        (resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1),
        (resource.RLIMIT_NPROC, processes, processes),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_STACK, stack, stack),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_SIGPENDING, 256, 256),
    )
    for which, soft, hard in table:
        ceiling = resource.getrlimit(which)[1]
        if ceiling != resource.RLIM_INFINITY:  # a host's lower limit stays
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(which, (soft, hard))
