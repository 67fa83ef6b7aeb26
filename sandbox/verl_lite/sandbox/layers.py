"""Which layers of isolation work on this machine, as `verl-lite doctor` prints them.

Each is tried in a short-lived child process; nothing is inferred from versions.
"""

import os
import resource
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from verl_lite.errors import SandboxError
from verl_lite.sandbox import _kernel, _landlock
from verl_lite.sandbox._cgroup import CGROUP_VARIABLE, CgroupUnavailable, ControlGroup
from verl_lite.sandbox._confinement import become_ordinary
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.bubblewrap import BubblewrapBackend
from verl_lite.sandbox.languages import LANGUAGES, ToolchainMissing, find_toolchain
from verl_lite.sandbox.limits import Limits, Result, Status
from verl_lite.sandbox.native import LandlockBackend, NativeBackend


class State(StrEnum):
    """Whether a layer works. The sandbox refuses to run when a required layer is `MISSING`."""

    ACTIVE = "active"
    REPLACED = "replaced"  # something else does its job; `detail` says what
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the isolation, and whether it holds here."""

    name: str
    state: State
    detail: str


_NAMESPACES = (
    ("pid namespace", _kernel.CLONE_NEWPID, "a run sees and signals only its own processes"),
    ("mount namespace", _kernel.CLONE_NEWNS, "read-only view of Python, private /tmp"),
    ("ipc namespace", _kernel.CLONE_NEWIPC, "no System V or POSIX queues of others"),
    ("uts namespace", _kernel.CLONE_NEWUTS, "host name `sandbox`"),
    (
        "network namespace",
        _kernel.CLONE_NEWNET,
        "one empty network per fork server, used by one run at a time",
    ),
)
_NO_PRIVILEGES = "no capabilities; set-user-id programs grant none"
_REPORT = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["Seccomp"].strip(), status["NoNewPrivs"].strip())
"""


def probe() -> list[Layer]:
    """The state of every layer on this machine, in the order in which a run meets them."""
    as_root = os.geteuid() == 0 and _kernel.may_make_namespaces()
    layers = [_identity(as_root)]
    for name, flag, detail in _NAMESPACES:
        reason = _in_child(lambda flag=flag: _unshare(flag, as_root=as_root))  # type: ignore[misc]
        layers.append(Layer(name, State.MISSING if reason else State.ACTIVE, reason or detail))
    layers += [_landlock_layer(), *_run_layers(), _processes_layer(as_root), _cgroup_layer()]
    return [*layers, _landlock_backend_layer(), _bubblewrap_layer(), *_language_layers()]


def _identity(as_root: bool) -> Layer:
    if as_root:
        return Layer("identity", State.ACTIVE, "root here; runs switch to a user that nothing else uses")
    reason = _in_child(lambda: _unshare(0, as_root=False))
    if reason:
        return Layer("user namespace", State.MISSING, f"{reason}; {_user_namespace_hint()}")
    root = "root without CAP_SYS_ADMIN here, whose runs become another user"
    who = root if os.geteuid() == 0 else "an ordinary user here"
    return Layer("user namespace", State.ACTIVE, f"{who}; runs have no other identity")


def _unshare(flag: int, *, as_root: bool) -> None:
    """As a fork server does: root directly, everyone else in a user namespace, and no one as root there."""
    if not as_root and os.geteuid() == 0:
        become_ordinary()
    _kernel.unshare(flag | (0 if as_root else _kernel.CLONE_NEWUSER))


def _user_namespace_hint() -> str:
    """The setting that forbids user namespaces, or the most frequent cause."""
    for name, forbidding in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
    ):
        file = Path("/proc/sys", name)
        if file.exists() and file.read_text().strip() == forbidding:
            return f"/proc/sys/{name} is {forbidding}"
    return "a container's seccomp profile often forbids them (docker: --security-opt seccomp=...)"


