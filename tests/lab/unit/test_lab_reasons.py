"""Why a component gave no value: counted by exception and line, merged over shards, kept in the cache."""

import pytest

from verl_lite.lab.reasons import MAX_KINDS, ReasonTally
from verl_lite.lab.results import KeptResult
from verl_lite.lab.summary import ScoreSummary
from verl_lite.plugins import ComponentScore, Rollout, Score, ScoredRollout, ScoreOutcome


def failed(reason: str, where: str = "", outcome: ScoreOutcome = ScoreOutcome.ERROR) -> Score:
    return Score.failed(outcome, reason, where=where)


def scored(row: str, score: Score) -> ScoredRollout:
    part = ComponentScore(score=score, weight=1.0, contribution=score.value)
    return ScoredRollout(
        rollout=Rollout(completion="", id=row), components={"mine": part}, reward=score.value
    )


def test_one_line_that_raises_is_one_reason_whatever_its_text() -> None:
    tally = ReasonTally()
    tally.add(failed("ValueError: could not convert 'x' (a.py:3)", "/w/a.py:3"), "r1")
    tally.add(failed("ValueError: could not convert 'y' (a.py:3)", "/w/a.py:3"), "r2")
    tally.add(failed("KeyError: 'z' (a.py:3)", "/w/a.py:3"), "r3")
    tally.add(failed("ValueError: could not convert 'x' (a.py:9)", "/w/a.py:9"), "r4")
    assert [(reason.count, reason.id, reason.where) for reason in tally.commonest()] == [
        (2, "r1", "/w/a.py:3"),
        (1, "r3", "/w/a.py:3"),
        (1, "r4", "/w/a.py:9"),
    ]


def test_a_time_out_names_where_the_reward_is_defined() -> None:
    tally = ReasonTally()
    tally.add(failed("no answer within 1 s", outcome=ScoreOutcome.TIMEOUT), "r1")
    tally.add(failed("no reference", outcome=ScoreOutcome.ABSTAIN), "r2")
    assert [reason.where for reason in tally.commonest(source="/w/a.py:1")] == ["/w/a.py:1", ""]


def test_rows_the_component_did_not_run_on_are_no_reason() -> None:
    tally = ReasonTally()
    tally.add(Score.failed(ScoreOutcome.ABSTAIN, "not run: when: a > 0", not_run="closed"), "r1")
    assert tally.commonest() == []


def test_any_number_of_reasons_is_counted_in_bounded_memory() -> None:
    tally = ReasonTally()
    for number in range(3 * MAX_KINDS):
        tally.add(failed(f"number {number}"), f"r{number}")
    assert len(tally.kinds) == MAX_KINDS + 1
    assert sum(reason.count for reason in tally.kinds.values()) == 3 * MAX_KINDS
    assert tally.commonest()[0].reason == "other reasons"


@pytest.mark.parametrize(
    ("scores", "nothing"),
    [
        ([failed("broken"), failed("broken")], ["mine"]),
        ([failed("broken"), Score(0.0)], []),
        ([Score.failed(ScoreOutcome.ABSTAIN, "no reference")], ["mine"]),
        ([Score.failed(ScoreOutcome.ABSTAIN, "not run: when: a", not_run="closed")], []),
    ],
)
def test_a_component_that_ran_without_any_value_scored_nothing(
    scores: list[Score], nothing: list[str]
) -> None:
    summary, shard = ScoreSummary(), ScoreSummary()
    shard.add([scored(f"r{i}", score) for i, score in enumerate(scores)])
    summary.merge(shard)
    kept = KeptResult.from_text(KeptResult(summary, []).to_text()).summary
    assert summary.scored_nothing == kept.scored_nothing == nothing
    assert kept.to_json()["components"] == summary.to_json()["components"]
