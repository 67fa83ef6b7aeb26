"""Runs inside the sandbox: the two ends of a test session, the tests' process and the program's.

Each end can call what the other one has. Plain data travels by value (wire.py); containers given to a
call are changed in place when the call changed them; everything else stays where it is, and the other
end gets a stand-in (inside_remote.py). The program's end is hostile: whatever it sends is data, and
what it may ask of the tests' objects is limited (`Peer.allows`).
"""

import json
import operator
import os
import select
import struct
import threading
from collections.abc import Callable
from typing import Any

from verl_lite.verifiers.code.wire import Decoder, Encoder, NotPlainData

_LENGTH = struct.Struct("<Q")
_MAX_FRAME = 1 << 28


class PeerGone(BaseException):
    """The other end gave no answer: it ended, hung or sent what is no message.

    A BaseException, so that no `except Exception` of a test takes it for the program's exception.
    """


class Pipe:
    """Messages over a pair of pipes."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def send(self, message: dict[str, object]) -> None:
        body = json.dumps(message).encode()
        data = memoryview(_LENGTH.pack(len(body)) + body)
        try:
            while data:
                data = data[os.write(self._writing, data) :]
        except OSError:
            raise PeerGone("ended without giving a result") from None

    def receive(self, timeout_s: float | None) -> dict[str, object]:
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, timeout_s))
        if length > _MAX_FRAME:
            raise PeerGone("sent a broken reply")
        try:
            message = json.loads(self._read(length, timeout_s))
        except (ValueError, RecursionError):
            raise PeerGone("sent a broken reply") from None
        if type(message) is not dict:
            raise PeerGone("sent a broken reply")
        return message

    def _read(self, length: int, timeout_s: float | None) -> bytes:
        chunks, missing = [], length
        while missing:
            if timeout_s is not None and not select.select([self._reading], [], [], timeout_s)[0]:
                raise PeerGone("timed out")
            chunk = os.read(self._reading, min(missing, 1 << 20))
            if not chunk:
                raise PeerGone("ended without giving a result")
            chunks.append(chunk)
            missing -= len(chunk)
        return b"".join(chunks)


def _await(value: Any) -> Any:
    import asyncio

    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()

    async def wait() -> Any:
        return await value

    return _loop.run_until_complete(wait())


_loop: Any = None
_ITERATES = frozenset({"next", "send", "anext", "await"})
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "and_", "or_", "xor", "pow")
# What one end may ask of an object of the other. A comparison is not among them: the program's own
# `__eq__` must never be asked about a value that the tests expect.
OPERATIONS: dict[str, Callable[..., object]] = {
    "call": lambda target, *args, **kwargs: target(*args, **kwargs),
    "get": getattr,
    "set": setattr,
    "del": delattr,
    "iter": iter,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
    "int": int,
    "float": float,
    "index": operator.index,
    "abs": abs,
    "neg": operator.neg,
    "round": round,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "enter": lambda target: type(target).__enter__(target),
    "await": _await,
    "anext": lambda target: _await(anext(target)),
    "aenter": lambda target: _await(type(target).__aenter__(target)),
    **{name: getattr(operator, name) for name in _BINARY},
}


class Peer:
    """One end of a session; inside_remote.py says how it shows its objects (`End`)."""

    def __init__(self, pipe: Pipe, *, timeout_s: float | None = None) -> None:
        self.pipe = pipe
        self.timeout_s = timeout_s
        self.broken = ""
        self.not_finite = frozenset({"nan", "inf"})  # which of these a result may hold
        self.objects: list[object] = []
        self._numbers: dict[int, int] = {}
        self._stand_ins: dict[int, object] = {}
        self._lock = threading.RLock()

    def describe(self, value: object) -> dict[str, object]:
        """What the other end must know of an object of this one."""
        raise NotImplementedError

    def stand_in(self, number: int, info: dict[str, Any]) -> Any:
        """The object that stands for one of the other end."""
        raise NotImplementedError

    def raised(self, error: BaseException) -> dict[str, Any]:
        raise NotImplementedError

    def rebuild(self, raised: dict[str, object]) -> BaseException:
        raise NotImplementedError

    def allows(self, operation: str, target: Any, name: Any) -> bool:
        return True

    def before(self, message: dict[str, Any]) -> None:
        """Add to a message that is about to be sent."""

    def after(self, message: dict[str, Any]) -> None:
        """Read what `before` of the other end added."""

    def ask(self, operation: str, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Have the other end do `operation` with its object number `target`, or with itself (None)."""
        if self.broken:
            raise PeerGone(self.broken)
        with self._lock:
            encoder = Encoder(self._refer)
            message: dict[str, Any] = {"do": operation, "target": target}
            message["args"] = [encoder.encode(arg) for arg in args]
            message["kwargs"] = {name: encoder.encode(value) for name, value in kwargs.items()}
            try:
                return self._result(operation, self._exchange(message), encoder.known)
            except PeerGone as gone:
                self.broken = self.broken or str(gone)
                raise

    def _exchange(self, message: dict[str, object]) -> dict[str, object]:
        self.before(message)
        self.pipe.send(message)
        while True:
            answer = self.pipe.receive(self.timeout_s)
            self.after(answer)
            if "do" not in answer:
                return answer
            self.serve(answer)

    def _result(self, operation: str, answer: dict[str, Any], known: list[Any]) -> Any:
        try:
            if "raised" in answer:
                error: Any = self.rebuild(answer["raised"])
                if isinstance(error, (StopIteration, StopAsyncIteration)) and operation not in _ITERATES:
                    error = RuntimeError("raised StopIteration")  # it would end the tests' own loop
                error.from_program = True
            else:
                decoder = Decoder(self._resolve, known, self.not_finite)
                for index, items in answer.get("changed", ()):
                    container = known[index]
                    container.clear()
                    if isinstance(container, bytearray):
                        container += bytes.fromhex(items)
                    else:
                        decoder.fill(container, items)
                return decoder.decode(answer["value"])
        except (NotPlainData, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise PeerGone("sent a broken reply") from None
        raise error

    def serve(self, message: dict[str, Any]) -> None:
        """Do what the other end asks and send the result."""
        answer: dict[str, Any]
        try:
            operation, target = message["do"], message["target"]
            known: list[Any] = []
            decoder = Decoder(self._resolve, known)
            args = [decoder.decode(arg) for arg in message["args"]]
            kwargs = {name: decoder.decode(value) for name, value in message["kwargs"].items()}
            before = [_snapshot(container) for container in known]
            given = self._own(target)
            if not self.allows(operation, given, args[0] if args else None):
                raise PermissionError(f"{operation} of {type(given).__name__}: the tests do not give that")
            value = self.perform(operation, given, args, kwargs)
            encoder = Encoder(self._refer, known)
            changed = [
                [index, now.hex() if isinstance(now := known[index], bytearray) else encoder.items(now)]
                for index, snapshot in enumerate(before)
                if not _unchanged(snapshot, known[index])
            ]
            answer = {"changed": changed} if changed else {}
            answer["value"] = encoder.encode(value)
        except PeerGone:
            raise
        except BaseException as error:  # noqa: BLE001  whatever it raises is the result
            answer = {"raised": self.raised(error)}
        self.before(answer)
        self.pipe.send(answer)

    def perform(self, operation: str, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return OPERATIONS[operation](target, *args, **kwargs)

    def _refer(self, value: object) -> object:
        number = number_of(value, self)
        if number is not None:
            return ["own", number]
        return ["ref", self.number(value), self.describe(value)]

    def number(self, value: Any) -> int:
        """The number under which the other end knows `value`, an object of this end."""
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self._numbers[id(value)]

    def _own(self, target: Any) -> Any:
        if target is None:  # the end itself
            return None
        if type(target) is int and 0 <= target < len(self.objects):
            return self.objects[target]
        raise NotPlainData("a reference to nothing")

    def _resolve(self, data: list[Any]) -> Any:
        if data[0] == "own":
            return self._own(data[1])
        number, info = data[1], data[2]
        if number not in self._stand_ins:
            self._stand_ins[number] = self.stand_in(number, info)
            remember(self._stand_ins[number], number, self)
        return self._stand_ins[number]


_numbers_of_stand_ins: dict[int, tuple[object, int, Peer]] = {}


def remember(stand_in: Any, number: int, peer: Peer) -> None:
    """Note which object of the other end `stand_in` stands for."""
    _numbers_of_stand_ins[id(stand_in)] = (stand_in, number, peer)


def number_of(value: Any, peer: Peer) -> int | None:
    found = _numbers_of_stand_ins.get(id(value))
    return found[1] if found is not None and found[0] is value and found[2] is peer else None


def _snapshot(container: Any) -> Any:
    if isinstance(container, bytearray):
        return bytes(container)
    return list(dict.items(container)) if isinstance(container, dict) else list(container)


def _unchanged(snapshot: Any, container: Any) -> bool:
    now = _snapshot(container)
    if isinstance(container, bytearray) or len(now) != len(snapshot):
        return bool(now == snapshot)
    if isinstance(container, dict):
        return all(a[0] is b[0] and a[1] is b[1] for a, b in zip(now, snapshot, strict=True))
    return all(a is b for a, b in zip(now, snapshot, strict=True))
