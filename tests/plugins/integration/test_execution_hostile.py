"""Rewards that misbehave in worker processes: the run goes on, the outcome says which and why."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from pydantic import BaseModel

from verl_lite.plugins import Rollout, Score, ScoreOutcome, reward
from verl_lite.plugins.execution import Execution, TimedScore, WorkerLimits
from verl_lite.plugins.testing import component_for, fake_group, fake_rollout

OK, ERROR, TIMEOUT = ScoreOutcome.OK, ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT
LEAKED: list[bytearray] = []


class Unpicklable:
    def __reduce__(self) -> str:
        raise RuntimeError("not this one")


def hang_in_python() -> float:
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - what this reward does wrong
            continue


def hang_in_c() -> float:
    return float(len(str(7 ** (10**8))))  # one bignum operation that holds the GIL


def hang_in_regex() -> float:
    return float(bool(re.match(r"(a|aa)+$", "a" * 60 + "b")))


def leave_forked_child() -> float:
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    return 1.0


def return_twice() -> float:
    os.fork()  # the copy returns too, into the worker's own loop
    return 1.0


def close_streams() -> float:
    sys.stdin.close()
    sys.stdout.close()
    os.close(2)
    return 1.0


def start_endless_thread() -> float:
    threading.Thread(target=hang_in_python).start()
    return 1.0


def leave_alarm() -> float:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    return 1.0


def print_megabytes() -> float:
    for _ in range(64):
        print("x" * 2**17)
        os.write(1, b"\x00\xff" * 2**16)
    return 1.0


def take_memory() -> float:
    hoard = []
    while True:
        hoard.append(b"x" * 2**26)


def leak() -> float:
    LEAKED.append(bytearray(b"x" * 40 * 2**20))
    return 1.0


BEHAVIOURS = {
    "hang in Python": hang_in_python,
    "hang in C": hang_in_c,
    "hang in a regex": hang_in_regex,
    "leave a child": leave_forked_child,
    "return twice": return_twice,
    "close streams": close_streams,
    "close everything": lambda: os.closerange(0, 4096) or 1.0,
    "endless thread": start_endless_thread,
    "leave an alarm": leave_alarm,
    "print megabytes": print_megabytes,
    "take memory": take_memory,
    "leak": leak,
    "raise": lambda: {}["missing"],
    "interrupt": lambda: signal.raise_signal(signal.SIGINT) or time.sleep(9),
    "sys.exit": lambda: sys.exit("bye"),
    "os._exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "a string": lambda: "1.0",
    "a list": lambda: [1.0],
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "too large": lambda: 10**400,
    "unpicklable details": lambda: Score(1.0, details={"it": Unpicklable()}),
    "deep recursion": lambda: BEHAVIOURS["deep recursion"](),
}


@reward("hostile", timeout_s=30.0)
def hostile(rollout: Rollout) -> object:
    """Does what the completion says; a plain number is simply its score."""
    behaviour = BEHAVIOURS.get(rollout.completion)
    return float(rollout.completion) if behaviour is None else behaviour()


@pytest.fixture(scope="module")
def execution() -> Iterator[Execution]:
    with Execution([component_for(hostile)], workers=2, limits=WorkerLimits(memory_mb=250)) as execution:
        yield execution


@pytest.fixture(scope="module")
def impatient() -> Iterator[Execution]:
    """For what hangs; the others have time, whatever else the machine does."""
    with Execution([component_for(hostile, timeout_s=1.0)], workers=2) as execution:
        yield execution


def scores_of(execution: Execution, completions: Sequence[str]) -> list[TimedScore]:
    run = execution.start()
    run.add([fake_rollout(completion) for completion in completions])
    return [row["hostile"] for row in run.finish()]


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason"),
    [
        ("hang in Python", TIMEOUT, "no answer within 1 s"),
        ("hang in C", TIMEOUT, "no answer within 1 s"),
        ("hang in a regex", TIMEOUT, "no answer within 1 s"),
        ("take memory", ERROR, r"the reward used \d+ MiB of memory and was stopped"),
        ("raise", ERROR, r"KeyError: 'missing' \(test_execution_hostile.py:\d+\)"),
        ("interrupt", ERROR, "KeyboardInterrupt"),
        ("sys.exit", ERROR, "SystemExit: bye"),
        ("os._exit", ERROR, "ended its worker process with exit code 3"),
        ("kill", ERROR, "lost its worker process to SIGKILL"),
        ("segfault", ERROR, "lost its worker process to SIGSEGV"),
        ("close everything", ERROR, "closed its worker's channel"),
        ("a string", ERROR, r"TypeError: a reward returned str \('1.0'\): expected Score, float"),
        ("a list", ERROR, "TypeError: a reward returned list"),
        ("nan", ERROR, "ValueError: .*expected a finite number"),
        ("inf", ERROR, "ValueError: .*expected a finite number"),
        ("too large", ERROR, "OverflowError"),
        ("unpicklable details", ERROR, "the score cannot be pickled: RuntimeError: not this one"),
        ("deep recursion", ERROR, "RecursionError"),
    ],
)
def test_a_row_that_fails_says_so_and_costs_no_other(
    execution: Execution, impatient: Execution, behaviour: str, outcome: ScoreOutcome, reason: str
) -> None:
    completions = [str(n) for n in range(40)]
    completions.insert(17, behaviour)
    scores = scores_of(impatient if outcome is TIMEOUT else execution, completions)
    bad = scores.pop(17).score
    assert bad.outcome is outcome
    assert bad.value is None
    assert re.search(reason, bad.reason), bad.reason
    assert [timed.score.value for timed in scores] == [float(n) for n in range(40)]


@pytest.mark.parametrize(
    "behaviour",
    ["leave a child", "return twice", "close streams", "endless thread", "leave an alarm", "print megabytes"],
)
def test_a_row_that_misbehaves_but_answers_keeps_its_score(execution: Execution, behaviour: str) -> None:
    scores = scores_of(execution, ["1", behaviour, "2", behaviour, "3", *["4"] * 20])
    assert [timed.score.value for timed in scores] == [1.0, 1.0, 2.0, 1.0, 3.0, *[4.0] * 20]


def test_many_bad_rows_among_good_ones(impatient: Execution) -> None:
    bad = ["os._exit", "raise", "segfault", "nan", "hang in C", "close everything", "kill"]
    completions = [bad[n // 40 % len(bad)] if n % 40 == 13 else str(n) for n in range(400)]
    scores = scores_of(impatient, completions)
    for completion, timed in zip(completions, scores, strict=True):
        if completion in bad:
            assert timed.score.value is None
            assert timed.score.outcome is (TIMEOUT if completion == "hang in C" else ERROR)
        else:
            assert timed.score.value == float(completion)


def test_a_reward_that_leaks_gets_a_fresh_worker_and_loses_no_row() -> None:
    limits = WorkerLimits(growth_mb=100)
    with Execution([component_for(hostile)], workers=1, limits=limits) as execution:
        scores = scores_of(execution, ["leak"] * 12)
        scores += scores_of(execution, ["1"])  # the worker has been replaced by now
        replaced = execution.stats().workers_replaced
    assert [timed.score.value for timed in scores] == [1.0] * 13
    assert replaced["memory growth"] >= 1
    assert set(replaced) == {"memory growth"}


def test_a_worker_is_replaced_after_its_rows_and_after_too_many_children_or_threads() -> None:
    with Execution([component_for(hostile)], workers=1, limits=WorkerLimits(rows=50)) as execution:
        for _ in range(2):  # a worker is replaced once its chunk is done: before the second run
            scores_of(execution, ["1"] * 400)
        assert set(execution.stats().workers_replaced) == {"rows"}
    with Execution(
        [component_for(hostile)], workers=1, limits=WorkerLimits(children=2, threads=3)
    ) as execution:
        for behaviour in ("leave a child", "endless thread", "1"):
            scores_of(execution, [behaviour] * 12)
        assert "child processes" in execution.stats().workers_replaced
        assert "threads" in execution.stats().workers_replaced


def test_what_a_lost_worker_printed_is_in_the_details(execution: Execution) -> None:
    [timed] = scores_of(execution, ["print and die"])
    assert timed.score.outcome is ERROR
    assert timed.score.details["printed"].endswith("last words\n")


def print_and_die() -> None:
    print("last words")
    os.abort()


BEHAVIOURS["print and die"] = print_and_die


@reward("vandal")
def vandal(rollout: Rollout) -> float:
    """Changes whatever of its input can be changed; answers what it found first."""
    found = float(rollout.columns["tests"][0])
    rollout.columns["tests"].append("broken")
    rollout.columns["tests"][0] = -1
    rollout.prompt[0]["content"] = "broken"
    rollout.completion_ids.append(0)  # type: ignore[attr-defined]
    return found


@reward("vandal_inline", isolate=False)
def vandal_inline(rollout: Rollout) -> float:
    return vandal(rollout)


@pytest.mark.parametrize("debug_inline", [False, True])
def test_a_reward_that_changes_its_input_changes_it_for_nobody(debug_inline: bool) -> None:
    columns = {"tests": [7]}  # one dictionary for the whole group, as a data set row is
    group = fake_group(["a", "b", "c"], columns=columns, completion_ids=[1, 2])
    parts = [component_for(vandal), component_for(vandal, name="again"), component_for(vandal_inline)]
    with Execution(parts, workers=1, debug_inline=debug_inline) as execution:
        run = execution.start()
        run.add(group)
        rows = run.finish()
    assert [[timed.score.value for timed in row.values()] for row in rows] == [[7.0] * 3] * 3
    assert columns == {"tests": [7]}
    assert group[0].completion_ids == [1, 2]
    assert group[0].prompt[0]["content"] == "What is 2 + 2?"


def test_a_rollout_that_cannot_be_pickled_is_an_error_of_its_own_row(execution: Execution) -> None:
    run = execution.start()
    run.add([fake_rollout("1"), fake_rollout("2", columns={"it": Unpicklable()}), fake_rollout("3")])
    scores = [row["hostile"].score for row in run.finish()]
    assert [score.value for score in scores] == [1.0, None, 3.0]
    assert scores[1].outcome is ERROR
    assert "cannot be pickled for a worker process: RuntimeError: not this one" in scores[1].reason


class Sized(BaseModel):
    how: str


@reward("unbuildable", options=Sized)
class Unbuildable:
    def __init__(self, options: Sized) -> None:
        if options.how == "raise":
            raise OSError("the model is not there")
        os.abort()

    def __call__(self, rollout: Rollout) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "the reward could not be built: OSError: the model is not there"),
        ("abort", "lost its worker process to SIGABRT while it was built"),
    ],
)
def test_a_class_that_cannot_be_built_is_an_error_of_every_row(how: str, reason: str) -> None:
    with Execution([component_for(Unbuildable, how=how)], workers=2) as execution:
        run = execution.start()
        run.add([fake_rollout() for _ in range(30)])
        scores = [row["unbuildable"].score for row in run.finish()]
    assert {score.outcome for score in scores} == {ERROR}
    assert all(reason in score.reason for score in scores), scores[0].reason


@reward("burglar", form="batch", max_batch=8, timeout_s=1.0)
def burglar(rollouts: Sequence[Rollout]) -> object:
    """A batch reward that fails as a whole because of what one completion says."""
    texts = [rollout.completion for rollout in rollouts]
    if "raise" in texts:
        raise ValueError("one of them is bad")
    if "die" in texts:
        os.abort()
    if "short" in texts:
        return [1.0] * (len(texts) - 1)
    if "string" in texts:
        return "1" * len(texts)
    if "hang" in texts:
        hang_in_python()
    return [float("nan") if text == "nan" else 1.0 for text in texts]


@pytest.mark.parametrize(
    ("bad", "outcome", "concerned"),
    [
        ("raise", ERROR, 1),  # split until the bad row stands alone
        ("die", ERROR, 1),
        ("nan", ERROR, 1),
        ("short", ERROR, 8),  # nobody can say which answer is missing
        ("string", ERROR, 8),
        ("hang", TIMEOUT, 8),
    ],
)
def test_a_batch_that_fails_costs_exactly_the_rows_concerned(
    bad: str, outcome: ScoreOutcome, concerned: int
) -> None:
    rollouts = [fake_rollout(bad if n == 11 else "fine") for n in range(24)]
    with Execution([component_for(burglar)], workers=1) as execution:
        run = execution.start()
        run.add(rollouts)
        scores = [row["burglar"].score for row in run.finish()]
    failed = [n for n, score in enumerate(scores) if score.value is None]
    assert failed == ([11] if concerned == 1 else list(range(8, 16)))
    assert {scores[n].outcome for n in failed} == {outcome}
    assert all(score.value == 1.0 for n, score in enumerate(scores) if n not in failed)


def test_the_module_itself_is_importable_by_a_worker_without_being_installed() -> None:
    """A script of its own, as users write them: rewards under `__main__`, found again by their path."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[2.0, None] error\n", done.stderr


if __name__ == "__main__":
    with Execution([component_for(hostile)], workers=1) as opened:
        answers = scores_of(opened, ["2", "os._exit"])
    print([timed.score.value for timed in answers], answers[1].score.outcome)
