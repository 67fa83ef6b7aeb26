"""The math worker: answers one question after another with sympy, within a memory cap.

The fork server imports sympy once (`prepare`); a worker killed at its deadline costs a fork. Questions
are pickled trees from our own caller. Replies are JSON, because nothing that a worker sends is trusted.
"""

import json
import os
import pickle
import socket
import time
from functools import partial

from verl_lite.verifiers.math.algebra.symbolic import QUESTIONS, equal
from verl_lite.verifiers.math.expressions import num, sym
from verl_lite.workers import Serve, Slot, receive_frame, send_frame


def prepare(memory_mb: int) -> Serve:
    """For the fork server: import all that answering needs, including what sympy imports late."""
    equal(sym("x"), num(1))
    return partial(_serve, memory_mb)


def _serve(memory_mb: int, channel: socket.socket, slot: Slot) -> None:
    _cap_memory(memory_mb << 20)
    for descriptor in (1, 2):
        os.dup2(0, descriptor)  # the null device: nobody reads what sympy prints
    try:
        while True:
            send_frame(channel, _answer(receive_frame(channel)))
    except EOFError:
        return


def _cap_memory(limit: int) -> None:
    """As far as the system can: macOS ignores the limit, Windows has none; there only deadlines hold."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return


def _answer(question: bytes) -> bytes:
    name, arguments = pickle.loads(question)
    started = time.perf_counter()
    try:
        answer = QUESTIONS[name](*arguments)
    except MemoryError:
        return _reply("memory", "more memory than a worker may take")
    except RecursionError:
        return _reply("refused", "an expression too deep for sympy")
    except Exception as error:  # noqa: BLE001 - sympy raises anything; the border reports it as its own status
        return _reply("refused", f"{type(error).__name__}: {error}"[:200])
    return _reply("ok", "", answer=answer, seconds=time.perf_counter() - started)


def _reply(status: str, why: str, **more: object) -> bytes:
    return json.dumps({"status": status, "why": why, **more}).encode()
