"""Turns a fresh child of the fork server into a process that may run an untrusted program."""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from verl_lite.sandbox import _kernel
from verl_lite.sandbox._rootfs import TMP_MOUNT, WORK
from verl_lite.sandbox.limits import STACKS_MB

_TMP_FLAGS = _kernel.MS_NOSUID | _kernel.MS_NODEV | _kernel.MS_NOEXEC
_MB = 1 << 20
_DIES_WITH_PARENT = _kernel.prctl_call(_kernel.PR_SET_PDEATHSIG, 9)
_UNUSED_UIDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class KernelLimits:
    """The limits that the kernel enforces, in the units it takes."""

    memory_bytes: int
    cpu_s: int
    processes: int
    file_bytes: int
    disk_bytes: int
    open_files: int

    def pack(self) -> bytes:
        return _LIMITS.pack(
            self.memory_bytes, self.cpu_s, self.processes, self.file_bytes, self.disk_bytes, self.open_files
        )

    @classmethod
    def unpack(cls, data: bytes) -> "KernelLimits":
        return cls(*_LIMITS.unpack(data))


_FOR_EACH_RUN = (
    _kernel.RLIMIT_AS,
    _kernel.RLIMIT_CPU,
    _kernel.RLIMIT_NPROC,
    _kernel.RLIMIT_FSIZE,
    _kernel.RLIMIT_NOFILE,
    _kernel.RLIMIT_STACK,
)
_SAME_FOR_ALL = (
    (_kernel.RLIMIT_CORE, 0),
    (_kernel.RLIMIT_MEMLOCK, 0),
    (_kernel.RLIMIT_MSGQUEUE, 0),
    (_kernel.RLIMIT_SIGPENDING, 256),
)
_LIMITS = struct.Struct("<6q")
LIMITS_BYTES = _LIMITS.size


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a fork server confines its runs: fixed at start, the same for every run."""

    uid: int
    gid: int
    change_identity: bool  # as root: switch to `uid`, which nothing else on the host uses
    own_proc: bool
    namespaces: int  # created per run, besides its PID namespace; 0: none, and no mounts
    tmp: str  # the private folder
    landlock_ruleset: int | None
    seccomp_seal: _kernel.SeccompFilter
    ceilings: Mapping[int, int]  # the host's own hard limits, by resource
    base_address_space: int  # what the interpreter has mapped before the program starts
    extra_processes: int | None  # ours, which the kernel counts with the run's; None: others' too


def unused_uid() -> int:
    """A user that nothing on this machine has, but the sandbox of this process."""
    return _UNUSED_UIDS + os.getpid()


def become_ordinary() -> None:
    """Root in a container may have no right to make namespaces, but an ordinary user often has, in a user
    namespace. Not root there: the kernel does not limit the number of root's processes.
    """
    unused = unused_uid()
    try:
        os.setgroups([])
        os.setresgid(unused, unused, unused)
        os.setresuid(unused, unused, unused)
    except OSError as error:
        raise OSError(
            error.errno,
            f"root without CAP_SYS_ADMIN, and no other user to become ({error.strerror}): give the container "
            "CAP_SYS_ADMIN, or CAP_SETUID and CAP_SETGID, or run it as an ordinary user",
        ) from error
    _kernel.prctl(_kernel.PR_SET_DUMPABLE, 1)  # the change of user cleared it, which hides our own /proc


def prepare_fork_server(confinement: Confinement) -> None:
    """Apply what all runs share and the fork server itself can live with; runs inherit it."""
    for which, most in _SAME_FOR_ALL:
        limit = min(most, _kernel.hard_limit(which))
        _kernel.make_calls([_kernel.limit_call(which, limit, limit)])
    if confinement.change_identity:
        os.setgroups([])
        os.setresgid(confinement.gid, confinement.gid, confinement.gid)
        _kernel.make_calls([_DIES_WITH_PARENT])  # again: the change of group cleared it
    os.umask(0o077)


def host_ceilings() -> dict[int, int]:
    """The host's hard limits for every resource that is limited per run."""
    return {which: _kernel.hard_limit(which) for which in _FOR_EACH_RUN}


def confinement_calls(confinement: Confinement, limits: KernelLimits) -> tuple[_kernel.Call, ...]:
    """The system calls that confine a process irrevocably: private files, unprivileged user, no
    capabilities, limits, Landlock, seccomp. The order matters: each step needs what a later one drops.
    """
    uid, ruleset, tmp = confinement.uid, confinement.landlock_ruleset, confinement.tmp
    return (
        *(_private_mounts(confinement, limits) if confinement.namespaces else [_DIES_WITH_PARENT]),
        (os.setsid, (), "setsid"),  # kill(0, ...) must not reach the fork server's process group
        *([(os.setresuid, (uid, uid, uid), "setresuid")] if confinement.change_identity else []),
        _kernel.drop_capabilities_call(),
        *_limit_calls(confinement, limits),
        (os.mkdir, (f"{tmp}/{WORK}",), "mkdir"),
        (os.mkdir, (f"{tmp}/.shm",), "mkdir"),
        (os.chdir, (f"{tmp}/{WORK}",), "chdir"),
        *([_kernel.landlock_restrict_call(ruleset)] if ruleset is not None else []),
        confinement.seccomp_seal.call,
    )


def _private_mounts(confinement: Confinement, limits: KernelLimits) -> list[_kernel.Call]:
    """A private /tmp and /proc per run, over the read-only root."""
    inodes = 4096 + limits.disk_bytes // 16384
    owner = f"uid={confinement.uid},gid={confinement.gid}"
    options = f"mode=700,size={limits.disk_bytes},nr_inodes={inodes},{owner}"
    calls = [
        _kernel.unshare_call(confinement.namespaces),
        _kernel.mount_call("tmpfs", TMP_MOUNT, "tmpfs", _TMP_FLAGS, options),
    ]
    if confinement.own_proc:
        calls.append(_kernel.mount_call("proc", "/proc", "proc", _TMP_FLAGS, "subset=pid,hidepid=2"))
    return calls


def _limit_calls(confinement: Confinement, limits: KernelLimits) -> list[_kernel.Call]:
    address_space = confinement.base_address_space + limits.memory_bytes
    with_stacks = address_space + STACKS_MB * _MB  # the interpreter raises it for threads
    extra = confinement.extra_processes
    processes = _kernel.RLIM_INFINITY if extra is None else limits.processes + extra
    stack = min(max(limits.memory_bytes // 4, 8 * _MB), 64 * _MB)
    table = (
        (_kernel.RLIMIT_AS, address_space, with_stacks),
        (_kernel.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1),
        (_kernel.RLIMIT_NPROC, processes, processes),
        (_kernel.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (_kernel.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (_kernel.RLIMIT_STACK, stack, _kernel.RLIM_INFINITY),  # programs may raise it: the rest bounds it
    )
    ceilings = confinement.ceilings  # a lower limit of the host stands
    return [
        _kernel.limit_call(which, min(soft, ceilings[which]), min(hard, ceilings[which]))
        for which, soft, hard in table
    ]
