"""The fork server: the process that every run is forked from.

It never sees a program, an input or an output: those travel in descriptors it only hands on, so a
run that searches its inherited memory finds nothing of other runs. It is the first process of a PID
namespace of its own: when it dies, the kernel kills everything below it.
"""

import _signal  # type: ignore[import-not-found] # `signal` and `socket` wrap these in enumerations: pages more for each run to copy
import _socket
import contextlib
import gc
import os
import select
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import NoReturn

from verl_lite.sandbox import _cell, _kernel, _landlock, _rootfs, _seccomp
from verl_lite.sandbox._payload import MAIN_FILE, place_files, read_all, unpack
from verl_lite.sandbox._program import Interpreter
from verl_lite.sandbox.limits import REPLY_FD

# What the fork server sends when a run is over and gone: the program's wait status, when it ended,
# CPU seconds of its processes and of its set-up, and its peak resident KiB.
ENDED = struct.Struct("<iddq")
# What a run writes to its reply before its program starts: when, and the CPU seconds spent until then;
# or, in as many bytes, why it cannot.
STARTED = struct.Struct("<cdd")
IS_STARTED, IS_FAILED = b"S", b"F"
KILL = b"K"
DESCRIPTORS = struct.Struct("@5i")  # payload, stdin, stdout, stderr, reply
_ANCILLARY_BYTES = _socket.CMSG_SPACE(DESCRIPTORS.size)
_MOST_KEPT_LIMITS = 64
_RUN_NAMESPACES = _kernel.CLONE_NEWNS | _kernel.CLONE_NEWIPC | _kernel.CLONE_NEWUTS


