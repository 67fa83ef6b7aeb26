"""One control group per fork server: the kernel bounds all processes of a run together.

Control groups belong to whoever manages the tree, so a group is created only below a parent that is
ours: one named in VERL_LITE_CGROUP (folders separated by colons), the top of what this process can
see, or a subtree delegated to it (systemd's `Delegate=yes`). Versions 1 and 2 differ only in file
names. The group is created once and reused: a run costs a few small reads and writes. Without a
parent, `CgroupUnavailable` says why, and only sampling bounds a run.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

CGROUP_VARIABLE = "VERL_LITE_CGROUP"
_CONTROLLERS = ("memory", "pids")
_OWN_PROCESSES = 2  # in the group but not the program's: the fork server and the namespace's init
_SLACK_BYTES = 16 << 20  # for the fork server, and the kernel's memory charged to a run
_PREFIX = "verl-lite-"
# In version 1, then in version 2.
_MEMORY_LIMIT = ("memory.limit_in_bytes", "memory.max")
_MEMORY_PEAK = ("memory.max_usage_in_bytes", "memory.peak")
_MEMORY_EVENTS = ("memory.oom_control", "memory.events")


class CgroupUnavailable(Exception):
    """No control group can be created here; the message says why."""


def find_parents(*, mounts: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> list[Path]:
    """The folders in which this process may create groups, at most one per hierarchy."""
    groups = _own_groups(Path(own).read_text())
    places: dict[str, Path] = {}
    for line in Path(mounts).read_text().splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, point, *_ = left.split()
        kind, _, options = right.split()[:3]
        if kind == "cgroup2":
            controllers = [""]
        elif kind == "cgroup":
            controllers = [name for name in _CONTROLLERS if name in options.split(",")]
        else:
            continue
        for controller in controllers:
            path = groups.get(controller)
            if path is not None and controller not in places:
                place = _ours(Path(point), os.path.relpath(path, root), version_2=not controller)
                if place is not None:
                    places[controller] = place
    return list(places.values())


def _own_groups(text: str) -> dict[str, str]:
    """This process's group path by controller; version 2 has the controller ""."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _ours(point: Path, relative: str, *, version_2: bool) -> Path | None:
    here = point / relative
    if relative == ".":
        candidates = [here]
    elif version_2 and not relative.startswith(".."):  # systemd's DelegateSubgroup: the parent group is ours
        candidates = [group for group in (here, here.parent) if group != point and _delegated(group)]
    else:
        candidates = []
    return next((group for group in candidates if os.access(group, os.W_OK) and _usable(group)), None)


def _delegated(group: Path) -> bool:
    for mark in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return False


def _usable(group: Path) -> bool:
    """Whether child groups have one of our controllers; version 2 must enable them first."""
    try:
        offered = (group / "cgroup.controllers").read_text().split()
    except OSError:
        return not (group / "cgroup.controllers").exists()  # version 1: its files always exist
    wanted = [name for name in _CONTROLLERS if name in offered]
    switch = group / "cgroup.subtree_control"
    try:
        if not set(wanted) <= set(switch.read_text().split()):
            switch.write_text(" ".join(f"+{name}" for name in wanted))
    except OSError:  # busy: the group itself has processes
        return False
    return bool(wanted)


def remove_groups(folders: Sequence[str], *, patience_s: float = 2.0) -> bool:
    """Remove groups whose processes have been killed; False when a process still holds one."""
    deadline_s = time.monotonic() + patience_s
    waiting = [Path(folder) for folder in folders]
    while waiting:
        for folder in list(waiting):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                continue
            waiting.remove(folder)
        if waiting and time.monotonic() > deadline_s:
            return False
        if waiting:
            time.sleep(0.005)
    return True


