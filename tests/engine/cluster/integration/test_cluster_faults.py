"""A run whose learner loses a rank goes on from its last checkpoint by itself, and ends as if nothing was."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine import TrainingSample, UpdateStats, train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.learner import Learner
from verl_lite.engine.observe import read_metrics
from verl_lite.errors import RankLost
from verl_lite.plugins import validate

KILL_CLUSTER = Path(__file__).parents[4] / "benchmarks" / "kill_cluster.py"


@pytest.fixture
def make(small_run: dict[str, Any]) -> Callable[..., TrainConfig]:
    data = {
        **small_run,
        "steps": 5,
        "rollout": {**small_run["rollout"], "num_prompts": 4},
        "learner": {"optimizer": {"learning_rate": 3e-3, "schedule": "constant"}},
        "checkpoints": {"every_steps": 2},
    }
    return lambda **changes: validate(TrainConfig, {**data, **changes}, source="test")


def curve(run_dir: Path) -> list[dict[str, float]]:
    names = ("step", "reward/mean", "learner/grad_norm", "loss/policy")
    return [{name: row[name] for name in names} for row in read_metrics(run_dir / "metrics.jsonl")]


@pytest.fixture
def lose_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`lose_ranks(2, 4)`: the second and the fourth call of `update` raise RankLost after their work."""

    def lose(*numbers: int) -> list[int]:
        calls: list[int] = []
        update = Learner.update

        def unlucky(self: Learner, samples: Sequence[TrainingSample]) -> UpdateStats:
            calls.append(len(calls) + 1)
            stats = update(self, samples)
            if calls[-1] in numbers:
                raise RankLost("a learner rank died")
            return stats

        monkeypatch.setattr(Learner, "update", unlucky)
        return calls

    return lose


def test_a_lost_rank_restarts_the_run_from_its_last_checkpoint(
    make: Callable[..., TrainConfig], lose_ranks: Callable[..., list[int]], tmp_path: Path
) -> None:
    """Lost in step 1, before any checkpoint; and in step 4, after the checkpoint of step 2."""
    train(make(), run_dir=tmp_path / "whole", debug_inline=True)
    calls = lose_ranks(1, 5)
    result = train(make(), run_dir=tmp_path / "run", debug_inline=True)
    assert len(calls) == 1 + 4 + 3
    assert not result.stopped
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2, 3, 4, 5]


def test_a_run_is_not_restarted_more_often_than_allowed(
    make: Callable[..., TrainConfig], lose_ranks: Callable[..., list[int]], tmp_path: Path
) -> None:
    calls = lose_ranks(1, 2, 3)
    with pytest.raises(RankLost, match=r"cluster\.max_restarts=2"):
        train(make(cluster={"max_restarts": 2}), run_dir=tmp_path / "run", debug_inline=True)
    assert calls == [1, 2, 3]


@pytest.mark.long
@pytest.mark.timeout(1250)
def test_a_run_on_a_cluster_outlives_a_node_and_one_process_of_each_kind(tmp_path: Path) -> None:
    """Ranks, engines and a reward worker on a head and two nodes; then Ctrl-C, which must leave nothing."""
    pytest.importorskip("ray")
    pytest.importorskip("vllm")
    kinds = ["node", "rank", "engine", "reward"]
    command = [sys.executable, str(KILL_CLUSTER), "--nodes", "2", "--kills", "4", "--kinds", *kinds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 recoveries" in done.stdout


@pytest.mark.slow
def test_a_killed_rank_restarts_the_run(make: Callable[..., TrainConfig], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    train(make(), run_dir=tmp_path / "whole", debug_inline=True)
    run_dir, killed = tmp_path / "run", threading.Event()

    def kill_after_three_steps() -> None:
        metrics = run_dir / "metrics.jsonl"
        while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 3:
            time.sleep(0.02)
        os.kill(_ranks_below(os.getpid())[1], signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill_after_three_steps, daemon=True).start()
    learner = {"optimizer": {"learning_rate": 3e-3, "schedule": "constant"}, "num_ranks": 2}
    result = train(make(learner=learner, steps=5), run_dir=run_dir, debug_inline=True)
    assert killed.is_set()
    assert not result.stopped
    for one, several in zip(curve(tmp_path / "whole"), curve(run_dir), strict=True):
        assert several == pytest.approx(one, rel=2e-3, abs=2e-4)


def _ranks_below(root: int) -> list[int]:
    """The processes of learner ranks that Ray started for `root`."""
    parents, ranks = {}, []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            if Path(f"/proc/{entry}/cmdline").read_bytes().startswith(b"ray::RankActor"):
                ranks.append(int(entry))
        except OSError:
            continue

    def is_below(pid: int) -> bool:
        while pid in parents and pid != root:
            pid = parents[pid]
        return pid == root

    return [pid for pid in ranks if is_below(pid)]
