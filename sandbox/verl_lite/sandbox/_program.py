"""Runs one Python program as `python main.py` would, in the process that was forked for it."""

import atexit
import io
import linecache
import os
import sys
import traceback
import types
from typing import NoReturn

from verl_lite.sandbox._payload import MAIN_FILE


def run_program(source: bytes, args: list[str], directory: str) -> NoReturn:
    """Run `source` as `__main__` with descriptors 0 to 3 in place. Never returns.

    As after a normal end of the interpreter, threads are waited for, atexit functions run and the
    streams are flushed; module tear-down is left out, because the process ends anyway.
    """
    _fresh_streams()
    path = os.path.join(directory, MAIN_FILE)
    sys.argv = [path, *args]
    sys.path.insert(0, directory)
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__, __annotations__={})
    sys.modules["__main__"] = main
    os._exit(_finish(_execute(source, path, main)))


def _fresh_streams() -> None:
    """Text streams over the run's own descriptors, set up as the interpreter does for non-terminals."""
    stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")  # noqa: SIM115
    stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8", newline="\n")  # noqa: SIM115
    stderr = io.TextIOWrapper(
        open(2, "wb", closefd=False),  # noqa: SIM115
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
    )
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = stderr  # type: ignore[misc]


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


def _finish(code: int) -> int:
    """Wait for threads, run atexit functions, flush: the interpreter's own order."""
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
