"""The one path from rollouts to rewards, with real workers, files and clocks."""

import os
import time
from pathlib import Path

import pytest

from verl_lite.errors import ConfigError, PluginError, RewardError
from verl_lite.plugins import RewardsConfig, Rollout, ScoredBatch, ScoreOutcome, Scorer, validate
from verl_lite.plugins.records import read_records

MODULE = """
import os, time
from verl_lite.plugins import Score, reward

@reward("slow", timeout_s=0.3)
def slow(rollout):
    time.sleep(600 if rollout.completion == "hang" else 0)
    return 1.0

@reward("dies")
def dies(rollout):
    if rollout.completion == "die":
        os.kill(os.getpid(), 9)
    return 1.0

@reward("where", isolate=False)
def where(rollout):
    return Score(1.0, details={"pid": os.getpid()})

@reward("apart")
def apart(rollout):
    return Score(1.0, details={"pid": os.getpid()})

@reward("rank", form="group", isolate=False)
def rank(rollouts):
    order = sorted(len(rollout.completion) for rollout in rollouts)
    return [float(order.index(len(rollout.completion))) for rollout in rollouts]

@reward("count", form="batch", isolate=False)
def count(rollouts):
    return [float(len(rollout.completion)) for rollout in rollouts]

@reward("later")
async def later(rollout):
    return 0.5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"rewards_{os.urandom(4).hex()}.py"
    path.write_text(MODULE)
    return path


def config(module: Path, *names: str, **scoring: object) -> RewardsConfig:
    rewards = {name: {"use": f"./{module.name}:{name}"} for name in names}
    return validate(RewardsConfig, {"rewards": rewards, "scoring": scoring}, source="test")


def rollouts(*texts: str, group: str = "g") -> list[Rollout]:
    return [Rollout(completion=text, id=f"{group}{i}", group=group) for i, text in enumerate(texts)]


def test_every_form_goes_the_same_way(module: Path) -> None:
    with Scorer(config(module, "rank", "count", "later", "apart"), workers=1) as scorer:
        batch = scorer.score(rollouts("aaa", "b", "cc"))
    parts = [{name: part.score.value for name, part in row.components.items()} for row in batch.rows]
    assert parts == [
        {"rank": 2.0, "count": 3.0, "later": 0.5, "apart": 1.0},
        {"rank": 0.0, "count": 1.0, "later": 0.5, "apart": 1.0},
        {"rank": 1.0, "count": 2.0, "later": 0.5, "apart": 1.0},
    ]
    assert [row.reward for row in batch.rows] == [6.5, 2.5, 4.5]


def process_of(batch: ScoredBatch, name: str) -> object:
    return batch.rows[0].components[name].score.details["pid"]


def test_isolated_rewards_run_elsewhere_and_debugging_brings_them_here(module: Path) -> None:
    with Scorer(config(module, "where", "apart"), workers=1) as scorer:
        batch = scorer.score(rollouts("x"))
    assert process_of(batch, "where") == os.getpid()
    assert process_of(batch, "apart") != os.getpid()
    with Scorer(config(module, "apart"), debug_inline=True) as scorer:
        assert process_of(scorer.score(rollouts("x")), "apart") == os.getpid()


def test_a_hanging_reward_is_a_timeout_under_the_policy(module: Path) -> None:
    started = time.monotonic()
    with Scorer(config(module, "slow", on_timeout="drop"), workers=1) as scorer:
        batch = scorer.score(rollouts("ok", "hang", "ok"))
    assert time.monotonic() - started < 200
    assert [row.reward for row in batch.rows] == [1.0, None, 1.0]
    assert batch.rows[1].components["slow"].score.outcome is ScoreOutcome.TIMEOUT
    assert batch.rows[1].dropped_because.startswith("timeout in slow: ")
    assert batch.metrics["reward/slow/timeout_fraction"] == pytest.approx(1 / 3)
    assert batch.metrics["reward/dropped_rows"] == 1
    assert batch.slowest["slow"][0].row == "g1"


def test_a_reward_that_kills_its_process_costs_one_row(module: Path) -> None:
    with Scorer(config(module, "dies"), workers=1) as scorer:
        batch = scorer.score(rollouts("a", "die", "b"))
    assert [row.reward for row in batch.rows] == [1.0, None, 1.0]
    assert batch.rows[1].components["dies"].score.outcome is ScoreOutcome.ERROR


def test_sessions_overlap_and_keep_their_rows(module: Path) -> None:
    with Scorer(config(module, "count")) as scorer:
        first, second = scorer.start(step=1), scorer.start(step=2)
        first.add(rollouts("a"))
        second.add(rollouts("bb", "ccc", group="h"))
        first.add(rollouts("dddd", group="i"))
        assert [row.rollout.id for row in second.finish().rows] == ["h0", "h1"]
        assert [row.reward for row in first.finish().rows] == [1.0, 4.0]


def test_an_empty_pass_has_no_rows(module: Path) -> None:
    with Scorer(config(module, "count")) as scorer:
        batch = scorer.score([])
    assert list(batch.rows) == []
    assert batch.metrics["reward/rows"] == 0


def test_abort_stops_and_saves_what_failed(module: Path, tmp_path: Path) -> None:
    failures = tmp_path / "failing.jsonl"
    with (
        Scorer(config(module, "slow", on_timeout="abort"), workers=1, failures_path=failures) as scorer,
        pytest.raises(RewardError, match=r"reward 'slow': its policy is on_timeout: abort.*'g1'"),
    ):
        scorer.score(rollouts("ok", "hang"))
    assert [record.rollout.completion for record in read_records(failures)] == ["hang"]


def test_the_breaker_watches_the_whole_run(module: Path, tmp_path: Path) -> None:
    watched = config(module, "dies", max_error_fraction=0.2, breaker_min_rows=4)
    with Scorer(watched, workers=1, failures_path=tmp_path / "failing.jsonl") as scorer:
        scorer.score(rollouts("a", "die"))
        with pytest.raises(RewardError, match=r"1 of 4 rollouts ended in error"):
            scorer.score(rollouts("a", "b"))


def test_what_ran_is_known(module: Path) -> None:
    with Scorer(config(module, "count")) as scorer:
        environment = scorer.environment()
    assert environment["count"]["distribution"] == f"./{module.name}"
    assert len(environment["count"]["content_hash"]) == 64


def test_mistakes_show_before_a_worker_starts(module: Path) -> None:
    with pytest.raises(PluginError, match=r"rewards\.nothing\.use: .*has no 'nothing'"):
        Scorer(config(module, "nothing"))
    bad = RewardsConfig.model_validate(
        {"rewards": {"short": {"use": "length", "options": {"target": 10, "zero_at": 5}}}}
    )
    with pytest.raises(
        ConfigError, match=r"rewards\.short\.options of reward 'length': zero_at=5 must be above"
    ):
        Scorer(bad)


def test_a_scorer_that_is_not_open_says_so(module: Path) -> None:
    scorer = Scorer(config(module, "count"))
    with pytest.raises(RewardError, match="the scorer is not open: use `with Scorer"):
        scorer.score(rollouts("a"))
    with scorer:
        assert scorer.score(rollouts("a")).rows[0].reward == 1.0
    with pytest.raises(RewardError, match="not open"):
        scorer.score(rollouts("a"))


def test_a_cancelled_pass_ends(module: Path) -> None:
    with Scorer(config(module, "slow"), workers=1) as scorer:
        session = scorer.start()
        session.add(rollouts("ok"))
        session.cancel()
        with pytest.raises(RewardError, match="cancelled"):
            session.finish()
        assert scorer.score(rollouts("ok")).rows[0].reward == 1.0
