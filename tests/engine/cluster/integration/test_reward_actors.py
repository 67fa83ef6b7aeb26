"""Rewards in Ray actors score as they do beside the trainer, also when actors are killed meanwhile."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from verl_lite.engine.cluster import RayRuntime, RewardActors
from verl_lite.engine.config import ClusterConfig, RewardActorsConfig
from verl_lite.errors import RewardError
from verl_lite.plugins import RewardsConfig, Rollout, Score, ScoreOutcome, Scorer, reward
from verl_lite.plugins.execution import Execution, TimedScore
from verl_lite.plugins.testing import FakeChatServer, component_for, fake_group, fake_rollout

pytest.importorskip("ray")

CONFIG = ClusterConfig(rewards=RewardActorsConfig(count=2, cpus=1.0))
COMPLETIONS = (
    "<think>2 + 2 = 4</think> The answer is \\boxed{4}",
    "2 + 2 = 5, so \\boxed{5}",
    "```python\ndef f():\n    return 4\n```",
    "```python\ndef f():\n    return 5\n```",
    '{"answer": 4}',
    "\\boxed{10^{10^{10}}}",
    "4 4 4 4 4 4 4 4 4 4 4 4",
    "",
)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with RayRuntime(CONFIG, cpus=4) as runtime:
        yield runtime.ray


def length(rollout: Rollout) -> Score | None:
    if rollout.completion == "skip":
        return None
    if rollout.completion == "bad":
        raise ValueError("bad row")
    return Score(float(len(rollout.completion)), details={"process": os.getpid()})


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
    return [length(rollout) for rollout in rollouts]


@reward("model", form="batch", max_batch=64, isolate=False)
def model(rollouts: Sequence[Rollout]) -> list[Score | None]:
    return [length(rollout) for rollout in rollouts]


@reward("grouped", form="group")
def grouped(rollouts: Sequence[Rollout]) -> list[float]:
    order = sorted(len(rollout.completion) for rollout in rollouts)
    return [float(order.index(len(rollout.completion))) for rollout in rollouts]


@reward("grouped_async", form="group")
async def grouped_async(rollouts: Sequence[Rollout]) -> list[float]:
    return grouped(rollouts)


FORMS = [isolated, inline, awaited, batched, model, grouped, grouped_async]


def outcome_of(score: Score) -> tuple[float | None, str, str]:
    return score.value, score.outcome.value, score.reason


def essence(rows: Sequence[Mapping[str, TimedScore]]) -> list[dict[str, tuple[float | None, str, str]]]:
    return [{name: outcome_of(timed.score) for name, timed in row.items()} for row in rows]


def run(execution: Execution, groups: Sequence[Sequence[Rollout]]) -> list[Mapping[str, TimedScore]]:
    with execution:
        started = execution.start()
        for group in groups:
            started.add(group)
        return started.finish()


def test_every_form_scores_as_beside_the_trainer(ray: Any) -> None:
    generator = random.Random(0)
    words = ["skip", "bad", *("x" * n for n in range(30))]
    groups = [fake_group(generator.choices(words, k=8), group=f"g{g}") for g in range(20)]
    only_long = component_for(
        isolated, name="gated", needs=["inline"], applies=lambda rollout, scores: len(rollout.completion) > 9
    )
    parts = [*map(component_for, FORMS), only_long]
    here = run(Execution(parts, workers=1), groups)
    there = run(Execution(parts, placement=RewardActors(ray, CONFIG)), groups)
    assert essence(there) == essence(here)
    assert [list(row) for row in there] == [list(row) for row in here]
    places = {name: {row[name].score.details.get("process") for row in there} - {None} for name in there[0]}
    assert places["inline"] == {os.getpid()}
    assert all(os.getpid() not in places[name] for name in ("isolated", "awaited", "batched", "model"))
    assert len(places["model"]) == 2, "a batch whose rows need not stand together is shared by the actors"


@pytest.mark.slow
def test_the_built_in_rewards_score_as_beside_the_trainer(ray: Any) -> None:
    columns = {"tests": ["assert f() == 4"]}
    rollouts = [
        fake_rollout(completion, reference="4", id=f"r{at}", group=f"g{at // 2}", columns=columns)
        for at, completion in enumerate(COMPLETIONS)
    ]
    plain = ("exact", "choice", "code", "guard", "json_schema", "math", "process", "repetition")
    with FakeChatServer(
        reply=lambda request: f'{{"score": {len(request.text) % 11}, "reason": ""}}'
    ) as server:
        options: dict[str, dict[str, Any]] = {
            **{name: {} for name in plain},
            "format": {"pattern": "think_boxed"},
            "regex": {"pattern": "[0-9]+"},
            "length": {"unit": "words", "target": 6},
            "judge": {"base_url": server.base_url, "model": "any"},
        }
        config = RewardsConfig.model_validate(
            {
                "rewards": {name: {"use": name, "options": given} for name, given in options.items()},
                "scoring": {"max_error_fraction": 1.0},
            }
        )
        with Scorer(config, workers=1) as scorer:
            here = scorer.score(rollouts)
        with Scorer(config, placement=RewardActors(ray, CONFIG)) as scorer:
            there = scorer.score(rollouts)
    for mine, theirs in zip(here.rows, there.rows, strict=True):
        assert theirs.reward == mine.reward
        assert {name: outcome_of(s.score) for name, s in theirs.components.items()} == {
            name: outcome_of(s.score) for name, s in mine.components.items()
        }
    assert here.rows[0].components["judge"].score.value is not None
    assert {here.rows[at].components["code"].score.value for at in (2, 3)} == {0.0, 1.0}
    timing = ("latency", "workers_replaced")
    assert {n: v for n, v in there.metrics.items() if not any(part in n for part in timing)} == {
        n: v for n, v in here.metrics.items() if not any(part in n for part in timing)
    }


class SlowOptions(BaseModel):
    folder: str
    seconds: float = 0.05


@reward("slow", form="batch", max_batch=4, isolate=False, options=SlowOptions)
def slow(rollouts: Sequence[Rollout], options: SlowOptions) -> list[Score]:
    """Leaves the actor's process id in a folder, so that the test can kill it at work."""
    Path(options.folder, str(os.getpid())).touch()
    time.sleep(options.seconds)
    return [Score(float(len(rollout.completion))) for rollout in rollouts]