class ControlGroup:
    """The group of one fork server, in every hierarchy that has a parent for it.

    `given` is the value of VERL_LITE_CGROUP; if it is empty, parents are searched for. `covers`
    lists what the group bounds: "memory", "pids". Raises CgroupUnavailable.
    """

    def __init__(self, given: str = "") -> None:
        try:
            chosen = [Path(folder) for folder in given.split(":") if folder] or find_parents()
        except (OSError, ValueError) as error:
            raise CgroupUnavailable(f"control groups cannot be read: {error}") from error
        if not chosen:
            raise CgroupUnavailable(
                f"no control group is delegated to this process; {CGROUP_VARIABLE} can name one"
            )
        self.folders: list[str] = []
        self._files: dict[str, int] = {}
        try:
            for place in chosen:
                _usable(place)  # enables version 2's controllers; failures show below
                _remove_stale(place)
                folder = place / f"{_PREFIX}{os.getpid()}-{os.urandom(3).hex()}"
                folder.mkdir()
                self.folders.append(str(folder))
                self._open_files(folder)
        except OSError as error:
            self.close()
            raise CgroupUnavailable(f"no control group can be created: {error}") from error
        self.covers = [name for name, file in (("memory", "limit"), ("pids", "pids")) if file in self._files]
        if not self.covers:
            self.close()
            raise CgroupUnavailable("the control groups here bound neither memory nor processes")
        self._limits: tuple[int, int] | None = None
        self._oom_kills = 0
        self._peak_is_ours = False

    def add_process(self, pid: int) -> None:
        """Move process `pid` into the group; its future children start there."""
        for folder in self.folders:
            Path(folder, "cgroup.procs").write_text(str(pid))

    def begin_run(self, *, memory_bytes: int, processes: int) -> None:
        """Set the limits of the next run and reset its counters."""
        if self._limits != (memory_bytes, processes):
            self._write("limit", str(memory_bytes + _SLACK_BYTES))
            self._write("pids", str(processes + _OWN_PROCESSES))
            self._limits = memory_bytes, processes
        if "peak" in self._files:
            try:
                self._write("peak", "0")
                self._peak_is_ours = True
            except OSError:  # before Linux 6.12, version 2's peak cannot be reset and covers all runs
                self._peak_is_ours = False
        self._oom_kills = self._count_oom_kills()

    def killed_for_memory(self) -> bool:
        """Whether the kernel killed a process of this run because the group was full."""
        return self._count_oom_kills() > self._oom_kills

    def peak_bytes(self) -> int:
        """Peak memory of the run, including files in its /tmp; 0 where unknown."""
        return int(self._read("peak")) if self._peak_is_ours else 0

    def close(self) -> None:
        """Remove the group. Its processes must have been killed."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        remove_groups(self.folders)

    def _open_files(self, folder: Path) -> None:
        both = os.O_RDWR | os.O_CLOEXEC
        for name, file, flags in (
            *(("limit", file, both) for file in _MEMORY_LIMIT),
            *(("peak", file, both) for file in _MEMORY_PEAK),
            *(("events", file, os.O_RDONLY | os.O_CLOEXEC) for file in _MEMORY_EVENTS),
            ("pids", "pids.max", both),
        ):
            path = folder / file
            if path.exists():
                try:
                    self._files[name] = os.open(path, flags)
                except PermissionError:  # an old kernel's memory.peak, for an ordinary user
                    if name != "peak":
                        raise

    def _write(self, name: str, text: str) -> None:
        if name in self._files:
            os.pwrite(self._files[name], text.encode(), 0)

    def _read(self, name: str) -> str:
        return os.pread(self._files[name], 4096, 0).decode()

    def _count_oom_kills(self) -> int:
        if "events" not in self._files:
            return 0
        counts = dict(line.split() for line in self._read("events").splitlines())
        return int(counts.get("oom_kill", 0))


def group_with(pid: int, given: str) -> ControlGroup | None:
    """A control group with process `pid` in it, or None where none can be created."""
    try:
        group = ControlGroup(given)
    except CgroupUnavailable:
        return None
    try:
        group.add_process(pid)
    except OSError:
        group.close()
        return None
    return group


def _remove_stale(place: Path) -> None:
    """Remove groups left behind because their supervisor was killed with everything around it."""
    for folder in place.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            with contextlib.suppress(OSError):  # in use by a supervisor in another PID namespace
                folder.rmdir()
