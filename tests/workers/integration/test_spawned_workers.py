"""Workers where none can be forked: they answer, keep deadlines, are replaced, and say why they fail."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from verl_lite.workers import Serve, Slot, SpawnedPool, receive_frame, send_frame


def prepare(greeting: str) -> Serve:
    """What the workers of these tests run; the text "broken" cannot be prepared."""
    if greeting == "broken":
        raise ValueError("no greeting")
    return Greeter(greeting).serve


class Greeter:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def serve(self, channel: socket.socket, slot: Slot) -> None:
        while True:
            job = receive_frame(channel).decode()
            if job == "hang":
                time.sleep(60)
            if job == "die":
                raise SystemExit(3)
            send_frame(channel, f"{self.greeting} {job}".encode())


ENTRY = f"{Path(__file__).stem}:prepare"


def make_pool(monkeypatch: pytest.MonkeyPatch, greeting: str, size: int = 1) -> SpawnedPool:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return SpawnedPool(ENTRY, greeting, size=size, jobs_per_worker=10)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpawnedPool]:
    pool = make_pool(monkeypatch, "hello")
    pool.wait_ready(60)
    yield pool
    pool.close()


def test_a_late_and_a_dead_worker_are_replaced(pool: SpawnedPool) -> None:
    def soon() -> float:
        return time.monotonic() + 60

    assert pool.ask(b"you", soon()).body == b"hello you"
    late = pool.ask(b"hang", time.monotonic() + 0.2)
    assert (late.status, late.why) == ("timeout", "not decided before the deadline")
    assert pool.ask(b"again", soon()).body == b"hello again"
    died = pool.ask(b"die", soon())
    assert (died.status, died.why) == ("died", "ended its worker process with exit code 3")
    assert pool.ask(b"still", soon()).body == b"hello still"


def test_a_worker_that_cannot_prepare_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(monkeypatch, "broken")
    answer = pool.ask(b"you", time.monotonic() + 60)
    assert (answer.status, answer.why) == ("error", "ValueError: no greeting")
    pool.close()
