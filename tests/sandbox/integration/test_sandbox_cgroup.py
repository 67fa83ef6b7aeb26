"""Control groups: the real ones where this machine gives us a place, a made-up tree for the rest."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from verl_lite.sandbox import Limits, Sandbox, Status
from verl_lite.sandbox._cgroup import CgroupUnavailable, ControlGroup, find_parents, remove_groups

MEMORY_BOMB = """
import os, time
for _ in range(5):
    if os.fork() == 0:
        block = bytearray(20 << 20)  # each is within what one process may have, all together are not
        time.sleep(30)
time.sleep(30)
"""


@pytest.fixture
def group() -> ControlGroup:
    """A real one, empty."""
    try:
        return ControlGroup(os.environ.get("VERL_LITE_CGROUP", ""))
    except CgroupUnavailable as error:
        pytest.skip(str(error))


def groups_of(pid: int) -> list[Path]:
    """The groups of ours that process `pid` is in, by the kernel's own account."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return [Path(line) for line in lines if "/verl-lite-" in line]


def test_a_real_group_bounds_processes(group: ControlGroup) -> None:
    if "pids" not in group.covers:
        group.close()
        pytest.skip("no place for the controller of processes")
    program = (
        "import os, sys, time\nsys.stdin.readline()\nn = 0\n"
        "try:\n  while n < 50:\n    if os.fork() == 0: time.sleep(30)\n    n += 1\n"
        "except OSError: pass\nprint(n, flush=True)\ntime.sleep(30)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        group.begin_run(memory_bytes=1 << 30, processes=3)
        group.add_process(process.pid)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        forked = int(process.stdout.readline())
        os.killpg(process.pid, signal.SIGKILL)
    group.close()
    assert forked == 4  # with itself five: three, and room for two of ours
    assert not any(Path(folder).exists() for folder in group.folders)


def test_the_fork_server_lives_in_a_group_that_goes_with_it(group: ControlGroup) -> None:
    group.close()
    before = set(children_with_children(os.getpid()))  # other tests may share sandboxes
    with Sandbox(workers=1, backend="native") as own:
        assert own.run_python("print(1)").stdout == b"1\n"
        (supervisor,) = set(children_with_children(os.getpid())) - before
        (server,) = children(supervisor)
        assert groups_of(server)
        assert not groups_of(supervisor)
        assert b"VERL_LITE" not in own.run_python("import os; print(os.environ)").stdout
        folders = made_by(supervisor, group)
        assert len(folders) == len(group.folders)
    assert not any(folder.exists() for folder in folders)


def test_no_group_is_left_after_the_parents_sudden_death(group: ControlGroup) -> None:
    group.close()
    script = (
        "from verl_lite.sandbox import Sandbox\nwith Sandbox(workers=1, backend='native') as s:\n"
        "  s.run_python('pass'); print('ready', flush=True); s.run_python('import time; time.sleep(60)')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (supervisor,) = children_with_children(parent.pid)
        folders = made_by(supervisor, group)
        assert folders
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(folder.exists() for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(folder.exists() for folder in folders)


def test_a_group_whose_owner_is_gone_is_swept_away(group: ControlGroup) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    left = [Path(folder).parent / f"verl-lite-{ended.pid}-abc" for folder in group.folders]
    for folder in left:
        folder.mkdir()
    ControlGroup(os.environ.get("VERL_LITE_CGROUP", "")).close()
    group.close()
    assert not any(folder.exists() for folder in left)


def test_the_kernel_bounds_the_memory_of_all_processes(group: ControlGroup) -> None:
    """Between two samples too: the group's peak never passes its limit."""
    group.close()
    if "memory" not in group.covers:
        pytest.skip("no place for the controller of memory: set VERL_LITE_CGROUP to a delegated group")
    limits = Limits(wall_s=20, memory_mb=64, disk_mb=1)
    with Sandbox(workers=1, backend="native") as own:
        result = own.run_python(MEMORY_BOMB, limits=limits)
        assert result.status is Status.MEMORY, result
        assert result.peak_memory_mb <= 64 + 1 + 16
        after = own.run_python("print(1)", limits=limits)
    assert (after.stdout, after.status) == (b"1\n", Status.OK)
    assert after.peak_memory_mb < 40


def test_many_processes_together_are_stopped_without_a_group_for_memory_too(sandbox: Sandbox) -> None:
    result = sandbox.run_python(MEMORY_BOMB, limits=Limits(wall_s=60, memory_mb=64))
    assert result.status is Status.MEMORY, result


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
    return found


def children_with_children(pid: int) -> list[int]:
    """The supervisors among its children: each has a fork server."""
    return [child for child in children(pid) if children(child)]


def made_by(supervisor: int, like: ControlGroup) -> list[Path]:
    places = {Path(folder).parent for folder in like.folders}
    return [folder for place in places for folder in place.glob(f"verl-lite-{supervisor}-*")]


V1 = {
    "memory.limit_in_bytes": "9223372036854771712",
    "memory.max_usage_in_bytes": "5000000",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "pids.max": "max",
    "cgroup.procs": "",
}
V2 = {
    "memory.max": "max",
    "memory.peak": "5000000",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 3\n",
    "pids.max": "max",
    "cgroup.procs": "",
}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Folders that are made get the kernel's files, and can be removed with them in."""

    def behave_as(files: dict[str, str]) -> None:
        plain = Path.mkdir

        def mkdir(folder: Path, *args: int, **options: bool) -> None:
            plain(folder, *args, **options)
            for name, text in files.items():
                (folder / name).write_text(text)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", shutil.rmtree)

    return behave_as


@pytest.mark.parametrize(
    ("files", "limit", "events"),
    [(V1, "memory.limit_in_bytes", "memory.oom_control"), (V2, "memory.max", "memory.events")],
    ids=["version 1", "version 2"],
)
def test_limits_peak_and_kills_by_file(
    files: dict[str, str],
    limit: str,
    events: str,
    tmp_path: Path,
    made_up: Callable[[dict[str, str]], None],
) -> None:
    made_up(files)
    group = ControlGroup(str(tmp_path))
    (folder,) = map(Path, group.folders)
    assert folder.parent == tmp_path
    assert group.covers == ["memory", "pids"]
    group.add_process(123)
    assert (folder / "cgroup.procs").read_text() == "123"
    group.begin_run(memory_bytes=100 << 20, processes=16)
    assert (folder / limit).read_text().startswith(str((100 + 16) << 20))
    assert (folder / "pids.max").read_text().startswith("18")
    assert group.peak_bytes() == 0  # "0" was written over the "5" of a file that the kernel would reset
    assert not group.killed_for_memory()
    (folder / events).write_text(files[events].replace("oom_kill 3", "oom_kill 4"))
    assert group.killed_for_memory()
    group.begin_run(memory_bytes=100 << 20, processes=16)
    assert not group.killed_for_memory()  # that was the run before
    group.close()
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_bounds_nothing_is_not_used(
    tmp_path: Path, made_up: Callable[[dict[str, str]], None]
) -> None:
    made_up({"cgroup.procs": ""})
    with pytest.raises(CgroupUnavailable, match="neither"):
        ControlGroup(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_named_place_of_version_2_hands_its_controllers_down(
    tmp_path: Path, made_up: Callable[[dict[str, str]], None]
) -> None:
    offer(tmp_path, handed_down="cpu")
    made_up(V2)
    ControlGroup(str(tmp_path)).close()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_place_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with pytest.raises(CgroupUnavailable, match="No such file"):
        ControlGroup(str(tmp_path / "nowhere"))


class Tree:
    """A made-up mount table and group membership, over folders that exist."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []
        self.own: list[str] = []

    def mount(self, name: str, kind: str, options: str, *, root: str = "/") -> Path:
        point = self.root / name
        point.mkdir()
        self.lines.append(f"30 20 0:30 {root} {point} rw,relatime - {kind} {kind} rw,{options}")
        return point

    def places(self) -> list[Path]:
        mounts, own = self.root / "mountinfo", self.root / "own"
        mounts.write_text("\n".join(["29 20 0:29 / /proc rw - proc proc rw", *self.lines]) + "\n")
        own.write_text("\n".join(self.own) + "\n")
        return find_parents(mounts=str(mounts), own=str(own))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def offer(group: Path, *, handed_down: str) -> None:
    group.mkdir(exist_ok=True)
    (group / "cgroup.controllers").write_text("cpu memory pids\n")
    (group / "cgroup.subtree_control").write_text(handed_down)


def test_version_1_only_at_the_top_of_a_hierarchy(tree: Tree) -> None:
    tree.mount("memory", "cgroup", "memory")
    pids = tree.mount("pids", "cgroup", "pids")
    tree.mount("cpu", "cgroup", "cpu,cpuacct")
    tree.own = ["3:cpu,cpuacct:/", "2:memory:/managed/by/someone", "1:pids:/", "0::/"]
    assert tree.places() == [pids]


def test_in_a_container_the_top_is_what_is_mounted(tree: Tree) -> None:
    memory = tree.mount("memory", "cgroup", "memory", root="/docker/abc")
    tree.own = ["2:memory:/docker/abc"]
    assert tree.places() == [memory]


def test_version_2_hands_its_controllers_down(tree: Tree) -> None:
    top = tree.mount("unified", "cgroup2", "nsdelegate")
    offer(top, handed_down="")
    tree.own = ["0::/"]
    assert tree.places() == [top]
    assert (top / "cgroup.subtree_control").read_text() == "+memory +pids"


@pytest.mark.parametrize(("marked", "found"), [([], None), (["unit"], "unit"), (["unit/main"], "unit/main")])
def test_version_2_below_the_top_only_where_delegated(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, marked: list[str], found: str | None
) -> None:
    top = tree.mount("unified", "cgroup2", "nsdelegate")
    for group in ("unit", "unit/main"):
        offer(top / group, handed_down="memory pids")
    tree.own = ["0::/unit/main"]
    delegated = {str(top / name) for name in marked}

    def getxattr(path: Path, name: str) -> bytes:
        if name == "user.delegate" and str(path) in delegated:
            return b"1"
        raise OSError(61, "no data")

    monkeypatch.setattr(os, "getxattr", getxattr)
    assert tree.places() == ([] if found is None else [top / found])


def test_version_2_without_our_controllers_is_no_place(tree: Tree) -> None:
    top = tree.mount("unified", "cgroup2", "rw")
    (top / "cgroup.controllers").write_text("hugetlb\n")
    (top / "cgroup.subtree_control").write_text("")
    tree.own = ["0::/"]
    assert tree.places() == []


def test_a_group_still_held_is_not_waited_for_without_end(tmp_path: Path) -> None:
    (tmp_path / "held" / "process").mkdir(parents=True)
    assert not remove_groups([str(tmp_path / "held")], patience_s=0.1)
    assert remove_groups([str(tmp_path / "never made")])
