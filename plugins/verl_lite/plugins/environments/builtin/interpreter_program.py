"""The persistent interpreter of the tool `python`. Runs inside the sandbox, and imports nothing of ours.

A request is a JSON object {"code", "timeout_s", "max_bytes"}, the reply {"output", "outcome"}. What the code
prints, also by processes that it starts, goes to a file that is read after each request.
"""

import ast
import contextlib
import json
import linecache
import os
import signal
import struct
import sys
import traceback
from types import FrameType, ModuleType
from typing import Any

SIZE = struct.Struct("<I")
OUTPUT = "/tmp/.output"


class TimeIsUp(BaseException):
    """Raised in the code at its deadline, so that variables survive; not caught by `except Exception`."""


def main() -> None:
    channel = os.dup(0)
    os.set_inheritable(channel, False)
    output = os.open(OUTPUT, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.unlink(OUTPUT)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for descriptor, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, number)
    signal.signal(signal.SIGALRM, on_alarm)
    module = sys.modules["__main__"] = ModuleType("__main__")  # where pickle looks for what the code defines
    number, process = 0, os.getpid()
    while (request := receive(channel)) is not None:
        number += 1
        outcome = run(request["code"], vars(module), f"<call {number}>", request["timeout_s"])
        if os.getpid() != process:
            os._exit(0)  # a copy that the code forked and let return
        size = os.fstat(output).st_size
        data = os.pread(output, request["max_bytes"], 0)
        os.ftruncate(output, 0)
        text = data.decode("utf-8", "replace")
        if size > len(data):
            text += f"\n[{size - len(data)} more bytes were cut]"
            outcome = "truncated" if outcome == "ok" else outcome
        send(channel, {"output": text, "outcome": outcome})


def on_alarm(number: int, frame: FrameType | None) -> None:
    raise TimeIsUp


def run(code: str, names: dict[str, Any], file: str, timeout_s: float) -> str:
    """Run `code`; a last line that is an expression is printed, as in an interactive session."""
    try:
        tree = ast.parse(code, file)
        final = tree.body[-1] if tree.body else None
        last = ast.Expression(final.value) if isinstance(final, ast.Expr) else None
        if last is not None:
            tree.body.pop()
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        try:
            exec(compile(tree, file, "exec"), names)  # noqa: S102 - this is the sandboxed code
            value = eval(compile(last, file, "eval"), names) if last is not None else None  # noqa: S307
            if value is not None:
                print(repr(value))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeIsUp:
        show(f"TimeoutError: no result within {timeout_s:g} s; variables and files are kept")
        return "timeout"
    except BaseException as error:  # noqa: BLE001 - the sandbox's edge: whatever the code raises is its output
        frames = error.__traceback__
        while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("<call "):
            frames = frames.tb_next
        show("".join(traceback.format_exception(type(error), error, frames)))
        return "error"
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    return "ok"


def show(text: str) -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os.write(1, text.rstrip().encode("utf-8", "replace") + b"\n")


def receive(channel: int) -> dict[str, Any] | None:
    head = read(channel, SIZE.size)
    if head is None:
        return None
    body = read(channel, SIZE.unpack(head)[0])
    found: dict[str, Any] | None = None if body is None else json.loads(body)
    return found


def read(channel: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = os.read(channel, size - len(data))
        if not part:
            return None
        data += part
    return data


def send(channel: int, reply: dict[str, str]) -> None:
    data = json.dumps(reply).encode()
    data = SIZE.pack(len(data)) + data
    while data:
        data = data[os.write(channel, data) :]


if __name__ == "__main__":
    main()
