"""Whole messages over a socket: eight bytes of length, then a pickle of plain builtins."""

import pickle
import socket
import struct
from typing import Any

__all__ = ["Inbox", "pack", "receive", "send"]

_LENGTH = struct.Struct("<Q")
MAX_MESSAGE_BYTES = 1 << 32  # a longer one means that the stream is damaged


def pack(message: object) -> bytes:
    body = pickle.dumps(message, 5)
    return _LENGTH.pack(len(body)) + body


def send(channel: socket.socket, message: object) -> None:
    """Send to a blocking socket; raises OSError when the other side is gone."""
    channel.sendall(pack(message))


def receive(channel: socket.socket) -> Any:
    """The next message from a blocking socket; raises EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_read_exactly(channel, _LENGTH.size))
    return pickle.loads(_read_exactly(channel, length))


def _read_exactly(channel: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        part = channel.recv(min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


class Inbox:
    """Gathers what arrives on a socket that must not block, and gives it back as whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def read(self, channel: socket.socket) -> bool:
        """Take in what is there; False when the other side is gone."""
        while True:
            try:
                part = channel.recv(1 << 18)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                return False
            if not part:
                return False
            self._buffer += part

    def messages(self) -> list[Any]:
        """Every whole message so far; raises ValueError when the stream is damaged."""
        found = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                found.append(pickle.loads(body))
            except Exception as error:  # noqa: BLE001 - unpickling garbage raises anything at all
                raise ValueError(f"a message that cannot be read ({type(error).__name__})") from None
        return found
