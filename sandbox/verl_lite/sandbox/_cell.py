"""From a fresh child of the fork server to a process that may run a stranger's program."""

import os
import resource
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from verl_lite.sandbox import _kernel, _landlock
from verl_lite.sandbox._rootfs import TMP_MOUNT, WORK_DIR

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


_FOR_EACH_RUN = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_STACK,
)
_SAME_FOR_ALL = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_MEMLOCK, 0),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_SIGPENDING, 256),
)
_LIMITS = struct.Struct("<6q")
LIMITS_BYTES = _LIMITS.size


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a fork server confines: fixed when it starts, the same for each of its runs."""

    uid: int
    gid: int
    change_identity: bool  # as root: become `uid`, which nothing else on the host uses
    own_proc: bool
    namespaces: int  # made for each run, besides its PID namespace
    landlock_ruleset: int | None
    seccomp_seal: _kernel.SeccompFilter
    ceilings: Mapping[int, int]  # the host's own hard limits, by resource
    base_address_space: int  # what the interpreter has mapped before the program starts
    extra_processes: int  # ours that the kernel counts with the run's


def prepare_fork_server(confinement: Confinement) -> None:
    """Take on what is the same for every run and does not hinder the fork server: runs inherit it."""
    for which, most in _SAME_FOR_ALL:
        resource.setrlimit(which, (min(most, _ceiling(which)),) * 2)
    if confinement.change_identity:
        os.setgroups([])
        os.setresgid(confinement.gid, confinement.gid, confinement.gid)
    os.umask(0o077)


def host_ceilings() -> dict[int, int]:
    """The host's hard limits for what `confine` limits."""
    return {which: resource.getrlimit(which)[1] for which in _FOR_EACH_RUN}


def _ceiling(which: int) -> int:
    hard = resource.getrlimit(which)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 62


def confine(confinement: Confinement, limits: CellLimits) -> None:
    """Lock this process up for good: files of its own, no identity, no capabilities, limits, Landlock,
    seccomp. In this order: each step needs what a later one takes away.
    """
    _kernel.unshare(confinement.namespaces)
    _mount_private(confinement, limits)
    os.setsid()  # kill(0, ...) must not reach the fork server's process group
    if confinement.change_identity:
        os.setresuid(confinement.uid, confinement.uid, confinement.uid)
    _kernel.drop_capabilities()
    _set_limits(confinement, limits)
    os.mkdir(WORK_DIR)
    os.mkdir("/tmp/.shm")
    os.chdir(WORK_DIR)
    if confinement.landlock_ruleset is not None:
        _landlock.restrict(confinement.landlock_ruleset)
    confinement.seccomp_seal.install()


def _mount_private(confinement: Confinement, limits: CellLimits) -> None:
    """A /tmp and a /proc of the run's own, over the read-only root."""
    inodes = 4096 + limits.disk_bytes // 16384
    owner = f"uid={confinement.uid},gid={confinement.gid}"
    options = f"mode=700,size={limits.disk_bytes},nr_inodes={inodes},{owner}"
    _kernel.mount("tmpfs", TMP_MOUNT, "tmpfs", _TMP_FLAGS, options)
    if confinement.own_proc:
        _kernel.mount("proc", "/proc", "proc", _TMP_FLAGS, "subset=pid,hidepid=2")


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
    )
    for which, soft, hard in table:
        ceiling = confinement.ceilings[which]
        if ceiling != resource.RLIM_INFINITY:  # a host's lower limit stays
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(which, (soft, hard))
