"""A program, its arguments and files, packed into one buffer that the fork server never reads."""

import marshal
import os
from collections.abc import Mapping, Sequence

MAIN_FILE = "main.py"


def pack_program(source: bytes, args: Sequence[str], files: Mapping[str, bytes]) -> bytes:
    """As bytes, with `marshal`: it is one call in the run, and both ends are the same interpreter.

    `files` are paths relative to the working directory, where `source` becomes `MAIN_FILE`.
    """
    plain = {str(name): bytes(data) for name, data in files.items()}
    return marshal.dumps((source, [str(argument) for argument in args], plain))


def unpack_program(data: bytes) -> tuple[bytes, list[str], dict[str, bytes]]:
    source, args, files = marshal.loads(data)
    return source, args, files


def write_files(files: Mapping[str, bytes], directory: str) -> None:
    for name, data in files.items():
        if "/" in name:
            os.makedirs(f"{directory}/{os.path.dirname(name)}", exist_ok=True)
        file = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        write_all(file, data)
        os.close(file)


def write_all(descriptor: int, data: bytes) -> None:
    """write(2) until everything is written. Bare calls: a run pays for every page it touches."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, size, 0)
    while len(data) < size:  # read(2) stops at 2 GiB
        data += os.pread(descriptor, size - len(data), len(data))
    return data


def check_file_names(files: Mapping[str, bytes]) -> None:
    """Raises ValueError for names outside the working directory or equal to the program's own."""
    for name in files:
        parts = name.split("/")
        if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise ValueError(f"files: {name!r}: expected a relative path without '.' or '..'")
        if name == MAIN_FILE:
            raise ValueError(f"files: {name!r} is the name of the program itself; use another one")
