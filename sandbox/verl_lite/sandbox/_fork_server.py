"""The fork server: the process that every run is forked from.

It never reads a program, an input or an output: they travel in descriptors that it only passes on,
so a run that searches its inherited memory finds nothing of other runs. It is the init of its own
PID namespace: when it dies, the kernel kills every process in it.
"""

import _signal  # type: ignore[import-not-found] # `signal` and `socket` wrap these in enums: more pages for each run to copy
import _socket
import contextlib
import gc
import os
import select
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from verl_lite.sandbox import _confinement, _kernel, _landlock, _rootfs, _seccomp
from verl_lite.sandbox._program import Interpreter
from verl_lite.sandbox._program_files import MAIN_FILE, read_all, unpack_program, write_files
from verl_lite.sandbox.limits import REPLY_FD

if TYPE_CHECKING:
    import resource

# Sent by the fork server after a run: the program's wait status, when it ended (monotonic seconds),
# CPU seconds including set-up, and peak resident KiB.
ENDED = struct.Struct("<iddq")
# Written by a run to its reply before its program starts: the time and the CPU seconds spent so far;
# if it cannot start, the reason instead.
STARTED = struct.Struct("<cdd")
IS_STARTED, IS_FAILED = b"S", b"F"
KILL = b"K"
DESCRIPTORS = struct.Struct("@5i")  # program, stdin, stdout, stderr, reply
LISTENER = struct.Struct("@i")  # comes with b"ready": of the filter that asks about shared memory
_ANCILLARY_BYTES = _socket.CMSG_SPACE(DESCRIPTORS.size)
_MAX_CACHED_LIMITS = 64
_LANDLOCK_NEEDED = 3  # before, it does not keep a program from truncating files of its user
_END_S = 10.0
_RUN_NAMESPACES = _kernel.CLONE_NEWNS | _kernel.CLONE_NEWIPC | _kernel.CLONE_NEWUTS