def _pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_calls_of_a_lost_actor_are_made_again(ray: Any, tmp_path: Path, number: int) -> None:
    """Killed, and stopped: which Ray does not notice, but the deadline of a call does."""
    config = CONFIG.model_copy(update={"call_timeout_s": 3.0})
    rollouts = [fake_rollout("x" * n, id=f"r{n}") for n in range(80)]
    execution = Execution(
        [component_for(slow, folder=str(tmp_path)), component_for(isolated)],
        placement=RewardActors(ray, config),
    )
    with execution, ThreadPoolExecutor(1) as pool:
        started = execution.start()
        started.add(rollouts)
        answer = pool.submit(started.finish)
        while not _pids(tmp_path):
            time.sleep(0.01)
        os.kill(_pids(tmp_path)[0], number)
        rows = answer.result(timeout=120)
        stats = execution.stats()
    assert [row["slow"].score.value for row in rows] == [float(n) for n in range(80)]
    assert [row["isolated"].score.value for row in rows] == [float(n) for n in range(80)]
    assert stats.workers_replaced["actor lost"] == 1


@reward("deadly", form="batch", isolate=False)
def deadly(rollouts: Sequence[Rollout]) -> list[float]:
    os._exit(1)


@pytest.mark.slow
def test_an_actor_that_dies_again_and_again_ends_the_run_and_scores_nothing(ray: Any) -> None:
    config = CONFIG.model_copy(update={"max_restarts": 1})
    execution = Execution([component_for(deadly)], placement=RewardActors(ray, config))
    with pytest.raises(RewardError, match=r"lost 2 times, more than cluster.max_restarts=1.*deadly"):
        run(execution, [[fake_rollout("abc", id=f"r{n}") for n in range(4)]])


@reward("hangs", timeout_s=0.3)
def hangs(rollout: Rollout) -> float:
    if rollout.completion == "hang":
        time.sleep(600)
    return 1.0


@pytest.mark.slow
def test_a_call_past_its_deadline_is_killed_in_the_actor(ray: Any) -> None:
    rollouts = [fake_rollout("hang" if n % 5 == 0 else "fine", id=f"r{n}") for n in range(10)]
    execution = Execution([component_for(hangs)], placement=RewardActors(ray, CONFIG))
    rows = run(execution, [rollouts])
    outcomes = [row["hangs"].score.outcome for row in rows]
    assert outcomes == [ScoreOutcome.TIMEOUT if n % 5 == 0 else ScoreOutcome.OK for n in range(10)]
    assert sum(execution.stats().workers_replaced.values()) == 2
