"""Frames between the trainer and a supervisor: a JSON header with the sizes of the bytes behind it."""

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_HEAD = struct.Struct("<IQ")


def send_frame(link: socket.socket, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send `header` and `blobs`; raises OSError when the other side is gone."""
    text = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    size = sum(map(len, blobs))
    link.sendall(b"".join((_HEAD.pack(len(text), size), text, *blobs)))


def receive_frame(link: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """The next frame; raises EOFError when the other side is gone."""
    text_size, body_size = _HEAD.unpack(_receive(link, _HEAD.size))
    data = _receive(link, text_size + body_size)
    header = json.loads(data[:text_size])
    blobs, at = [], text_size
    for size in header["sizes"]:
        blobs.append(data[at : at + size])
        at += size
    return header, blobs


def _receive(link: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = link.recv(min(size, 1 << 20))
        if not part:
            raise EOFError("the other side closed the link")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
