"""The program and its files on their way into a run: one buffer that the fork server never reads."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAIN_FILE = "main.py"


@dataclass(frozen=True, slots=True)
class Payload:
    """`files` are paths relative to the working directory; `source` becomes `main_file` there."""

    source: bytes
    args: Sequence[str]
    files: Mapping[str, bytes]

    def pack(self) -> bytes:
        """A line of JSON with the sizes, then the bytes."""
        sizes = [[name, len(data)] for name, data in self.files.items()]
        header = json.dumps({"source": len(self.source), "args": list(self.args), "files": sizes})
        return b"".join((header.encode(), b"\n", self.source, *self.files.values()))

    @classmethod
    def unpack(cls, data: bytes) -> "Payload":
        """The inverse of `pack`."""
        head, _, body = data.partition(b"\n")
        header = json.loads(head)
        at = header["source"]
        files = {}
        for name, size in header["files"]:
            files[name] = body[at : at + size]
            at += size
        return cls(body[: header["source"]], header["args"], files)


def place_files(files: Mapping[str, bytes], directory: str) -> None:
    """Write `files` below `directory`, with their folders."""
    for name, data in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def check_file_names(files: Mapping[str, bytes]) -> None:
    """Refuse names that would leave the working directory or take the program's own place."""
    for name in files:
        parts = name.split("/")
        if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise ValueError(f"files: {name!r}: expected a relative path without '.' or '..'")
        if name == MAIN_FILE:
            raise ValueError(f"files: {name!r} is the place of the program itself; use another name")


def in_memory(data: bytes) -> int:
    """An anonymous file holding `data`, at its start. As stdin it behaves as a file redirected there."""
    descriptor = os.memfd_create("input")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
