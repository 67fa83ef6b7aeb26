"""Run a command as an ordinary user, from root: `python run_as_user.py COMMAND...`.

With `--root` first, the command stays root; only the user that its sandboxes switch to sees more.

In a mount namespace of its own, the folders that hide the Python installation and the checkout from
other users (such as a /root with mode 700) are replaced by empty ones that show only those two.
"""

import ctypes
import os
import sys
from pathlib import Path

NOBODY = 65534
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def hiding_folder(path: Path) -> Path | None:
    """The outermost folder above `path` that others cannot enter."""
    return next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)


def uncover(paths: list[Path]) -> None:
    hidden: dict[Path, list[Path]] = {}
    for path in paths:
        folder = hiding_folder(path)
        if folder is not None:
            hidden.setdefault(folder, []).append(path)
    for folder, inside in hidden.items():
        held = [os.open(path, os.O_PATH) for path in inside]
        check(libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"mode=755"))
        for path, descriptor in zip(inside, held, strict=True):
            path.mkdir(parents=True, exist_ok=True)
            check(libc.mount(f"/proc/self/fd/{descriptor}".encode(), bytes(path), None, 4096 | 16384, None))
            os.close(descriptor)


def main() -> None:
    check(libc.unshare(0x20000))
    check(libc.mount(b"none", b"/", None, 16384 | (1 << 18), None))
    checkout = Path(__file__).resolve().parents[2]
    uncover([Path(sys.base_prefix), Path(sys.prefix).resolve(), checkout])
    command = sys.argv[1:]
    if command[0] == "--root":
        command = command[1:]
    else:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.environ.update(HOME="/tmp", HYPOTHESIS_STORAGE_DIRECTORY="/tmp/.hypothesis-of-nobody")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
