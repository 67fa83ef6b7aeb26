"""System calls that Python 3.11 does not wrap, in plain ctypes. Each raises OSError naming the call.

Loaded by the fork server, so it imports little: every fork copies whatever is loaded there.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterable
from typing import Any

MACHINE = os.uname().machine if hasattr(os, "uname") else ""

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SIGCHLD, _CLONE_VM = 17, 0x100
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_NPROC, RLIMIT_NOFILE = 0, 1, 3, 4, 6, 7
RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE = 8, 9, 11, 12
RLIM_INFINITY = (1 << 64) - 1

# The same numbers on every architecture.
_MOUNT_SETATTR, LANDLOCK_CREATE, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT = 442, 444, 445, 446
# clone, pivot_root, capset, seccomp, sched_setattr
_OLD = {"x86_64": (56, 155, 126, 317, 314), "aarch64": (220, 41, 91, 277, 274)}
_CLONE, _PIVOT_ROOT, _CAPSET, _SECCOMP, _SCHED_SETATTR = _OLD.get(MACHINE, (-1,) * 5)

# PyDLL keeps the interpreter lock, so that a child made by a bare clone(2) holds it too.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


# A function of the C library or of `os`, its arguments in their final form, and its name for errors.
Call = tuple[Callable[..., int | None], tuple[Any, ...], str]


def make_calls(calls: Iterable[Call]) -> None:
    """Make prepared calls in order, up to the first that fails.

    The fork server prepares a run's set-up as such a list: a fork pays for each page it writes to
    first, and converting arguments in Python writes to many.
    """
    for function, arguments, name in calls:
        if function(*arguments) == -1:
            raise _error(name)


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")


def _check(result: int, what: str) -> int:
    if result < 0:
        raise _error(what)
    return result


def syscall(number: int, *arguments: int | bytes | None, name: str) -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *converted), name)


def clone_process(flags: int) -> int:
    """fork(2) with namespace flags: 0 in the child, which is the first process of its namespaces.

    At-fork hooks do not run and the C library's thread id is stale in the child, so the child may
    only set things up and call `os.fork()`; the grandchild is consistent again.
    """
    return syscall(_CLONE, flags | SIGCHLD, 0, 0, 0, 0, name="clone")


_NO_CAPABILITIES = (ctypes.c_long(_CAPSET), struct.pack("<II", 0x20080522, 0), bytes(24))
_INIT_STACK = ctypes.create_string_buffer(64 * 1024)


def clone_init() -> int:
    """Start the init of a new PID namespace: it only sleeps, in memory shared with this process.

    Sharing makes it cheap: no page table is copied. It sits in the C library's pause() on its own
    stack, so it never touches our memory. Only one at a time: they all use that stack.
    """
    top = ctypes.c_void_p((ctypes.addressof(_INIT_STACK) + len(_INIT_STACK)) & ~0xF)
    flags = _CLONE_VM | CLONE_NEWPID | SIGCHLD
    return _check(_libc.clone(_libc.pause, top, flags, None), "clone CLONE_NEWPID")


def unshare_call(flags: int) -> Call:
    return _libc.unshare, (flags,), "unshare"


def unshare(flags: int) -> None:
    make_calls([unshare_call(flags)])


def enter_namespace(descriptor: int, kind: int) -> None:
    """setns(2): for a PID namespace, it applies to later children."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount_call(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> Call:
    source_, target_, kind_, data_ = (None if t is None else t.encode() for t in (source, target, kind, data))
    arguments = (source_, target_, kind_, ctypes.c_ulong(flags), data_)
    return _libc.mount, arguments, f"mount {kind or source} on {target}"


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    make_calls([mount_call(source, target, kind, flags, data)])


def make_read_only(target: str) -> None:
    """Set read-only, nosuid and nodev on `target` and every mount below it (Linux 5.12)."""
    _set_mount(target, MS_RDONLY | MS_NOSUID | MS_NODEV, 0, recursive=True)


