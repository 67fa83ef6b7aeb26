"""Compiles each program once, however often it is run; thread-safe.

A compilation is a run of its own, with the compiler's limits. What it made is kept in memory, for the
most recent programs.
"""

import io
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.limits import Limits, Result, Status

_KEPT_BYTES = 256 << 20
_KEPT_PROGRAMS = 512
MAX_PROGRAM_KB = 64 << 10
_MAY_END_DIFFERENTLY = (Status.SANDBOX_ERROR, Status.KILLED)  # a fault, or a cancellation
_NO_MEMORY = (b"out of memory", b"memory exhausted", b"annot allocate memory", b"OutOfMemoryError")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compiler made, or `result`, why it made nothing: its status is then not ok."""

    result: Result
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.files.values())) + len(self.result.stderr)


class CompiledPrograms:
    """`compile` compiles a request's program, whatever its stdin and arguments."""

    def __init__(self, compile: Callable[[Request], Compiled]) -> None:
        self._compile = compile
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, Future[Compiled]] = OrderedDict()

    def get(self, request: Request) -> Compiled:
        """The compiled program; compiles it, or waits for another thread that is doing so."""
        limits = request.limits
        key = (
            *(request.language, request.source, tuple(sorted(request.files.items()))),
            *(limits.compile_wall_s, limits.compile_memory_mb, limits.output_kb),
        )
        while True:
            with self._lock:
                future = self._kept.get(key)
                ours = future is None
                if future is None:
                    future = self._kept[key] = Future()
                self._kept.move_to_end(key)
            if ours:
                self._resolve(key, future, request)
            compiled = future.result()
            if ours or compiled.result.status not in _MAY_END_DIFFERENTLY:
                return compiled

    def _resolve(self, key: object, future: Future[Compiled], request: Request) -> None:
        try:
            compiled = self._compile(request)
        except BaseException as error:
            self._forget(key)
            future.set_exception(error)
            raise
        if compiled.result.status in _MAY_END_DIFFERENTLY:
            self._forget(key)  # before those who wait look again
        future.set_result(compiled)
        self._make_room()

    def _forget(self, key: object) -> None:
        with self._lock:
            self._kept.pop(key, None)

    def _make_room(self) -> None:
        with self._lock:
            done = {key: future.result().num_bytes for key, future in self._kept.items() if future.done()}
            excess = sum(done.values()) - _KEPT_BYTES
            for key, num_bytes in done.items():
                if excess <= 0 and len(self._kept) <= _KEPT_PROGRAMS:
                    break
                del self._kept[key]
                excess -= num_bytes


def compiler_limits(limits: Limits, *, time_factor: int) -> Limits:
    """The limits of the compiler, as those of a run."""
    return replace(
        limits,
        wall_s=time_factor * limits.compile_wall_s,
        cpu_s=4 * time_factor * limits.compile_wall_s,
        memory_mb=limits.compile_memory_mb,
        processes=64,
        open_files=256,
        output_kb=MAX_PROGRAM_KB,
        file_size_mb=MAX_PROGRAM_KB >> 10,
        disk_mb=4 * (MAX_PROGRAM_KB >> 10),
    )


def compiled(ran: Result, limits: Limits) -> Compiled:
    """What a compiler's run says: its reply is a tar archive of the files it made."""
    if ran.status is Status.OK:
        result = replace(ran, stdout=b"", stderr=ran.stderr[: limits.output_kb << 10], reply=b"")
        return Compiled(result, _unpack(ran.reply))
    status, message = ran.status, f"the compiler: {ran.message}"
    if status is Status.ERROR and any(text in ran.stderr[-4096:] for text in _NO_MEMORY):
        status = Status.MEMORY
    if status is Status.TIMEOUT:
        message = f"the compiler ran longer than compile_wall_s={limits.compile_wall_s:g}"
    if status is Status.MEMORY:
        message = f"the compiler used more than compile_memory_mb={limits.compile_memory_mb}"
    cut = {name: getattr(ran, name)[: limits.output_kb << 10] for name in ("stdout", "stderr")}
    return Compiled(replace(ran, status=status, message=message, reply=b"", **cut))


def _unpack(archive: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isfile() and "/" not in member.name else None
            if content is not None:
                files[member.name] = content.read()
    return files
