"""Frames between the trainer and a supervisor: a size, then a tuple of plain values.

Serialised with `marshal`, one call per end: both ends are the same interpreter, and neither runs an
untrusted program.
"""

import _socket
import marshal
import struct
from typing import Any

CHANNEL_FOLLOWS = b"\0"  # comes with the descriptor of a run's channel, behind the frame without its stdin
_SIZE = struct.Struct("<Q")
_DESCRIPTOR = struct.Struct("@i")


def send_frame(link: _socket.socket, *values: Any) -> None:
    """Send `values`; raises OSError when the other side is gone."""
    data = marshal.dumps(values)
    link.sendall(_SIZE.pack(len(data)) + data)


def receive_frame(link: _socket.socket) -> tuple[Any, ...]:
    """The next frame; raises EOFError when the other side is gone."""
    (size,) = _SIZE.unpack(_receive(link, _SIZE.size))
    values: tuple[Any, ...] = marshal.loads(_receive(link, size))
    return values


def receive_descriptor(link: _socket.socket) -> int:
    """The descriptor that comes with CHANNEL_FOLLOWS; raises EOFError when the other side is gone."""
    _, ancillary, _, _ = link.recvmsg(len(CHANNEL_FOLLOWS), _socket.CMSG_SPACE(_DESCRIPTOR.size))
    if not ancillary:
        raise EOFError("the other side closed the link")
    (descriptor,) = _DESCRIPTOR.unpack(ancillary[0][2])
    return int(descriptor)


def _receive(link: _socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = link.recv(min(size, 1 << 20))
        if not part:
            raise EOFError("the other side closed the link")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