@dataclass(frozen=True, slots=True)
class ForkServerOptions:
    """`network_per_run`: one network namespace per run instead of one per fork server. `folder` is the
    private folder of runs where there are no namespaces, else "".
    """

    folder: str
    own_user: bool
    paths: list[str]
    uid: int  # the user of a run: as root an unused one, else what `outer_uid` maps to in the user namespace
    gid: int
    outer_uid: int
    outer_gid: int
    as_root: bool
    network_per_run: bool
    preload: list[str]
    libraries: list[str]
    module_paths: list[str]


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the fork server prepares once for all its runs. `namespace` is its own PID namespace; -1: none."""

    confinement: _confinement.Confinement
    interpreter: Interpreter
    namespace: int
    listener: int
    poll: select.poll
    calls: dict[bytes, tuple[_kernel.Call, ...]] = field(default_factory=dict)

    def calls_for(self, limits: bytes) -> tuple[_kernel.Call, ...]:
        """The calls that confine a run with these packed `limits`."""
        if limits not in self.calls:
            if len(self.calls) >= _MAX_CACHED_LIMITS:
                self.calls.clear()
            self.calls[limits] = _confinement.confinement_calls(
                self.confinement, _confinement.KernelLimits.unpack(limits)
            )
        return self.calls[limits]


def serve(link: _socket.socket, options: ForkServerOptions) -> NoReturn:
    """Isolate this process, report on `link` (b"ready" or b"failed: " and why), then fork on request."""
    try:
        state = _prepare(options)
    except (OSError, ValueError) as error:
        link.send(b"failed: " + str(error).encode())
        os._exit(1)
    state.poll.register(link, select.POLLIN)
    gc.collect()
    gc.freeze()  # a collection in a run would copy every page
    link.sendmsg([b"ready"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, LISTENER.pack(state.listener))])
    os.close(state.listener)
    while True:
        message, ancillary, _, _ = link.recvmsg(_confinement.LIMITS_BYTES, _ANCILLARY_BYTES)
        if not message:
            os._exit(0)
        if ancillary:  # without descriptors: a kill that came too late
            descriptors = DESCRIPTORS.unpack(ancillary[0][2])
            calls = state.calls_for(message)
            if state.namespace >= 0:
                link.send(_run(link, state, calls, descriptors))
            else:
                link.send(_run_without_namespaces(state, calls, descriptors))
                _reap_all()  # the supervisor kills what is left


def _run_without_namespaces(
    state: ServerState, calls: tuple[_kernel.Call, ...], descriptors: tuple[int, ...]
) -> bytes:
    """One run; returns when its program has ended, whatever else it started."""
    program = os.fork()
    if program == 0:
        _start_program(state, calls, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    _, status, usage = os.wait4(program, 0)
    return ENDED.pack(status, time.monotonic(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def _run(
    link: _socket.socket, state: ServerState, calls: tuple[_kernel.Call, ...], descriptors: tuple[int, ...]
) -> bytes:
    """One run in its own PID namespace; returns when every process of it is gone."""
    init = _kernel.clone_init()
    namespace = os.pidfd_open(init)
    _kernel.enter_namespace(namespace, _kernel.CLONE_NEWPID)
    os.close(namespace)
    program = os.fork()
    if program == 0:
        _start_program(state, calls, descriptors)
    _kernel.enter_namespace(state.namespace, _kernel.CLONE_NEWPID)
    for descriptor in descriptors:
        os.close(descriptor)
    _wait(program, init, link, state.poll)
    _, status, usage = os.wait4(program, 0)
    ended_s = time.monotonic()
    os.kill(init, _signal.SIGKILL)  # the kernel then kills everything the program left behind
    rest = _reap(init)
    cpu_s = usage.ru_utime + usage.ru_stime + rest.ru_utime + rest.ru_stime
    return ENDED.pack(status, ended_s, cpu_s, usage.ru_maxrss)


def _reap(init: int) -> "resource.struct_rusage":
    """Wait for the init of a run's namespace, and for whatever else became our child meanwhile: the kernel
    ends a namespace only when all its processes are reaped.
    """
    while True:
        pid, _, usage = os.wait4(-1, 0)
        if pid == init:
            return usage


def _wait(program: int, init: int, link: _socket.socket, poll: select.poll) -> None:
    """Wait until `program` ends; on a message from `link`, kill its whole namespace."""
    pidfd = os.pidfd_open(program)
    poll.register(pidfd, select.POLLIN)
    while not any(fd == pidfd for fd, _ in poll.poll()):
        if not link.recv(16):
            os._exit(0)
        os.kill(init, _signal.SIGKILL)
    poll.unregister(pidfd)
    os.close(pidfd)


def _prepare(options: ForkServerOptions) -> ServerState:
    # Python handles SIGINT, so a run could send it to the init of its namespace.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    sys.path.extend(options.module_paths)
    for name in options.preload:
        with contextlib.suppress(ImportError):  # a Python built without this module
            __import__(name)
    for name in options.libraries:
        try:
            __import__(name)
        except Exception as error:
            raise ValueError(f"library {name} cannot be imported: {type(error).__name__}: {error}") from error
    tmp = options.folder or "/tmp"
    interpreter = Interpreter(f"{tmp}/{_rootfs.WORK}")
    address_space = _address_space()
    own_proc, ruleset = _share_host(options) if options.folder else _enter_root(options)
    _kernel.prctl(_kernel.PR_SET_NO_NEW_PRIVS, 1)
    isolated = not options.folder
    listener = _kernel.SeccompFilter(_seccomp.server_filter(namespaces=isolated)).install_with_listener()
    seal = _seccomp.run_filter(namespaces=isolated, own_user=options.own_user)
    per_run = _RUN_NAMESPACES | (_kernel.CLONE_NEWNET if options.network_per_run else 0)
    confinement = _confinement.Confinement(
        uid=options.uid,
        gid=options.gid,
        change_identity=options.as_root,
        own_proc=own_proc,
        namespaces=per_run if isolated else 0,
        tmp=tmp,
        landlock_ruleset=ruleset,
        seccomp_seal=_kernel.SeccompFilter(seal),
        ceilings=_confinement.host_ceilings(),
        base_address_space=address_space,
        extra_processes=_extra_processes(options),
    )
    _confinement.prepare_fork_server(confinement)
    namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if isolated else -1
    return ServerState(confinement, interpreter, namespace, listener, select.poll())


def _extra_processes(options: ForkServerOptions) -> int | None:
    """How many processes of a run's user are the sandbox's: its init or supervisor, and the fork server."""
    if not options.own_user:
        return None
    return 0 if options.as_root else 2


def _enter_root(options: ForkServerOptions) -> tuple[bool, int | None]:
    """Take the identity of runs and enter their root; whether they have a /proc, and Landlock's rules."""
    if not options.as_root:
        _map_identity(options)
    _kernel.set_host_name("sandbox")
    own_proc = _rootfs.build_root(staging="/tmp", paths=options.paths, uid=options.uid, gid=options.gid)
    version = _landlock.abi()
    if not version:
        return own_proc, None
    executable = [path for path in options.paths if path not in _rootfs.DATA]
    return own_proc, _landlock.make_ruleset(version, execute=executable, own=[_rootfs.PRIVATE_DIR])


