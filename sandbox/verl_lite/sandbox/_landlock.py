"""Landlock: a second barrier around files, independent of mounts, and around TCP, signals and sockets."""

import os
import struct
from collections.abc import Sequence

from verl_lite.sandbox import _kernel

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL_FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_FS_NEWEST = (1 << 16) - 1  # ABI 5 added IOCTL_DEV
_ALL_NET, _ALL_SCOPES = 3, 3  # bind and connect of TCP (ABI 4); abstract sockets and signals (ABI 6)
_PATH_BENEATH, _TRUNCATE = 1, 0x4000
_FOR_DIRECTORIES_ONLY = _READ_DIR | 0x1FF0 | 0x2000  # make, remove and refer make no sense for files


def abi() -> int:
    """The kernel's Landlock ABI version; 0 without Landlock."""
    try:
        return _kernel.syscall(_kernel.LANDLOCK_CREATE, None, 0, 1, name="landlock_create_ruleset")
    except OSError:
        return 0


def _allow(ruleset: int, path: str, rights: int) -> None:
    if not os.path.isdir(path):
        rights &= ~_FOR_DIRECTORIES_ONLY
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", rights, target)
        arguments = (ruleset, _PATH_BENEATH, rule, 0)
        _kernel.syscall(_kernel.LANDLOCK_ADD_RULE, *arguments, name="landlock_add_rule")
    finally:
        os.close(target)


def make_ruleset(
    version: int, *, execute: Sequence[str], own: Sequence[str], read: Sequence[str] = ("/",)
) -> int:
    """A ruleset, as a descriptor: read what is below `read`, execute files below `execute`, write to the
    null device, and do anything except execute below `own`, or what is mounted inside it.
    """
    handled = _ALL_FS_BY_ABI.get(version, _ALL_FS_NEWEST)
    fields = [handled] + ([_ALL_NET] if version >= 4 else []) + ([_ALL_SCOPES] if version >= 6 else [])
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    arguments = (attributes, len(attributes), 0)
    ruleset = _kernel.syscall(_kernel.LANDLOCK_CREATE, *arguments, name="landlock_create_ruleset")
    for path in read:
        _allow(ruleset, path, _READ_FILE | _READ_DIR)
    _allow(ruleset, "/dev/null", _READ_FILE | _WRITE_FILE | (handled & _TRUNCATE))
    for path in execute:
        _allow(ruleset, path, _EXECUTE)
    for path in own:
        _allow(ruleset, path, handled & ~_EXECUTE)
    return ruleset
