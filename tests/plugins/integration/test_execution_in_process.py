"""Async rewards and models in the trainer's own process: deadlines, limits, and what blocks."""

import asyncio
import gc
import threading
import time
from collections.abc import Sequence

import pytest

from verl_lite.errors import PluginError
from verl_lite.plugins import Rollout, Score, ScoreOutcome, reward
from verl_lite.plugins.execution import Execution, TimedScore
from verl_lite.plugins.testing import component_for, fake_rollout, score_rollouts

OK, ERROR, TIMEOUT = ScoreOutcome.OK, ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT
RELEASE = threading.Event()


@pytest.fixture(autouse=True)
def release_blocked_threads() -> object:
    RELEASE.clear()
    yield
    RELEASE.set()


async def stubborn() -> float:
    while True:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            if RELEASE.is_set():
                raise


async def cancel_itself() -> float:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return 1.0


@reward("hostile_async", timeout_s=0.4)
async def hostile_async(rollout: Rollout) -> object:
    """Does what the completion says; a plain number is simply its score."""
    match rollout.completion:
        case "sleep":
            await asyncio.sleep(600)
        case "stubborn":
            await stubborn()
        case "cancel itself":
            await cancel_itself()
        case "block":
            RELEASE.wait(30)  # as a synchronous HTTP request would
        case "raise":
            raise ConnectionError("refused")
        case "sys.exit":
            raise SystemExit(2)
        case "interrupt":
            raise KeyboardInterrupt
        case "string":
            return "1.0"
        case "nan":
            return float("nan")
    await asyncio.sleep(0)
    return float(rollout.completion)


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason"),
    [
        ("sleep", TIMEOUT, "no answer within 0.4 s; the call was cancelled"),
        ("stubborn", TIMEOUT, "no answer within 0.4 s; the call was cancelled"),
        ("cancel itself", ERROR, "CancelledError: the reward cancelled its own task"),
        ("block", TIMEOUT, "no answer within 0.4 s; it blocks the event loop instead of awaiting"),
        ("raise", ERROR, "ConnectionError: refused"),
        ("sys.exit", ERROR, "SystemExit: 2"),
        ("interrupt", ERROR, "KeyboardInterrupt"),
        ("string", ERROR, "TypeError: a reward returned str"),
        ("nan", ERROR, "ValueError"),
    ],
)
def test_an_async_row_that_fails_says_so_and_costs_no_other(
    behaviour: str, outcome: ScoreOutcome, reason: str
) -> None:
    completions = [str(n) for n in range(50)]
    completions.insert(21, behaviour)
    scores = score_rollouts(hostile_async, [fake_rollout(text) for text in completions])
    bad = scores.pop(21).score
    assert (bad.outcome, bad.value) == (outcome, None)
    assert bad.reason.startswith(reason)
    assert [timed.score.value for timed in scores] == [float(n) for n in range(50)]


def test_the_event_loop_goes_on_after_a_reward_blocked_it() -> None:
    with Execution([component_for(hostile_async)]) as execution:
        for text, value in (("block", None), ("5", 5.0), ("block", None), ("6", 6.0)):
            run = execution.start()
            run.add([fake_rollout(text)])
            assert run.finish()[0]["hostile_async"].score.value == value


@reward("crowd", max_concurrency=3)
class Crowd:
    """Counts how many calls run at the same time."""

    def __init__(self, options: object) -> None:
        self.now = self.most = 0

    async def __call__(self, rollout: Rollout) -> float:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        return float(self.most)


def test_async_calls_run_together_up_to_the_limit() -> None:
    values = [timed.score.value for timed in score_rollouts(Crowd, [fake_rollout() for _ in range(20)])]
    assert max(value or 0.0 for value in values) == 3.0


def test_closing_does_not_wait_for_async_calls() -> None:
    started = time.monotonic()
    with Execution([component_for(hostile_async, timeout_s=60)]) as execution:
        execution.start().add([fake_rollout("sleep") for _ in range(100)])
    assert time.monotonic() - started < 50


@reward("slow_model", form="batch", max_batch=2, isolate=False, timeout_s=2.0)
def slow_model(rollouts: Sequence[Rollout]) -> list[float]:
    texts = [rollout.completion for rollout in rollouts]
    if "late" in texts:
        time.sleep(4.0)
    if "stuck" in texts:
        RELEASE.wait(60)
    return [1.0] * len(texts)


def outcomes_of(texts: Sequence[str]) -> list[ScoreOutcome]:
    return [
        timed.score.outcome for timed in score_rollouts(slow_model, [fake_rollout(text) for text in texts])
    ]


def test_a_model_call_past_its_deadline_times_out_and_the_next_is_answered() -> None:
    assert outcomes_of(["a", "b", "late", "c", "d", "e"]) == [OK, OK, TIMEOUT, TIMEOUT, OK, OK]


def test_a_model_call_that_never_comes_back_does_not_hold_up_the_run() -> None:
    texts = ["a", "b", "stuck", "c", "d", "e", "f"]
    assert outcomes_of(texts) == [OK, OK, *[TIMEOUT] * 5]


def test_an_inline_reward_ends_the_program_on_ctrl_c_and_on_nothing_else() -> None:
    @reward("inline", isolate=False)
    def inline(rollout: Rollout) -> float:
        raise {"interrupt": KeyboardInterrupt, "exit": SystemExit}[rollout.completion]

    [timed] = score_rollouts(inline, [fake_rollout("exit")])
    assert timed == TimedScore(timed.score, timed.latency_s, 1)
    assert timed.score.outcome is ERROR
    with pytest.raises(KeyboardInterrupt):
        score_rollouts(inline, [fake_rollout("interrupt")])


def test_scores_carry_reasons_details_and_steps_through_a_worker_unchanged() -> None:
    [one] = score_rollouts(explained, [fake_rollout()])
    assert one.score == explained(fake_rollout())


@reward("explained")
def explained(rollout: Rollout) -> Score:
    return Score(0.5, reason="half of it", details={"parts": [1, {"two": (3.0, None)}]})


def test_a_refused_execution_leaves_no_event_loop_behind() -> None:
    """An unclosed event loop would warn, and warnings are errors here."""

    @reward("nowhere")
    def nowhere(rollout: Rollout) -> float:
        return 1.0

    parts = [component_for(hostile_async), component_for(nowhere)]
    with pytest.raises(PluginError, match="'nowhere' cannot be sent"):
        Execution(parts).__enter__()
    gc.collect()
