"""What Ray started for a run is gone after it, however the run ends; and nothing of Ray's is printed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from verl_lite.engine.build import OnRay, placed_by_ray
from verl_lite.engine.cluster import SLOW, TERMINATED, RayRuntime, descendants
from verl_lite.engine.config import ClusterConfig, TrainConfig
from verl_lite.errors import ConfigError

pytest.importorskip("ray")

DRIVER = """
import os, subprocess, sys, time
from verl_lite.engine.cluster import RayRuntime
from verl_lite.engine.config import ClusterConfig

class Actor:
    def start(self):
        child = subprocess.Popen(["sleep", "600"])  # as an engine's own processes
        return os.getpid(), child.pid

with RayRuntime(ClusterConfig(address={address!r}), cpus=1) as session:
    actor = session.ray.remote(num_cpus=1)(Actor).remote()
    print(*session.ray.get(actor.start.remote()), flush=True)
    time.sleep({seconds})
"""
START_S = 90.0
GONE_S = 60.0


@contextmanager
def _driver(*, address: str | None = None, seconds: float = 600.0) -> Iterator[subprocess.Popen[str]]:
    code = DRIVER.format(address=address, seconds=seconds)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, start_new_session=True, **pipes) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def _session_of(pid: int) -> set[int]:
    """The processes of `pid`'s session (its own, Ray's, the actors'), those that left it by their parent."""
    found: set[int] = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and (int(fields[3]) == pid or int(fields[1]) == pid):
            found.add(int(entry))
    return found


def _below(root: int) -> set[int]:
    return {pid for pid, _ in descendants(root)}


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _left_after(pids: set[int]) -> set[int]:
    deadline = time.monotonic() + GONE_S
    while (left := {pid for pid in pids if _is_alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _processes_while_running(driver: subprocess.Popen[str]) -> set[int]:
    """Waits for the driver's line: its actor and the actor's child."""
    assert driver.stdout is not None
    line = driver.stdout.readline()
    assert line, driver.stderr.read() if driver.stderr else ""
    found = _session_of(driver.pid) | {int(pid) for pid in line.split()}
    assert len(found) > 6, "a Ray of its own is several processes, or this test looks at the wrong ones"
    return found


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        pytest.param(signal.SIGTERM, TERMINATED, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, -signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(None, 0, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_of_a_ray_of_its_own(number: int | None, code: int) -> None:
    with _driver(seconds=600.0 if number else 2.0) as driver:
        started = _processes_while_running(driver)
        time.sleep(1.5)  # the watchdog looks once a second
        if number == signal.SIGINT:
            os.killpg(driver.pid, number)  # as a terminal's Ctrl-C
        elif number is not None:
            driver.send_signal(number)
        _, errors = driver.communicate(timeout=START_S)
        assert driver.returncode == code
        assert not _left_after(started)
        assert "ray" not in errors.lower() or number == signal.SIGINT, errors  # a traceback names the file
        assert not [line for line in errors.splitlines() if "SIGTERM" in line or "WARNING" in line]


@pytest.mark.slow
def test_a_node_that_missed_its_start_is_ended_before_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Popen objects left behind would also warn, which is an error here."""
    from ray._private import services

    before, running = _below(os.getpid()), []

    def late(*arguments: object) -> None:
        running.append(_below(os.getpid()) - before)
        raise ValueError(f"The current node {SLOW}." if len(running) == 1 else "another fault")

    monkeypatch.setattr(services, "get_node", late)
    with pytest.raises(ConfigError, match="another fault"), RayRuntime(ClusterConfig(), cpus=1):
        pass
    first, second = running
    assert len(first) > 3, "a node is several processes, or this test looks at the wrong ones"
    watchdog = first & second
    assert len(watchdog) == 1
    assert not _left_after(first | second)


DIES = """
import os, signal, time
from verl_lite.engine.cluster import RayRuntime
from verl_lite.engine.config import ClusterConfig

class Actor:
    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

with RayRuntime(ClusterConfig(), cpus=1) as session:
    ray = session.ray
    try:
        ray.get(ray.remote(Actor).remote().die.remote())
    except ray.exceptions.RayActorError:
        time.sleep(4)  # Ray tells the driver a moment later
        print("lost", flush=True)
"""


@pytest.mark.slow
def test_ray_prints_nothing_about_a_killed_worker() -> None:
    done = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lost\n"


@pytest.fixture
def existing_cluster() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_actors_on_an_existing_cluster_end_with_their_driver(existing_cluster: str) -> None:
    with _driver(address=existing_cluster) as driver:
        assert driver.stdout is not None
        actors = {int(pid) for pid in driver.stdout.readline().split()}
        assert len(actors) == 2
        driver.kill()
        driver.wait()
        assert not _left_after(actors)
    with _driver(address=existing_cluster, seconds=0.0) as another:  # the cluster itself is still there
        assert another.wait(START_S) == 0


def test_a_cluster_that_is_not_there_is_a_config_error() -> None:
    with (
        pytest.raises(ConfigError, match=r"cluster.address=127.0.0.1:1: no Ray cluster"),
        RayRuntime(ClusterConfig(address="127.0.0.1:1"), cpus=1),
    ):
        pass


def test_a_cluster_that_asks_for_a_token_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray 2.60 says only that it failed to connect."""
    import ray

    def init(**options: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        message = r"Failed to connect to Ray cluster at 10\.0\.0\.1:6379; if .* set RAY_AUTH_MODE=token"
        with pytest.raises(ConfigError, match=message), RayRuntime(ClusterConfig(address=address), cpus=1):
            pass


def test_an_address_without_anything_to_place_is_refused(tiny_run: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no part of this run is placed by Ray"):
        TrainConfig.model_validate({**tiny_run, "cluster": {"address": "auto"}})


def test_placed_cpus_counts_the_parts(tiny_run: dict[str, object]) -> None:
    assert placed_by_ray(TrainConfig.model_validate(tiny_run), launched=False).cpus == 0
    placed = {
        **tiny_run,
        "learner": {"num_ranks": 2},
        "rollout": {"num_engines": 3, "max_prompt_tokens": 64, "max_new_tokens": 64},
        "cluster": {"rewards": {"count": 2, "cpus": 1.5}},
    }
    config = TrainConfig.model_validate(placed)
    assert placed_by_ray(config, launched=False) == OnRay(num_ranks=2, cpus=2 + 3 + 3)
    assert placed_by_ray(config, launched=True) == OnRay(num_ranks=0, cpus=3 + 3)  # torchrun's ranks


def test_the_ranks_of_torchrun_are_no_reason_for_an_address(tiny_run: dict[str, object]) -> None:
    tree = {**tiny_run, "learner": {"num_ranks": 2}, "cluster": {"address": "auto"}}
    config = TrainConfig.model_validate(tree)
    assert placed_by_ray(config, launched=False).num_ranks == 2
    with pytest.raises(ConfigError, match="no part of this run is placed by Ray"):
        placed_by_ray(config, launched=True)


@pytest.fixture
def tiny_run() -> dict[str, object]:
    return {
        "steps": 1,
        "model": {"tiny": {}},
        "data": {"train": {"path": "rows.jsonl"}},
        "rewards": {"brevity": {"use": "length", "weight": 1.0}},
        "rollout": {"max_prompt_tokens": 64, "max_new_tokens": 64},
    }
