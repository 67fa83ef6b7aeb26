"""Runs one Python program as `python main.py` would, in the process forked for it."""

import _sitebuiltins
import _thread
import atexit
import builtins
import contextlib
import functools
import gc
import io
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from verl_lite.sandbox import _kernel
from verl_lite.sandbox._program_files import MAIN_FILE

# A program that has none of these leaves nothing open.
_OPENS = (b"open", b"Writer", b"Wrapper", b"stdout__", b"stderr__")
_THREAD_STARTERS = ("start_new_thread", "start_new", "start_joinable_thread")


class Interpreter:
    """The state a program starts in. The fork server makes it once; a run that made it would have to
    copy the pages it writes. `directory` is where programs are stored.
    """

    def __init__(self, directory: str) -> None:
        self.directory, self._path = directory, os.path.join(directory, MAIN_FILE)
        _install_streams()
        _install_builtins()
        _allow_large_stacks()
        self._main = types.ModuleType("__main__")
        self._main.__dict__.update(__file__=self._path, __builtins__=__builtins__, __annotations__={})
        sys.modules["__main__"] = self._main

    def run_program(self, source: bytes, args: list[str]) -> NoReturn:
        """Run `source` as `__main__` with descriptors 0 to 3 in place. Never returns.

        As at a normal interpreter exit, it joins threads, runs atexit functions and flushes the streams.
        It skips module tear-down, because the process ends anyway.
        """
        sys.argv = [self._path, *args]
        sys.path.insert(0, self.directory)  # only now: the import system caches missing folders
        if b"random" in source and "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # else every run would draw the fork server's numbers
        code = _finish(_execute(source, self._path, self._main))
        if any(word in source for word in _OPENS):
            _write_open_files()
        os._exit(code)


def _install_streams() -> None:
    """Text streams over descriptors 0 to 2, set up as the interpreter does for non-terminals.

    `io` inspects a descriptor (seekable, block size) when it makes a stream. So 0 to 2 are first set
    to what a run gets, a file to read and pipes to write, and a run need not inspect them again.
    """
    kept = [os.dup(number) for number in range(3)]
    reading, writing = os.pipe()
    file = os.memfd_create("input")
    for number, kind in enumerate((file, writing, writing)):
        os.dup2(kind, number)
    stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")  # noqa: SIM115
    out, err = (open(number, "wb", closefd=False) for number in (1, 2))  # noqa: SIM115
    stdout = io.TextIOWrapper(out, encoding="utf-8", newline="\n")
    stderr = io.TextIOWrapper(
        err, encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True
    )
    streams: list[Any] = [stdin, stdout, stderr]
    for stream, name in zip(streams, ("<stdin>", "<stdout>", "<stderr>"), strict=True):
        stream.buffer.raw.name = name  # as the interpreter's have
        stream.mode = "r" if stream is stdin else "w"
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number)
    for descriptor in (*kept, reading, writing, file):
        os.close(descriptor)
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = stderr  # type: ignore[misc]


def _install_builtins() -> None:
    """`exit`, `quit`, `help` and the like, which the module `site` brings."""
    leave = "Ctrl-D (i.e. EOF)"
    more = {name: _sitebuiltins._Printer(name, "") for name in ("copyright", "credits", "license")}
    leaving = {name: _sitebuiltins.Quitter(name, leave) for name in ("exit", "quit")}
    builtins.__dict__.update(leaving, help=_sitebuiltins._Helper(), **more)


def _allow_large_stacks() -> None:
    """Let the first thread raise the soft limit of address space: stacks are reserved far larger than they
    are used. The hard limit has an allowance for them, and what is touched counts.
    """

    def raising(start: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(start)
        def start_thread(*args: object, **options: object) -> object:
            _kernel.raise_to_hard_limit(_kernel.RLIMIT_AS)
            return start(*args, **options)

        return start_thread

    threads = sys.modules.get("threading")  # has copied them if it is loaded already
    for name in _THREAD_STARTERS:
        start = getattr(_thread, name, None)
        if start is not None:
            setattr(_thread, name, raising(start))
            if threads is not None and hasattr(threads, f"_{name}"):
                setattr(threads, f"_{name}", getattr(_thread, name))


def _execute(source: bytes, path: str, main: types.ModuleType) -> int:
    try:
        exec(compile(source, path, "exec"), main.__dict__)  # noqa: S102 - this is the sandboxed program
    except SystemExit as exit_request:
        return _exit_code(exit_request.code)
    except BaseException as error:  # noqa: BLE001 - the sandbox's edge: any exception ends the program
        text = source.decode("utf-8", "replace")
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        own_frames = error.__traceback__
        traceback.print_exception(type(error), error, own_frames.tb_next if own_frames else None)
        return 1
    return 0


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _write_open_files() -> None:
    """Flush what the program left open, as the interpreter does when it takes the objects down."""
    files: list[object] = [
        sys.__stdout__,
        sys.__stderr__,
    ]  # frozen by the fork server: the collector omits them
    files += [thing for thing in gc.get_objects() if isinstance(thing, (io.TextIOWrapper, io.BufferedWriter))]
    for kind in (io.TextIOWrapper, io.BufferedWriter):  # the text first: it goes through the other
        for file in files:
            if type(file) is kind and not file.closed:
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    file.flush()


def _finish(code: int) -> int:
    """Join threads, run atexit functions, flush: in the interpreter's order."""
    try:
        threads = sys.modules.get("threading")
        if threads is not None:
            threads._shutdown()
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 - the program's own exit code stands, as in the interpreter
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError, AttributeError):
            code = code or 120  # what the interpreter returns when it cannot flush
    return code
