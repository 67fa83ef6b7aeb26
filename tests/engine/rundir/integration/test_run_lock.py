"""Two processes never train in one folder; a lock ends with its process, and says when that was killed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from verl_lite.engine.rundir import LOCK_FILE, choose_run_dir, run_lock
from verl_lite.errors import ConfigError

# holds the lock, forks a child that outlives it, and waits to be killed
HOLDER = """
import os, sys, time
from pathlib import Path
from verl_lite.engine.rundir import run_lock
with run_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[int]:
    """Another process that trains in `folder`; killed at the end, its child only after the test's look."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as pid:
        with pytest.raises(ConfigError, match=rf"run is in use by process {pid} on .*choose another --run-d"):
            run_lock(folder).__enter__()
        before = (folder / LOCK_FILE).read_text()
        assert str(pid) in before  # the refused one left it alone
    try:
        with run_lock(folder) as killed:  # the holder's forked child still lives
            assert killed == before
    finally:
        os.killpg(pid, 9)
    with run_lock(folder) as killed:
        assert killed == ""  # the one before ended in order


def test_a_run_whose_folder_is_deleted_meanwhile_ends_in_peace(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with run_lock(folder):
        (folder / LOCK_FILE).unlink()
        folder.rmdir()
    assert not folder.exists()


def test_a_lock_alone_does_not_make_a_folder_taken(tmp_path: Path) -> None:
    class Config:
        name = "x"

        def model_dump(self, *, mode: str) -> dict[str, object]:
            return {}

    with run_lock(tmp_path):
        pass
    assert choose_run_dir(Config(), tmp_path, resume=False) == tmp_path
    (tmp_path / "something").write_text("")
    with pytest.raises(ConfigError, match="already holds another run"):
        choose_run_dir(Config(), tmp_path, resume=False)


def test_the_lock_is_free_when_its_process_is_gone(tmp_path: Path) -> None:
    with holder(tmp_path) as pid:
        os.killpg(pid, 9)
        deadline = time.monotonic() + 60
        while True:
            try:
                with run_lock(tmp_path) as killed:
                    assert killed.startswith(f"process {pid} on ")
                    return
            except ConfigError:  # the kernel is still at it
                assert time.monotonic() < deadline
                time.sleep(0.05)
