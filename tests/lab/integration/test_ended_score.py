"""`score` that is ended from outside, by whatever means: no process and no file is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

Alive = Callable[[Iterable[int]], set[int]]

SLOW = """
import time
from verl_lite.plugins import reward

@reward("slow")
def slow(rollout):
    time.sleep(0.2)
    return 1.0
"""


def below(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for children in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                new = set(map(int, children.read_text().split()))
            except OSError:
                continue
            waiting += new
            found |= new
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_process_outlives_it(alive: Alive, number: int, code: int, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "rewards.yaml").write_text("rewards: {slow: {use: ./slow.py:slow}}")
    row = '{{"prompt": "{0}", "completion": "{1}"}}\n'
    (tmp_path / "rows.jsonl").write_text("".join(row.format(i, "x" * 200_000) for i in range(60)))
    command = [sys.executable, "-m", "verl_lite.cli", "score", "rows.jsonl", "-c", "rewards.yaml"]
    options = ["-o", "out/scored.parquet", "--no-cache", "--workers", "2"]
    with subprocess.Popen([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        # two processes and what watches multiprocessing's resources, and two fork servers with a worker each
        while len(started := below(process.pid)) < 7 and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == code
    deadline = time.monotonic() + 60
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(started)
    if number == signal.SIGTERM:
        assert list((tmp_path / "out").iterdir()) == []
