"""Nothing is left behind: at the end, at Ctrl-C, when the trainer or the fork server is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from verl_lite.errors import PluginError, RewardError
from verl_lite.plugins import Rollout, Score, reward
from verl_lite.plugins.execution import Execution
from verl_lite.plugins.testing import component_for, fake_rollout


@reward("family", timeout_s=60)
def family(rollout: Rollout) -> Score:
    """Leaves three processes behind and tells their ids, its own and its parent's."""
    left = [_stay(own_session=False), _stay(own_session=True)]
    left.append(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
    if rollout.completion == "hang":
        Path(rollout.columns["path"]).write_text(" ".join(map(str, [os.getpid(), os.getppid(), *left])))
        while True:
            time.sleep(60)
    return Score(1.0, details={"worker": os.getpid(), "fork_server": os.getppid(), "left": left})


def _stay(*, own_session: bool) -> int:
    child = os.fork()
    if child == 0:
        if own_session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    return child


@reward("who")
def who(rollout: Rollout) -> Score:
    return Score(1.0, details={"worker": os.getpid(), "fork_server": os.getppid()})


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a zombie waits for whoever adopted it, it runs no more


def wait_until_gone(pids: Iterable[int], *, within_s: float = 60) -> list[int]:
    """The ids that are still alive after all."""
    deadline = time.monotonic() + within_s
    left = list(pids)
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if is_alive(pid)]
        time.sleep(0.02)
    return left


def test_closing_ends_workers_and_every_process_a_reward_started() -> None:
    with Execution([component_for(family)], workers=2) as execution:
        run = execution.start()
        run.add([fake_rollout() for _ in range(4)])
        details = [row["family"].score.details for row in run.finish()]
        pids = {pid for found in details for pid in (found["worker"], found["fork_server"], *found["left"])}
        assert len(pids) >= 4 * 3 + 2
        assert all(is_alive(pid) for found in details for pid in (found["worker"], found["fork_server"]))
    assert [pid for pid in pids if is_alive(pid)] == []  # at once, not after a while


def test_an_exception_in_the_block_ends_them_too_and_nobody_waits_for_a_hanging_row(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with pytest.raises(ZeroDivisionError), Execution([component_for(family)], workers=1) as execution:  # noqa: PT012
        execution.start().add([fake_rollout("hang", columns={"path": str(path)})])
        pids = read_pids(path)
        started = time.monotonic()
        raise ZeroDivisionError
    assert time.monotonic() - started < 50
    assert [pid for pid in pids if is_alive(pid)] == []


def read_pids(path: Path, within_s: float = 60) -> list[int]:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if path.exists() and len(path.read_text().split()) == 5:
            return [int(pid) for pid in path.read_text().split()]
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_trainer_is_the_end_of_its_workers(tmp_path: Path, number: int) -> None:
    path = tmp_path / "pids"
    trainer = subprocess.Popen([sys.executable, __file__, str(path)], stderr=subprocess.PIPE, text=True)
    pids = read_pids(path)
    assert all(is_alive(pid) for pid in pids)
    trainer.send_signal(number)
    _, printed = trainer.communicate(timeout=20)
    assert trainer.returncode == -number
    assert ("KeyboardInterrupt" in printed) == (number == signal.SIGINT)
    assert wait_until_gone(pids) == []


def test_a_killed_fork_server_is_replaced_and_costs_no_row() -> None:
    with Execution([component_for(who)], workers=2) as execution:
        first = execution.start()
        first.add([fake_rollout() for _ in range(10)])
        found = [row["who"].score.details for row in first.finish()]
        before = found[0]["fork_server"]
        os.kill(before, signal.SIGKILL)
        assert wait_until_gone([before, *(row["worker"] for row in found)]) == []
        second = execution.start()
        second.add([fake_rollout() for _ in range(100)])
        details = [row["who"].score.details for row in second.finish()]
        assert len(details) == 100
        assert before not in {row["fork_server"] for row in details}
    assert [row for row in details if is_alive(row["fork_server"]) or is_alive(row["worker"])] == []


def test_work_that_comes_between_a_worker_s_death_and_the_news_of_it_is_done() -> None:
    """The fork server is stopped, so that it cannot tell that the idle worker is gone."""
    with Execution([component_for(who)], workers=1) as execution:
        first = execution.start()
        first.add([fake_rollout()])
        pids = first.finish()[0]["who"].score.details
        os.kill(pids["fork_server"], signal.SIGSTOP)
        os.kill(pids["worker"], signal.SIGKILL)
        time.sleep(0.3)  # its end of the channel closes, and the pool sees that
        second = execution.start()
        second.add([fake_rollout() for _ in range(5)])
        time.sleep(0.3)
        os.kill(pids["fork_server"], signal.SIGCONT)
        details = [row["who"].score.details for row in second.finish()]
    assert len(details) == 5
    assert pids["worker"] not in {row["worker"] for row in details}


def test_a_fork_server_that_is_killed_again_and_again_stops_the_run_with_a_message() -> None:
    with Execution([component_for(who)], workers=1) as execution:
        for _ in range(3):
            run = execution.start()
            run.add([fake_rollout()])
            fork_server = run.finish()[0]["who"].score.details["fork_server"]
            os.kill(fork_server, signal.SIGKILL)
            assert wait_until_gone([fork_server]) == []
        run = execution.start()
        run.add([fake_rollout()])
        with pytest.raises(RewardError, match="killed 3 times"):
            run.finish()


def test_no_thread_and_no_file_descriptor_stays_behind() -> None:
    threads, counts = set(threading.enumerate()), []
    for _ in range(2):
        with Execution([component_for(who)], workers=2) as execution:
            execution.start().add([fake_rollout() for _ in range(8)])
        assert set(threading.enumerate()) == threads
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[0] == counts[1]


def test_a_reward_no_worker_could_find_is_refused_before_anything_starts() -> None:
    @reward("local")
    def local(rollout: Rollout) -> float:
        return 1.0

    with pytest.raises(PluginError, match=r"reward 'local' cannot be sent .* isolate=False"):  # noqa: SIM117
        with Execution([component_for(local)]):
            pass
    with Execution([component_for(local)], debug_inline=True) as execution:
        run = execution.start()
        run.add([fake_rollout()])
        assert run.finish()[0]["local"].score.value == 1.0


def test_a_module_that_fails_in_the_worker_alone_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "only_here.py"
    path.write_text(
        "import os\n"
        f"if os.getpid() != {os.getpid()}:\n"
        "    raise ImportError('no licence for a second process')\n"
        "from verl_lite.plugins import reward\n"
        "@reward('only_here')\n"
        "def only_here(rollout):\n"
        "    return 1.0\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import only_here  # type: ignore[import-not-found]

        with (
            pytest.raises(PluginError, match=r"'only_here' cannot be loaded .* no licence for a second"),
            Execution([component_for(only_here.only_here)]),
        ):
            pass
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("only_here", None)


if __name__ == "__main__":
    with Execution([component_for(family)], workers=2) as opened:
        waiting = opened.start()
        waiting.add([fake_rollout("hang", columns={"path": sys.argv[1]})])
        waiting.finish()
