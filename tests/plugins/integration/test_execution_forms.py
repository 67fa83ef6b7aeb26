"""Forms, dependencies, batching, groups, retries: the same answers in any order and any company."""

import asyncio
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from verl_lite.errors import ConfigError, DataError, RewardError
from verl_lite.plugins import Component, Rollout, Score, ScoreOutcome, reward
from verl_lite.plugins.execution import Execution, TimedScore
from verl_lite.plugins.testing import component_for, fake_group, fake_rollout

OK, ERROR, TIMEOUT, ABSTAIN = ScoreOutcome.OK, ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT, ScoreOutcome.ABSTAIN


def here() -> dict[str, int]:
    return {"process": os.getpid(), "thread": threading.get_ident()}


def length(rollout: Rollout) -> Score | None:
    if rollout.completion == "skip":
        return None
    if rollout.completion == "bad":
        raise ValueError("bad row")
    return Score(float(len(rollout.completion)), details=here())


def lengths(rollouts: Sequence[Rollout]) -> list[Score | None]:
    return [length(rollout) for rollout in rollouts]


@reward("isolated")
def isolated(rollout: Rollout) -> Score | None:
    return length(rollout)


@reward("inline", isolate=False)
def inline(rollout: Rollout) -> Score | None:
    return length(rollout)


@reward("awaited")
async def awaited(rollout: Rollout) -> Score | None:
    await asyncio.sleep(0)
    return length(rollout)


@reward("batched", form="batch", max_batch=7)
def batched(rollouts: Sequence[Rollout]) -> list[Score | None]:
    return lengths(rollouts)


@reward("model", form="batch", max_batch=7, isolate=False)
def model(rollouts: Sequence[Rollout]) -> list[Score | None]:
    return lengths(rollouts)


@reward("grouped", form="group")
def grouped(rollouts: Sequence[Rollout]) -> list[float]:
    """The place of each sample among the lengths of its group."""
    order = sorted(len(rollout.completion) for rollout in rollouts)
    return [float(order.index(len(rollout.completion))) for rollout in rollouts]


@reward("grouped_async", form="group")
async def grouped_async(rollouts: Sequence[Rollout]) -> list[float]:
    return grouped(rollouts)


ALL = [isolated, inline, awaited, batched, model, grouped, grouped_async]


def groups_of_rollouts() -> list[list[Rollout]]:
    generator = random.Random(0)
    words = ["skip", "bad", *("x" * n for n in range(30))]
    return [fake_group(generator.choices(words, k=8), group=f"g{g}") for g in range(40)]


