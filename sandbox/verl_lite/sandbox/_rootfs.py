"""The root file system of runs: read-only, built once by the fork server, detached from the host's.

It holds Python's installation, the system's shared libraries, time zones, four devices and a
synthetic /etc. It does not hold /home, /root, /var, /run, or the host's /etc, /tmp and /sys.
"""

import os
import sys
from collections.abc import Sequence

from verl_lite.sandbox import _kernel

WORK = "work"  # below a run's private folder
WORK_DIR = f"/tmp/{WORK}"
# A run's private files are mounted one folder down, and /tmp links there: Landlock checks the folders
# above a mount point but not the mount point itself, so one rule, made once, covers every run.
PRIVATE_DIR = "/private"
TMP_MOUNT = "/private/tmp"
_NO_EXEC = _kernel.MS_NOSUID | _kernel.MS_NODEV | _kernel.MS_NOEXEC
# By name in the root: the host's device. Shared mappings of /dev/zero are memory of no process; reading
# /dev/full gives the same zeros, and it cannot be mapped.
DEVICES = {"null": "null", "zero": "full", "random": "random", "urandom": "urandom"}
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "shm": "/tmp/.shm",
}
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
DATA = ("/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime")
_ETC = {
    "passwd": "sandbox:x:{uid}:{gid}:sandbox:/tmp/work:/nonexistent\n",
    "group": "sandbox:x:{gid}:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def base_python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def python_paths() -> list[str]:
    """The parts of the Python installation that a run needs: the executable and its library folders."""
    folders = [os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")]
    return [path for path in [base_python(), *folders] if os.path.exists(path)]


def root_paths(extra: Sequence[str] = ()) -> list[str]:
    """All host paths in the root, each once, parents before children."""
    wanted = {*_SYSTEM_LIBRARIES, *DATA, *python_paths(), *extra}
    return sorted(path for path in wanted if os.path.exists(path))


def build_root(*, staging: str, paths: Sequence[str], uid: int, gid: int) -> bool:
    """Build the root under the existing folder `staging`, enter it and detach the host's files.

    The caller must be in its own mount namespace. Returns whether /proc can be mounted; hosts that
    mask parts of theirs forbid it, and runs then see an empty one. Raises OSError naming the step
    that failed.
    """
    _kernel.mount("none", "/", None, _kernel.MS_REC | _kernel.MS_PRIVATE)
    _kernel.mount("tmpfs", staging, "tmpfs", _kernel.MS_NOSUID | _kernel.MS_NODEV, "mode=755,size=1m")
    for path in paths:
        _bind(path, staging)
    for name, device in DEVICES.items():
        _bind_file(f"/dev/{device}", f"{staging}/dev/{name}")
    _make_skeleton(staging, uid, gid)
    own_proc = _try_proc(staging + "/proc")
    _kernel.pivot_root(staging, staging + "/old")
    os.chdir("/")
    _kernel.unmount("/old")
    os.rmdir("/old")
    _kernel.make_read_only("/")
    for name in DEVICES:
        _kernel.allow_devices(f"/dev/{name}")
    return own_proc


def _try_proc(target: str) -> bool:
    try:
        _kernel.mount("proc", target, "proc", _NO_EXEC, "subset=pid")
    except OSError:
        return False
    return True


def _make_skeleton(staging: str, uid: int, gid: int) -> None:
    for folder in ("old", "proc", "private/tmp", "dev", "etc"):
        os.makedirs(f"{staging}/{folder}", mode=0o755, exist_ok=True)
    os.symlink(TMP_MOUNT, f"{staging}/tmp")
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"{staging}/dev/{name}")
    for name, text in _ETC.items():
        with open(f"{staging}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text.format(uid=uid, gid=gid))


def _bind(path: str, staging: str) -> None:
    """Bind `path` to the same path below `staging`; a link to a folder is copied, not followed."""
    target = staging + path
    if os.path.lexists(target):
        return  # already bound through a parent
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.islink(path) and os.path.isdir(path):
        os.symlink(os.readlink(path), target)
    elif os.path.isdir(path):
        os.mkdir(target)
        _kernel.mount(path, target, None, _kernel.MS_BIND | _kernel.MS_REC)
    else:
        _bind_file(os.path.realpath(path), target)


def _bind_file(path: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    with open(target, "w", encoding="utf-8"):
        pass
    _kernel.mount(path, target, None, _kernel.MS_BIND)
