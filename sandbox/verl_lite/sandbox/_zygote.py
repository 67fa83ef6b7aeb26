"""The fork server: the process that every run is forked from.

It never sees a program, an input or an output: those travel in descriptors it only hands on, so a
run that searches its inherited memory finds nothing of other runs. It is the first process of a PID
namespace of its own: when it dies, the kernel kills everything below it.
"""

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass
from typing import NoReturn

from verl_lite.sandbox import _cell, _kernel, _landlock, _rootfs, _seccomp
from verl_lite.sandbox._payload import MAIN_FILE, Payload, place_files
from verl_lite.sandbox._program import run_program

# What the fork server sends: a run's first process ended, with its raw wait status.
ENDED = struct.Struct("<i")
# What a run's first process reports: the program's wait status, wall s, CPU s, peak resident KiB.
REPORT = struct.Struct("<iddq")
STARTED, FAILED = b"S", b"F"
KILL = b"K"
_NUM_DESCRIPTORS = 6  # payload, stdin, stdout, stderr, reply, report
_RUN_NAMESPACES = _kernel.CLONE_NEWPID | _kernel.CLONE_NEWNS | _kernel.CLONE_NEWIPC | _kernel.CLONE_NEWUTS


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


def serve(link: socket.socket, options: ZygoteOptions) -> NoReturn:
    """Isolate this process, say so on `link` (b"ready" or the reason why not), then fork on request."""
    try:
        confinement = _prepare(options)
    except (OSError, ValueError) as error:
        link.send(b"failed: " + str(error).encode())
        os._exit(1)
    flags = _RUN_NAMESPACES | (_kernel.CLONE_NEWNET if options.network_per_run else 0)
    lifeline, held = os.pipe()
    gc.collect()
    gc.freeze()  # so that a collection in a run does not copy every page
    link.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(link, _cell.LIMITS_BYTES, _NUM_DESCRIPTORS)
        if not message:
            os._exit(0)
        if len(descriptors) != _NUM_DESCRIPTORS:
            continue  # a kill that came too late
        child = _kernel.clone_process(flags)
        if child == 0:
            os.close(held)
            link.close()
            _first_process(confinement, _cell.CellLimits.unpack(message), descriptors, lifeline)
        for descriptor in descriptors:
            os.close(descriptor)
        link.send(ENDED.pack(_wait(child, link)))


def _wait(child: int, link: socket.socket) -> int:
    """Wait for the run's first process, and kill it when told to; with it the kernel kills the rest."""
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(link, select.POLLIN)
    while not any(fd == pidfd for fd, _ in poll.poll()):
        if not link.recv(16):
            os._exit(0)
        os.kill(child, signal.SIGKILL)
        poll.unregister(link)
    os.close(pidfd)
    return os.waitpid(child, 0)[1]


def _prepare(options: ZygoteOptions) -> _cell.Confinement:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one signal Python handles, and so the one a
    # run could send to the first process of its namespace
    for name in options.preload:
        with contextlib.suppress(ImportError):  # a Python built without it
            __import__(name)
    if not options.as_root:
        _map_identity(options)
    address_space = _address_space()
    own_proc = _rootfs.build_root(
        staging=options.staging, paths=options.paths, uid=options.uid, gid=options.gid
    )
    return _cell.Confinement(
        uid=options.uid,
        gid=options.gid,
        change_identity=options.as_root,
        own_proc=own_proc,
        landlock_abi=_landlock.abi(),
        seccomp_filter=_seccomp.build_filter(),
        base_address_space=address_space,
        execute_paths=options.paths,
        extra_processes=1 if options.as_root else 2,
    )


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
        return int(file.read().split()[0]) * resource.getpagesize()


def _first_process(
    confinement: _cell.Confinement, limits: _cell.CellLimits, descriptors: list[int], lifeline: int
) -> NoReturn:
    """The init of a run: lock everything, fork the program, wait for it, report, end."""
    payload_fd, *streams, report = descriptors
    try:
        _cell.mount_private(confinement, limits)
        _cell.confine(confinement, limits, lifeline)
        payload = Payload.unpack(_read_all(payload_fd))
        place_files({MAIN_FILE: payload.source, **payload.files}, _rootfs.WORK_DIR)
    except (OSError, ValueError, MemoryError) as error:
        os.write(report, FAILED + f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    os.write(report, STARTED)
    started = time.monotonic()
    program = os.fork()
    if program == 0:
        _become_program(streams)
        run_program(payload.source, list(payload.args), _rootfs.WORK_DIR)
    pid, status, usage = os.wait4(-1, 0)
    while pid != program:  # an orphan of the program
        pid, status, usage = os.wait4(-1, 0)
    everything = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = everything.ru_utime + everything.ru_stime
    os.write(report, REPORT.pack(status, time.monotonic() - started, cpu_s, usage.ru_maxrss))
    os._exit(0)


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def _become_program(streams: list[int]) -> None:
    """Put stdin, stdout, stderr and the reply on 0 to 3, and close everything else."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(len(streams), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    _kernel.prctl(_kernel.PR_SET_DUMPABLE, 1)  # its /proc/self is its own again
    signal.signal(signal.SIGINT, signal.default_int_handler)