@dataclass(frozen=True, slots=True)
class ZygoteOptions:
    """`network_per_run`: a network namespace for each run instead of one for the fork server."""

    staging: str
    paths: list[str]
    uid: int  # whom a run is: an unused user as root, else a name for `outer_uid` in the user namespace
    gid: int
    outer_uid: int
    outer_gid: int
    as_root: bool
    network_per_run: bool
    preload: list[str]
    module_paths: list[str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the fork server made once for all its runs. `namespace` is its own PID namespace."""

    confinement: _cell.Confinement
    interpreter: Interpreter
    namespace: int
    poll: select.poll
    calls: dict[bytes, tuple[_kernel.Call, ...]] = field(default_factory=dict)

    def calls_for(self, limits: bytes) -> tuple[_kernel.Call, ...]:
        """The calls that lock a run with packed `limits` up."""
        if limits not in self.calls:
            if len(self.calls) >= _MOST_KEPT_LIMITS:
                self.calls.clear()
            self.calls[limits] = _cell.confinement_calls(self.confinement, _cell.CellLimits.unpack(limits))
        return self.calls[limits]


def serve(link: _socket.socket, options: ZygoteOptions) -> NoReturn:
    """Isolate this process, say so on `link` (b"ready" or the reason why not), then fork on request."""
    try:
        own = _prepare(options)
    except (OSError, ValueError) as error:
        link.send(b"failed: " + str(error).encode())
        os._exit(1)
    own.poll.register(link, select.POLLIN)
    gc.collect()
    gc.freeze()  # so that a collection in a run does not copy every page
    link.send(b"ready")
    while True:
        message, ancillary, _, _ = link.recvmsg(_cell.LIMITS_BYTES, _ANCILLARY_BYTES)
        if not message:
            os._exit(0)
        if ancillary:  # else a kill that came too late
            descriptors = DESCRIPTORS.unpack(ancillary[0][2])
            link.send(_run(link, own, own.calls_for(message), descriptors))


def _run(
    link: _socket.socket, own: "Prepared", calls: tuple[_kernel.Call, ...], descriptors: tuple[int, ...]
) -> bytes:
    """One run in a PID namespace of its own; returns when it is gone."""
    init = _kernel.clone_init()
    namespace = os.pidfd_open(init)
    _kernel.enter_namespace(namespace, _kernel.CLONE_NEWPID)
    os.close(namespace)
    program = os.fork()
    if program == 0:
        _become(own, calls, descriptors)
    _kernel.enter_namespace(own.namespace, _kernel.CLONE_NEWPID)
    for descriptor in descriptors:
        os.close(descriptor)
    _wait(program, init, link, own.poll)
    _, status, usage = os.wait4(program, 0)
    ended_s = time.monotonic()
    os.kill(init, _signal.SIGKILL)  # and with it the kernel kills all that the program left behind
    _, _, rest = os.wait4(init, 0)
    cpu_s = usage.ru_utime + usage.ru_stime + rest.ru_utime + rest.ru_stime
    return ENDED.pack(status, ended_s, cpu_s, usage.ru_maxrss)


def _wait(program: int, init: int, link: _socket.socket, poll: select.poll) -> None:
    """Wait for the end of `program`, and kill its whole namespace when told to."""
    pidfd = os.pidfd_open(program)
    poll.register(pidfd, select.POLLIN)
    while not any(fd == pidfd for fd, _ in poll.poll()):
        if not link.recv(16):
            os._exit(0)
        os.kill(init, _signal.SIGKILL)
    poll.unregister(pidfd)
    os.close(pidfd)


def _prepare(options: ZygoteOptions) -> "Prepared":
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # the one signal Python handles, and so the one a
    # run could send to the first process of its namespace
    sys.path.extend(options.module_paths)
    for name in options.preload:
        with contextlib.suppress(ImportError):  # a Python built without it
            __import__(name)
    if not options.as_root:
        _map_identity(options)
    _kernel.set_host_name("sandbox")
    interpreter = Interpreter(_rootfs.WORK_DIR)
    address_space = _address_space()
    own_proc = _rootfs.build_root(
        staging=options.staging, paths=options.paths, uid=options.uid, gid=options.gid
    )
    version = _landlock.abi()
    executable = [path for path in options.paths if path not in _rootfs.DATA]
    ruleset = (
        _landlock.make_ruleset(version, execute=executable, own=[_rootfs.PRIVATE_DIR]) if version else None
    )
    _kernel.prctl(_kernel.PR_SET_NO_NEW_PRIVS, 1)
    _kernel.SeccompFilter(_seccomp.server_filter()).install()
    confinement = _cell.Confinement(
        uid=options.uid,
        gid=options.gid,
        change_identity=options.as_root,
        own_proc=own_proc,
        namespaces=_RUN_NAMESPACES | (_kernel.CLONE_NEWNET if options.network_per_run else 0),
        landlock_ruleset=ruleset,
        seccomp_seal=_kernel.SeccompFilter(_seccomp.run_filter()),
        ceilings=_cell.host_ceilings(),
        base_address_space=address_space,
        extra_processes=0 if options.as_root else 2,
    )
    _cell.prepare_fork_server(confinement)
    namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    return Prepared(confinement, interpreter, namespace, select.poll())


def _map_identity(options: ZygoteOptions) -> None:
    """Give the one identity an ordinary user may map its name inside."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{options.uid} {options.outer_uid} 1"),
        ("gid_map", f"{options.gid} {options.outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _become(own: "Prepared", calls: tuple[_kernel.Call, ...], descriptors: tuple[int, ...]) -> NoReturn:
    """In the child: lock everything, place the files, say so, and run the program."""
    payload_fd, *streams = descriptors
    reply = streams[REPLY_FD]
    try:
        _kernel.make_calls(calls)
        source, args, files = unpack(read_all(payload_fd))
        place_files({MAIN_FILE: source, **files}, _rootfs.WORK_DIR)
    except (OSError, ValueError, MemoryError) as error:
        os.write(reply, IS_FAILED + f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    os.write(reply, STARTED.pack(IS_STARTED, time.monotonic(), time.process_time()))
    _keep_only(streams)
    own.interpreter.run_program(source, args)


_OWN_PROC_AGAIN = (_kernel.prctl_call(_kernel.PR_SET_DUMPABLE, 1),)


def _keep_only(streams: list[int]) -> None:
    """Put stdin, stdout, stderr and the reply on 0 to 3, and close everything else."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(len(streams), 1 << 16)
    _kernel.make_calls(_OWN_PROC_AGAIN)
