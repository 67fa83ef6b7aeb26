"""The cache gives back exactly what was kept, under exactly the key it was kept under."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import DataError
from verl_lite.lab import ScoreCache, digest, rollout_digest
from verl_lite.plugins import Rollout, SamplerSettings, Score, ScoreOutcome, StepScore

ROLLOUT = Rollout(completion="4", reference="4", columns={"level": 1}, id="a", group="g")
FULL = Score(0.5, reason="half", details={"passed": [1, 2]}, steps=(StepScore(0, 1, 0.5, "token"),))


def test_kept_scores_come_back_whole(tmp_path: Path) -> None:
    abstained = Score.failed(ScoreOutcome.ABSTAIN, "no tests")
    with ScoreCache(tmp_path / "c.sqlite") as cache:
        cache.put(b"math", {b"1": FULL, b"2": abstained, b"3": Score(1.0)})
    with ScoreCache(tmp_path / "c.sqlite") as cache:
        assert cache.get(b"math", [b"3", b"0", b"1", b"2"]) == [Score(1.0), None, FULL, abstained]
        assert cache.get(b"code", [b"1"]) == [None]


def test_failures_are_not_kept(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "c.sqlite") as cache:
        failed = {b"1": Score.failed(ScoreOutcome.ERROR, "x"), b"2": Score.failed(ScoreOutcome.TIMEOUT, "y")}
        cache.put(b"math", failed)
        assert len(cache) == 0


def test_many_rows_are_looked_up_in_parts(tmp_path: Path) -> None:
    keys = [digest(i) for i in range(1201)]
    with ScoreCache(tmp_path / "c.sqlite") as cache:
        cache.put(b"m", {key: Score(float(i)) for i, key in enumerate(keys)})
        assert [score.value for score in cache.get(b"m", keys) if score] == [float(i) for i in range(1201)]


@pytest.mark.parametrize(
    "change",
    [
        {"completion": "5"},
        {"reference": None},
        {"columns": {"level": 2}},
        {"finish_reason": "length"},
        {"prompt": ({"role": "user", "content": "2+2"},)},
        {"completion_ids": [1]},
        {"sampling": SamplerSettings(temperature=0.5)},
        {"group": "h"},
    ],
)
def test_everything_a_reward_may_read_is_in_the_digest(change: dict[str, Any]) -> None:
    assert rollout_digest(replace(ROLLOUT, **change)) != rollout_digest(ROLLOUT)
    assert rollout_digest(replace(ROLLOUT)) == rollout_digest(ROLLOUT)


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"not a database, but long enough to look like one" * 10)
    with pytest.raises(DataError, match="cannot use the score cache"):
        ScoreCache(path)