def essence(rows: Sequence[Mapping[str, TimedScore]]) -> list[dict[str, tuple[float | None, str]]]:
    return [{name: (t.score.value, t.score.outcome.value) for name, t in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("workers", "groups_an_add", "shuffled", "debug_inline"),
    [(1, 40, False, False), (2, 1, False, False), (3, 7, True, False), (1, 40, True, True)],
)
def test_scores_do_not_depend_on_order_company_workers_or_debugging(
    workers: int, groups_an_add: int, shuffled: bool, debug_inline: bool
) -> None:
    groups = groups_of_rollouts()
    expected = {}
    for group in groups:
        for rollout, place in zip(group, grouped(group), strict=True):
            value = None if rollout.completion in ("skip", "bad") else float(len(rollout.completion))
            outcome = {"skip": "abstain", "bad": "error"}.get(rollout.completion, "ok")
            one = dict.fromkeys(["isolated", "inline", "awaited", "batched", "model"], (value, outcome))
            expected[rollout.id] = one | dict.fromkeys(["grouped", "grouped_async"], (place, "ok"))
    if shuffled:
        random.Random(1).shuffle(groups)
    parts = [component_for(function) for function in ALL]
    with Execution(parts, workers=workers, debug_inline=debug_inline) as execution:
        run = execution.start()
        for at in range(0, len(groups), groups_an_add):
            run.add([rollout for group in groups[at : at + groups_an_add] for rollout in group])
        rows = run.finish()
    assert essence(rows) == [expected[rollout.id] for group in groups for rollout in group]
    assert list(rows[0]) == [part.name for part in parts]


def test_everything_runs_in_the_calling_thread_under_debug_inline() -> None:
    with Execution([component_for(function) for function in ALL[:5]], debug_inline=True) as execution:
        run = execution.start()
        run.add([fake_rollout("abc")])
        [row] = run.finish()
    assert {name: timed.score.details for name, timed in row.items()} == dict.fromkeys(row, here())


def test_each_kind_runs_where_it_belongs() -> None:
    with Execution([component_for(function) for function in ALL[:5]]) as execution:
        run = execution.start()
        run.add([fake_rollout("abc")])
        [row] = run.finish()
    places = {name: timed.score.details for name, timed in row.items()}
    mine = here()
    assert places["inline"] == mine
    assert places["isolated"]["process"] != mine["process"] != places["batched"]["process"]
    for name in ("awaited", "model"):
        assert places[name]["process"] == mine["process"]
        assert places[name]["thread"] != mine["thread"]


@reward("meets", timeout_s=20)
def meets(rollout: Rollout) -> float:
    """Waits until the component named in the completion is running too."""
    return _meet(rollout, "meets")


@reward("meets_async", timeout_s=20)
async def meets_async(rollout: Rollout) -> float:
    return await asyncio.to_thread(_meet, rollout, "meets_async")


@reward("meets_model", form="batch", max_batch=1, isolate=False, timeout_s=20)
def meets_model(rollouts: Sequence[Rollout]) -> list[float]:
    return [_meet(rollout, "meets_model") for rollout in rollouts]


def _meet(rollout: Rollout, name: str) -> float:
    folder = Path(rollout.columns["folder"])
    (folder / name).touch()
    while len(list(folder.iterdir())) < 4:
        time.sleep(0.005)
    return 1.0


def test_components_run_at_the_same_time_and_before_finish_is_called(tmp_path: Path) -> None:
    parts = [component_for(function) for function in (meets, meets_async, meets_model)]
    with Execution(parts, workers=1) as execution:
        run = execution.start()
        run.add([fake_rollout(columns={"folder": str(tmp_path)})])
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 3:  # all three have begun while we still "generate"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        (tmp_path / "generation is over").touch()
        [row] = run.finish()
    assert [timed.score.value for timed in row.values()] == [1.0, 1.0, 1.0]


def test_a_component_runs_where_it_applies_once_what_it_needs_is_there() -> None:
    def is_long(rollout: Rollout, scores: Mapping[str, Score]) -> bool:
        assert set(scores) == {"isolated", "awaited"}
        return (scores["isolated"].value or 0.0) > 2

    parts = [
        component_for(batched, needs=["inline"], applies=lambda _, scores: scores["inline"].outcome is OK),
        component_for(inline, needs=["isolated", "awaited"], applies=is_long),
        component_for(isolated),
        component_for(awaited),
    ]
    with Execution(parts, workers=2) as execution:
        run = execution.start()
        run.add([fake_rollout(text) for text in ["a", "abc", "skip", "bad", "abcd"] * 20])
        rows = run.finish()
        stats = run.stats()
    outcomes = [tuple(row[part.name].score.outcome for part in parts) for row in rows]
    yes, no = (OK, OK, OK, OK), (ABSTAIN, ABSTAIN, OK, OK)
    skip, bad = (ABSTAIN, ABSTAIN, ABSTAIN, ABSTAIN), (ABSTAIN, ABSTAIN, ERROR, ERROR)
    assert outcomes == [no, yes, skip, bad, yes] * 20
    assert rows[0]["inline"] == TimedScore(Score.failed(ABSTAIN, "does not apply"), 0.0, 0)
    assert stats.components["inline"].calls == 40
    assert stats.components["batched"].outcomes == {OK: 40}


def test_a_condition_that_raises_is_an_error_of_its_row_alone() -> None:
    def condition(rollout: Rollout, scores: Mapping[str, Score]) -> bool:
        return 1 / len(rollout.completion) > 0

    with Execution([component_for(inline, applies=condition)]) as execution:
        run = execution.start()
        run.add([fake_rollout("a"), fake_rollout(""), fake_rollout("b")])
        scores = [row["inline"].score for row in run.finish()]
    assert [score.value for score in scores] == [1.0, None, 1.0]
    assert scores[1].outcome is ERROR
    assert scores[1].reason.startswith("its condition failed: ZeroDivisionError")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([component_for(inline), component_for(inline)], "'inline' is there twice"),
        ([component_for(inline, needs=["other"])], "'inline' needs 'other', which is none of: inline"),
        (
            [component_for(inline, needs=["model"]), component_for(model, needs=["inline"])],
            "in a cycle: (inline -> model -> inline|model -> inline -> model)",
        ),
    ],
)
def test_components_that_cannot_be_ordered_are_refused(parts: list[Component], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Execution(parts)


def test_workers_must_be_a_positive_number() -> None:
    with pytest.raises(ConfigError, match="workers=0: expected at least 1"):
        Execution([component_for(isolated)], workers=0)


@reward("company", form="batch", max_batch=4, isolate=False)
def company(rollouts: Sequence[Rollout]) -> list[Score]:
    """Tells which rollouts shared the call."""
    ids = [rollout.id for rollout in rollouts]
    return [Score(1.0, details={"ids": ids}) for _ in rollouts]


@reward("company_of_group", form="group")
def company_of_group(rollouts: Sequence[Rollout]) -> list[Score]:
    ids = [rollout.id for rollout in rollouts]
    return [Score(1.0, details={"ids": ids}) for _ in rollouts]


def company_of(function: object, adds: Sequence[Sequence[Rollout]], **more: object) -> list[list[str]]:
    component = component_for(function, name="it", **more)  # type: ignore[arg-type]
    with Execution([component], workers=2) as execution:
        run = execution.start()
        for rollouts in adds:
            run.add(rollouts)
        return [list(row["it"].score.details.get("ids", ())) for row in run.finish()]


def test_batches_are_filled_in_order_of_adding_across_adds() -> None:
    rollouts = [fake_rollout(id=str(n)) for n in range(10)]
    together = company_of(company, [rollouts[:3], rollouts[3:4], rollouts[4:9], rollouts[9:]])
    assert together == [["0", "1", "2", "3"]] * 4 + [["4", "5", "6", "7"]] * 4 + [["8", "9"]] * 2


def test_a_group_is_called_once_with_all_its_samples_wherever_they_stand() -> None:
    a, b = fake_group(["1", "2", "3"], group="a"), fake_group(["4", "5"], group="b")
    alone = fake_rollout(id="alone")
    together = company_of(company_of_group, [[], [a[0], b[0], alone, a[1], b[1], a[2]]])
    ids_a, ids_b = ["a/0", "a/1", "a/2"], ["b/0", "b/1"]
    assert together == [ids_a, ids_b, ["alone"], ids_a, ids_b, ids_a]


def test_a_group_leaves_out_the_samples_the_component_does_not_apply_to() -> None:
    group = fake_group(["1", "no", "3", "no"], group="a")
    together = company_of(company_of_group, [group], applies=lambda rollout, _: rollout.completion != "no")
    assert together == [["a/0", "a/2"], [], ["a/0", "a/2"], []]


def test_a_group_in_two_parts_is_refused_by_name() -> None:
    group = fake_group(["1", "2"], group="prompt-7")
    with pytest.raises(DataError, match="'it' scores whole groups, but group 'prompt-7' came in two parts"):
        company_of(company_of_group, [group[:1], group[1:]])


def test_runs_are_independent_and_may_overlap() -> None:
    with Execution([component_for(isolated), component_for(inline)], workers=2) as execution:
        first, second = execution.start(), execution.start()
        first.add([fake_rollout("a" * n) for n in range(20)])
        second.add([fake_rollout("b" * (100 + n)) for n in range(20)])
        assert [row["isolated"].score.value for row in second.finish()] == [100.0 + n for n in range(20)]
        assert [row["isolated"].score.value for row in first.finish()] == [float(n) for n in range(20)]
        with pytest.raises(RewardError, match="finished: start another"):
            first.add([fake_rollout()])
        empty = execution.start()
        assert empty.finish() == []


class Busy(Exception):
    pass


TRIES: dict[str, int] = {}


def flaky(rollout: Rollout) -> float:
    """Fails as often as the completion says, with the error it says."""
    kind, times = rollout.completion.split()
    TRIES[rollout.id] = TRIES.get(rollout.id, 0) + 1
    if TRIES[rollout.id] <= int(times):
        raise {"busy": Busy, "bug": KeyError}[kind](f"try {TRIES[rollout.id]}")
    return 1.0


@reward("flaky_isolated", retry_on=(Busy,))
def flaky_isolated(rollout: Rollout) -> float:
    return flaky(rollout)


@reward("flaky_async", retry_on=(Busy,))
async def flaky_async(rollout: Rollout) -> float:
    return flaky(rollout)


@reward("flaky_model", retry_on=(Busy,), form="batch", max_batch=1, isolate=False)
def flaky_model(rollouts: Sequence[Rollout]) -> list[float]:
    return [flaky(rollout) for rollout in rollouts]


@pytest.mark.parametrize("function", [flaky_isolated, flaky_async, flaky_model])
def test_only_what_is_declared_retryable_is_tried_again_and_counted(function: object) -> None:
    TRIES.clear()
    rows = [fake_rollout(text, id=text) for text in ("busy 0", "busy 1", "busy 2", "busy 3", "bug 1")]
    with Execution([component_for(function, name="it")], workers=2) as execution:  # type: ignore[arg-type]
        run = execution.start()
        run.add(rows)
        timed = [row["it"] for row in run.finish()]
        retries = run.stats().components["it"].retries
    assert [one.attempts for one in timed] == [1, 2, 3, 3, 1]
    assert [one.score.value for one in timed] == [1.0, 1.0, 1.0, None, None]
    assert timed[3].score.reason.startswith("Busy: try 3")
    assert retries == 1 + 2 + 2
    assert timed[1].latency_s >= 0.25  # the first pause
    assert timed[2].latency_s >= 0.75  # and twice as long the second


def test_retries_end_at_the_deadline_of_the_call() -> None:
    TRIES.clear()
    with Execution([component_for(flaky_isolated, name="it", timeout_s=0.6)], workers=1) as execution:
        run = execution.start()
        run.add([fake_rollout("busy 9", id="x")])
        [row] = run.finish()
    assert row["it"].attempts == 2  # 0.25 s fits into 0.6 s, 0.25 + 0.5 s does not
    assert row["it"].score.outcome is ERROR


BUILT: list[int] = []


@reward("stateful")
class Stateful:
    def __init__(self, options: object) -> None:
        BUILT.append(os.getpid())

    def __call__(self, rollout: Rollout) -> Score:
        return Score(1.0, details={"built": len(BUILT), "by": BUILT[-1], "here": os.getpid()})


def test_a_class_is_built_once_a_worker() -> None:
    with Execution([component_for(Stateful)], workers=2) as execution:
        run = execution.start()
        run.add([fake_rollout() for _ in range(2000)])
        found = [row["stateful"].score.details for row in run.finish()]
    assert {details["built"] for details in found} == {1}
    assert all(details["by"] == details["here"] != os.getpid() for details in found)
