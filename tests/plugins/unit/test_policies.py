"""Scoring that must stop: it says where, and the rows that failed are saved."""

from pathlib import Path

import pytest

from verl_lite.errors import RewardError
from verl_lite.plugins import ComponentScore, Rollout, Score, ScoredRollout, ScoreOutcome
from verl_lite.plugins.composite import CircuitBreaker, ScoringConfig
from verl_lite.plugins.records import read_records

OK = Score(1.0)
ERROR = Score.failed(ScoreOutcome.ERROR, "KeyError: 'tests'")
TIMEOUT = Score.failed(ScoreOutcome.TIMEOUT, "not done in 2 s")
ABSTAIN = Score.failed(ScoreOutcome.ABSTAIN, "no reference")
NOT_RUN = Score.failed(ScoreOutcome.ABSTAIN, "not run: when: a > 0", not_run="closed")


def rows(*scores: Score, name: str = "code") -> list[ScoredRollout]:
    return [
        ScoredRollout(
            rollout=Rollout(completion=f"answer {i}", id=f"r{i}", group="g1", columns={"tests": [i]}),
            components={name: ComponentScore(score=score, weight=1.0, contribution=score.value)},
            reward=score.value,
        )
        for i, score in enumerate(scores)
    ]


def breaker(tmp_path: Path, **scoring: float) -> CircuitBreaker:
    config = ScoringConfig.model_validate({"breaker_min_rows": 10, **scoring})
    return CircuitBreaker(config, tmp_path / "failing.jsonl")


def test_past_the_limit_it_stops_and_saves_the_rows(tmp_path: Path) -> None:
    scores = [OK] * 8 + [ERROR, ERROR]
    with pytest.raises(RewardError) as caught:
        breaker(tmp_path, max_error_fraction=0.1).check(rows(*scores), ["code"])
    assert str(caught.value) == (
        "scoring stopped: reward 'code': 2 of 10 rollouts ended in error, more than "
        "scoring.max_error_fraction=0.1. The first is rollout 'r8' (group 'g1'): KeyError: 'tests'. "
        f"The 2 failing rows are in {tmp_path / 'failing.jsonl'}: fix the reward and score that file again, "
        "or change the policy under `scoring:`"
    )
    saved = list(read_records(tmp_path / "failing.jsonl"))
    assert [record.rollout.id for record in saved] == ["r8", "r9"]
    assert saved[0].rollout.columns == {"tests": [8]}
    assert saved[0].components["code"].reason == "KeyError: 'tests'"


def test_at_the_limit_it_goes_on(tmp_path: Path) -> None:
    breaker(tmp_path, max_error_fraction=0.2).check(rows(*[OK] * 8, ERROR, ERROR), ["code"])
    assert not (tmp_path / "failing.jsonl").exists()


def test_small_batches_add_up(tmp_path: Path) -> None:
    watched = breaker(tmp_path, max_error_fraction=0.1)
    watched.check(rows(ERROR, OK, OK, OK), ["code"])
    watched.check(rows(OK, OK, OK, OK), ["code"])
    with pytest.raises(RewardError, match="2 of 12 rollouts ended in error"):
        watched.check(rows(OK, OK, OK, ERROR), ["code"])


def test_after_a_full_count_it_starts_anew(tmp_path: Path) -> None:
    watched = breaker(tmp_path, max_error_fraction=0.1)
    for _ in range(5):
        watched.check(rows(*[OK] * 9, ERROR), ["code"])


def test_timeouts_have_a_limit_of_their_own(tmp_path: Path) -> None:
    watched = breaker(tmp_path, max_error_fraction=0.0, max_timeout_fraction=0.3)
    watched.check(rows(*[OK] * 7, *[TIMEOUT] * 3), ["code"])
    with pytest.raises(RewardError, match=r"4 of 10 rollouts ended in timeout, .*max_timeout_fraction=0\.3"):
        watched.check(rows(*[OK] * 6, *[TIMEOUT] * 4), ["code"])


def test_rows_it_did_not_run_on_do_not_dilute_the_fraction(tmp_path: Path) -> None:
    watched = breaker(tmp_path, max_error_fraction=0.1)
    watched.check(rows(*[NOT_RUN] * 90, *[OK] * 9, ERROR), ["code"])
    with pytest.raises(RewardError, match="2 of 10 rollouts"):
        watched.check(rows(*[NOT_RUN] * 90, *[OK] * 7, ABSTAIN, ERROR, ERROR), ["code"])


def test_components_without_effect_stop_nothing(tmp_path: Path) -> None:
    breaker(tmp_path, max_error_fraction=0.0).check(rows(*[ERROR] * 20), [])


def test_abort_names_the_component_and_the_row(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"reward 'code': its policy is on_timeout: abort.*rollout 'r1'"):
        breaker(tmp_path).check(rows(OK, TIMEOUT), ["code"], aborting="code")
    assert [record.rollout.id for record in read_records(tmp_path / "failing.jsonl")] == ["r1"]