def _in_child(step: Callable[[], object]) -> str:
    """Why `step` fails in a child process; "" when it works."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            step()
            text = ""
        except OSError as error:
            text = error.strerror or repr(error)
        except BaseException as error:  # noqa: BLE001 - the child must not go on as this process
            text = repr(error)
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


def _landlock_layer() -> Layer:
    version = _landlock.abi()
    if not version:
        return Layer("landlock", State.REPLACED, "not in this kernel; only the mount namespace hides files")
    covers = ["files"] + ["TCP"] * (version >= 4) + ["signals", "abstract sockets"] * (version >= 6)
    return Layer("landlock", State.ACTIVE, f"ABI {version}: {', '.join(covers)}")


def _run_layers() -> list[Layer]:
    """What only a real run can show: /proc, seccomp, and that everything works together."""
    try:
        result = _one_run(NativeBackend)
    except SandboxError as error:
        return [Layer("python backend", State.MISSING, str(error))]
    if result.status is Status.SANDBOX_ERROR:
        return [Layer("python backend", State.MISSING, result.message)]
    filtered = f"an allow-list of system calls ({_kernel.MACHINE})"
    if result.status is Status.OK:
        rows = (("seccomp", b"2", filtered), ("no new privileges", b"1", _NO_PRIVILEGES))
        layers = [Layer("own /proc", State.ACTIVE, "only the run's processes")]
        for (name, active, detail), found in zip(rows, result.stdout.split(), strict=True):
            layers.append(Layer(name, State.ACTIVE if found == active else State.MISSING, detail))
    else:  # the report could not be read: there is no /proc
        layers = [Layer("own /proc", State.REPLACED, "cannot be mounted here; runs see an empty one")]
        layers.append(Layer("seccomp", State.ACTIVE, filtered))
    took = f"native: a run took {result.wall_s * 1e3:.1f} ms"
    return [*layers, Layer("python backend", State.ACTIVE, took)]


def _one_run(kind: type[NativeBackend], program: str = _REPORT) -> Result:
    backend = kind(1, read_only_paths=[], network_per_run=False)
    try:
        return backend.run(Request("python", program.encode(), b"", {}, [], Limits()))
    finally:
        backend.close()


def _landlock_backend_layer() -> Layer:
    """The weaker backend that needs no namespaces."""
    name, use = "without namespaces", "only where `backend: landlock` asks for it, since it isolates less"
    try:
        result = _one_run(LandlockBackend, "print(1)")
    except SandboxError as error:
        return Layer(name, State.MISSING, str(error))
    if result.status is not Status.OK:
        return Layer(name, State.MISSING, result.message)
    return Layer(name, State.ACTIVE, f"{use}; a run took {result.wall_s * 1e3:.1f} ms")


def _processes_layer(as_root: bool) -> Layer:
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    limit = "no host limit" if hard == resource.RLIM_INFINITY else f"the host's limit is {hard}"
    counted = "of the run's own user" if as_root else "in the fork server's user namespace"
    return Layer("resource limits", State.ACTIVE, f"memory, CPU, files; processes counted {counted}; {limit}")


def _cgroup_layer() -> Layer:
    instead = "the memory and CPU time of all a run's processes are sampled every 20 ms"
    try:
        group = ControlGroup(os.environ.get(CGROUP_VARIABLE, ""))
    except CgroupUnavailable as error:
        return Layer("cgroup", State.REPLACED, f"{error}; instead, {instead}")
    group.close()
    if "memory" not in group.covers:
        detail = f"bounds {', '.join(group.covers)}, but has no place for memory; instead, {instead}"
        return Layer("cgroup", State.REPLACED, detail)
    return Layer("cgroup", State.ACTIVE, f"bounds {' and '.join(group.covers)} of a run; besides, {instead}")


def _bubblewrap_layer() -> Layer:
    try:
        BubblewrapBackend(read_only_paths=[]).close()
    except SandboxError as error:
        return Layer("bubblewrap", State.MISSING, f"{error} (needed for other languages only)")
    words = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return Layer("bubblewrap", State.ACTIVE, " ".join(words))


def _language_layers() -> list[Layer]:
    layers = []
    for name, language in LANGUAGES.items():
        if name == "python":
            continue
        try:
            tools = ", ".join(find_toolchain(name).tools.values())
            compiled = "; compiled once per program" if language.compile else ""
            layers.append(Layer(name, State.ACTIVE, tools + compiled))
        except ToolchainMissing as error:
            layers.append(Layer(name, State.MISSING, str(error)))
    return layers