def _share_host(options: ForkServerOptions) -> tuple[bool, int]:
    """Hide the host's files by Landlock alone, and stay alive until no process of a run is."""
    version = _landlock.abi()
    if version < _LANDLOCK_NEEDED:
        raise OSError(f"Landlock's ABI is {version} here: without namespaces, it must be {_LANDLOCK_NEEDED}")
    _kernel.prctl(_kernel.PR_SET_CHILD_SUBREAPER, 1)
    _kernel.prctl(_kernel.PR_SET_PDEATHSIG, _signal.SIGTERM)
    _signal.signal(_signal.SIGTERM, _end_with_runs)
    os.environ.update(HOME=f"{options.folder}/{_rootfs.WORK}", TMPDIR=options.folder)
    executable = [path for path in options.paths if path not in _rootfs.DATA]
    read = [*options.paths, "/dev/random", "/dev/urandom"]
    return False, _landlock.make_ruleset(version, execute=executable, own=[options.folder], read=read)


def _end_with_runs(*_: object) -> NoReturn:
    sys.modules["verl_lite.sandbox._shared_host"].end_tree(os.getpid(), patience_s=_END_S)
    os._exit(0)


def _reap_all() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _map_identity(options: ForkServerOptions) -> None:
    """Map our user and group, the only ones an ordinary user may map, to those of the namespace."""
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


def _start_program(
    state: ServerState, calls: tuple[_kernel.Call, ...], descriptors: tuple[int, ...]
) -> NoReturn:
    """In the child: confine it, write the files, report the start, and run the program."""
    program_fd, *streams = descriptors
    reply = streams[REPLY_FD]
    try:
        _kernel.make_calls(calls)
        source, args, files = unpack_program(read_all(program_fd))
        write_files({MAIN_FILE: source, **files}, state.interpreter.directory)
    except (OSError, ValueError, MemoryError) as error:
        os.write(reply, IS_FAILED + f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    if state.namespace < 0:
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    os.write(reply, STARTED.pack(IS_STARTED, time.monotonic(), time.process_time()))
    _keep_only(streams)
    if state.namespace >= 0:
        _kernel.make_calls(_MAKE_DUMPABLE)
    state.interpreter.run_program(source, args)


# Makes the run's own /proc/self readable again after the change of user.
_MAKE_DUMPABLE = (_kernel.prctl_call(_kernel.PR_SET_DUMPABLE, 1),)


def _keep_only(streams: list[int]) -> None:
    """Put stdin, stdout, stderr and the reply on 0 to 3, and close everything else."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(len(streams), 1 << 16)
