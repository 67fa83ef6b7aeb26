"""A program that keeps running and answers requests, under the limits of a run."""

import time

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Limits, Sandbox, SessionEnded, Status

ECHO = """
import os, struct
def read(n):
    data = b""
    while len(data) < n:
        part = os.read(0, n - len(data))
        if not part:
            raise SystemExit
        data += part
    return data
count = 0
while True:
    (size,) = struct.unpack("<I", read(4))
    request = read(size).decode()
    count += 1
    try:
        reply = str(eval(request))
    except Exception as error:
        reply = repr(error)
    reply = reply.encode()
    os.write(0, struct.pack("<I", len(reply)) + reply)
"""


def test_it_keeps_its_state_and_its_limits(sandbox: Sandbox) -> None:
    session = sandbox.open_python(ECHO, limits=Limits(wall_s=1000, memory_mb=300))
    assert [session.ask(b"count", 20) for _ in range(3)] == [b"1", b"2", b"3"]
    assert session.ask(b"open('/tmp/kept', 'w').write('abc')", 5) == b"3"
    assert session.ask(b"open('/tmp/kept').read()", 5) == b"abc"
    assert b"Error" in session.ask(b"__import__('socket').create_connection(('1.1.1.1', 80), 1)", 5)
    assert session.ask(b"len(bytearray(10**9))", 5) == b"MemoryError()"
    session.close()
    session.close()


@pytest.mark.parametrize(
    ("request_text", "limits", "status"),
    [
        (b"os._exit(3)", Limits(wall_s=100), Status.ERROR),
        (b"os.kill(os.getpid(), 9)", Limits(wall_s=100), Status.KILLED),
        (b"[0 for _ in iter(int, 1)]", Limits(wall_s=100, cpu_s=0.2, memory_mb=2000), Status.TIMEOUT),
        (b"os.close(0)", Limits(wall_s=100), Status.ERROR),
    ],
)
def test_how_it_ended_is_its_result(
    sandbox: Sandbox, request_text: bytes, limits: Limits, status: Status
) -> None:
    session = sandbox.open_python(ECHO, limits=limits)
    with pytest.raises(SessionEnded) as ended:
        session.ask(request_text, 20)
    assert ended.value.result.status is status
    with pytest.raises(SessionEnded):
        session.ask(b"1", 5)


def test_a_reply_that_does_not_come_ends_it_and_the_next_starts(sandbox: Sandbox) -> None:
    session = sandbox.open_python(ECHO, limits=Limits(wall_s=1000))
    session.ask(b"1", 20)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        session.ask(b"__import__('time').sleep(900)", 0.3)
    assert time.monotonic() - began < 100
    other = sandbox.open_python(ECHO, limits=Limits(wall_s=1000))
    assert other.ask(b"count", 20) == b"1"
    other.close()


def test_sessions_wait_for_a_worker_and_closing_one_frees_it() -> None:
    with Sandbox(workers=1) as sandbox:
        first = sandbox.open_python(ECHO, limits=Limits(wall_s=1000))
        assert first.ask(b"count", 20) == b"1"
        second = sandbox.open_python(ECHO, limits=Limits(wall_s=1000))
        first.close()
        assert second.ask(b"count", 20) == b"1"
        second.close()
        assert sandbox.run_python("print(1)").status is Status.OK


@pytest.mark.parametrize("backend", ["bubblewrap", "landlock"])
def test_the_other_backends_keep_programs_too(backend: str, request: pytest.FixtureRequest) -> None:
    session = request.getfixturevalue(backend).open_python(ECHO, limits=Limits(wall_s=1000))
    assert session.ask(b"count", 20) == b"1"
    session.close()


def test_a_service_keeps_no_programs() -> None:
    with Sandbox(backend="http://127.0.0.1:1") as sandbox, pytest.raises(SandboxError, match="keeps none"):
        sandbox.open_python(ECHO)