def allow_devices(target: str) -> None:
    """Clear nodev on the mount `target`, so that its device node can be opened."""
    _set_mount(target, 0, MS_NODEV, recursive=False)


def _set_mount(target: str, add: int, remove: int, *, recursive: bool) -> None:
    attributes = struct.pack("<QQQQ", add, remove, 0, 0)
    here, depth = -100, 0x8000 if recursive else 0
    arguments = (here, target.encode(), depth, attributes, len(attributes))
    syscall(_MOUNT_SETATTR, *arguments, name=f"mount_setattr {target}")


def pivot_root(new: str, old: str) -> None:
    syscall(_PIVOT_ROOT, new.encode(), old.encode(), name="pivot_root")


def unmount(target: str) -> None:
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def prctl_call(option: int, value: int) -> Call:
    zero = ctypes.c_ulong(0)
    return _libc.prctl, (option, ctypes.c_ulong(value), zero, zero, zero), f"prctl {option}"


def prctl(option: int, value: int) -> None:
    make_calls([prctl_call(option, value)])


def drop_capabilities_call() -> Call:
    """capset(2): give up every capability of this process."""
    return _libc.syscall, _NO_CAPABILITIES, "capset"


def may_make_namespaces() -> bool:
    """Whether this process has CAP_SYS_ADMIN."""
    with open("/proc/self/status", encoding="utf-8") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> 21 & 1)


def run_first() -> None:
    """Let this process, which uses little, run before programs that use all they get: in real time where
    that is allowed, else in short slices (Linux 6.12). Its children do not inherit it.
    """
    round_robin, slice_ns = 2, 100_000
    if not _schedule(round_robin, 1, 0):
        _schedule(0, 0, slice_ns)


def run_as_others() -> None:
    """The end of `run_first`."""
    _schedule(0, 0, 0)


def _schedule(policy: int, priority: int, slice_ns: int) -> bool:
    reset_on_fork = 1
    attributes = struct.pack("=IIQiIQQQ", 48, policy, reset_on_fork, 0, priority, slice_ns, 0, 0)
    try:
        syscall(_SCHED_SETATTR, 0, attributes, 0, name="sched_setattr")
    except OSError:
        return False
    return True


def limit_call(which: int, soft: int, hard: int) -> Call:
    return _libc.setrlimit, (which, struct.pack("@LL", soft, hard)), f"setrlimit {which}"


def raise_to_hard_limit(which: int) -> None:
    """setrlimit(2): let this process have all it may."""
    hard = hard_limit(which)
    make_calls([limit_call(which, hard, hard)])


def hard_limit(which: int) -> int:
    both = ctypes.create_string_buffer(16)
    _check(_libc.getrlimit(which, both), f"getrlimit {which}")
    hard: int = struct.unpack("@LL", both.raw)[1]
    return hard


def landlock_restrict_call(ruleset: int) -> Call:
    arguments = (LANDLOCK_RESTRICT, ruleset, 0)
    return _libc.syscall, tuple(map(ctypes.c_long, arguments)), "landlock_restrict_self"


def set_host_name(name: str) -> None:
    """sethostname(2), in our own UTS namespace."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


class SeccompFilter:
    """A BPF program (see `_seccomp`) in the kernel's layout, ready to be installed."""

    def __init__(self, program: bytes) -> None:
        self._program = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(self._program))
        self._pointer = pointer = ctypes.create_string_buffer(header, len(header))
        zero, mode_filter = ctypes.c_ulong(0), ctypes.c_ulong(2)
        self.call: Call = (
            _libc.prctl,
            (PR_SET_SECCOMP, mode_filter, pointer, zero, zero),
            "prctl PR_SET_SECCOMP",
        )

    def install(self) -> None:
        """For this process and its children, irrevocably."""
        make_calls([self.call])

    def install_with_listener(self) -> int:
        """The same; returns the descriptor on which the calls that the filter asks about arrive."""
        mode_filter, new_listener = 1, 8
        return syscall(_SECCOMP, mode_filter, new_listener, self._pointer, name="seccomp")  # type: ignore[arg-type]
