"""The wire format of workers: frames over a socket, eight bytes of length and then the body.

The two sides decide what a body means. A client that does not trust its workers must not unpickle
what they send.
"""

import socket
import struct

_LENGTH = struct.Struct("<Q")
MAX_FRAME_BYTES = 1 << 32  # a longer frame means that the stream is damaged


def frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def send_frame(channel: socket.socket, body: bytes) -> None:
    """Send to a blocking socket; raises OSError when the other side is gone."""
    channel.sendall(frame(body))


def receive_frame(channel: socket.socket) -> bytes:
    """The next body from a blocking socket; raises EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_read_exactly(channel, _LENGTH.size))
    return _read_exactly(channel, length)


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
    """Collects what arrives on a non-blocking socket and returns complete bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def read(self, channel: socket.socket) -> bool:
        """Read what has arrived; False when the other side is gone."""
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

    def bodies(self) -> list[bytes]:
        """Every complete body received since the last call; raises ValueError when the stream is damaged."""
        found = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes: the stream is damaged")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return found
