"""Trajectories in record files, as process rewards see them, and in what other trainers' functions get."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verl_lite.lab.cache import rollout_digest
from verl_lite.plugins import RewardsConfig, Rollout, Score, Scorer, Segment, StepScore, Turn, reward
from verl_lite.plugins.adapters.foreign_calls import TrlCall
from verl_lite.plugins.builtin.environment import environment_reward
from verl_lite.plugins.contract import definition_of
from verl_lite.plugins.discovery import RewardCatalog
from verl_lite.plugins.execution.inline import private_copy
from verl_lite.plugins.records import RecordWriter, read_records
from verl_lite.plugins.testing import assert_score

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
TURNS = (
    Turn(role="assistant", content="Let me add.", tool_calls=(CALL,), start=0, end=3, seconds=0.5),
    Turn(role="tool", content="3", tool_call_id="c1", name="add", start=4, end=6, seconds=0.1, outcome="ok"),
    Turn(role="assistant", content="Now again.", tool_calls=(CALL,), start=7, end=9, outcome="malformed"),
    Turn(role="tool", content="Error", tool_call_id="c1", name="add", start=10, end=11, outcome="timeout"),
    Turn(role="assistant", content="It is 3.", start=12, end=16),
)
SEGMENT = Segment(
    prompt_ids=(1,), completion_ids=(2, 3), logprobs=(-0.5, 0.0), sampled_mask=(1, 0), turns=(0,)
)
TRAJECTORY = Rollout(
    id="t",
    group="g",
    completion="It is 3.",
    prompt=({"role": "user", "content": "1 + 2?"},),
    completion_ids=tuple(range(16)),
    logprobs=(0.0,) * 16,
    finish_reason="turns",
    turns=TURNS,
    segments=(SEGMENT,),
    columns={"reference": "3"},
    reference="3",
)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_turns_and_segments_survive_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"records.{suffix}"
    plain = Rollout(completion="4", id="p", group="g")
    with RecordWriter(path) as writer:
        writer.write_rollouts([TRAJECTORY, plain])
    found, other = (record.rollout for record in read_records(path))
    assert found.turns == TURNS
    assert found.segments == (SEGMENT,)
    assert found.sampled_mask == [1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1]
    assert found.finish_reason == "turns"
    assert other.turns == ()
    assert other.segments == ()
    assert "turns" not in found.columns


@pytest.mark.parametrize("value", [["What?", "And now?"], 3, "two", [{"user": "x"}]])
def test_a_data_set_s_own_column_of_that_name_stays_one(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"completion": "4", "turns": value, "segments": value}))
    (record,) = read_records(path)
    assert record.rollout.turns == ()
    assert record.rollout.columns == {"turns": value, "segments": value}
    kept = tmp_path / "kept.parquet"
    with RecordWriter(kept) as writer:
        writer.write_rollouts([record.rollout])
    (again,) = read_records(kept)
    assert again.rollout.columns == record.rollout.columns


def test_a_row_s_turns_are_chat_messages(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "3"}]
    path.write_text(json.dumps({"completion": "4", "turns": turns}))
    (record,) = read_records(path)
    assert [turn.content for turn in record.rollout.turns] == ["", "3"]
    assert record.rollout.turns[0].tool_calls == (CALL,)


def test_an_outcome_that_does_not_exist_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"completion": "4", "turns": [{"role": "tool", "outcome": "fine"}]}))
    bad: list[str] = []
    assert list(read_records(path, on_bad_row=lambda row: bad.append(row.reason))) == []
    assert "turn outcome 'fine': expected one of error, malformed" in bad[0]


def test_copies_and_digests_have_the_turns() -> None:
    assert private_copy(TRAJECTORY) == TRAJECTORY
    assert rollout_digest(TRAJECTORY) != rollout_digest(replace(TRAJECTORY, turns=TURNS[:-1]))


def test_trl_s_functions_get_the_messages_after_the_prompt() -> None:
    arguments, _ = TrlCall().prepare([TRAJECTORY], {"conversational": True})
    (messages,) = arguments["completions"]
    assert [message["role"] for message in messages] == [
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert messages[1] == {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}


@pytest.mark.parametrize(
    ("given", "key", "value", "outcome"),
    [
        ({"reward": 0.5}, "reward", 0.5, "ok"),
        ({"won": True}, "won", 1.0, "ok"),
        ({"metrics": {"correct": 1}}, "metrics.correct", 1.0, "ok"),
        ({"reward": None}, "reward", None, "abstain"),
        (None, "reward", None, "abstain"),
        ({"reward": "much"}, "reward", None, "error"),
        ({"reward": float("nan")}, "reward", None, "error"),
    ],
)
def test_the_environment_s_own_number_is_a_reward(given: Any, key: str, value: Any, outcome: str) -> None:
    rollout = replace(TRAJECTORY, columns={"environment": given})
    assert_score(environment_reward, rollout, value, outcome=outcome, options={"key": key})


def process(*steps: StepScore):
    @reward("steps", isolate=False)
    def steps_of(rollout: Rollout) -> Score:
        return Score(0.0, steps=steps)

    return RewardCatalog(rewards={"steps": definition_of(steps_of)})


def token_rewards(rollout: Rollout, *steps: StepScore, decode: Any = None) -> tuple[list[float], str]:
    config = RewardsConfig.model_validate({"rewards": {"steps": {"use": "steps", "weight": 2.0}}})
    with Scorer(config, catalog=process(*steps), debug_inline=True, decode=decode) as scorer:
        (row,) = scorer.score([rollout]).rows
    return list(row.token_rewards), row.components["steps"].score.reason


def at(**values: float) -> list[float]:
    return [values.get(f"t{token}", 0.0) for token in range(16)]


def test_a_turn_s_reward_lands_on_its_last_token() -> None:
    steps = StepScore(0, 1, 0.5, "turn"), StepScore(2, 3, -1.0, "turn"), StepScore(3, 5, 0.25, "turn")
    assert token_rewards(TRAJECTORY, *steps) == (at(t2=1.0, t8=-2.0, t15=0.5), "")


def test_positions_in_the_text_are_those_of_the_last_reply() -> None:
    found = token_rewards(TRAJECTORY, StepScore(0, 4, 1.0), StepScore(4, 8, 0.5))
    assert found == (at(t13=2.0, t15=1.0), "")
    words = {12: "It ", 13: "is", 14: " 3", 15: "."}
    exact = token_rewards(
        TRAJECTORY, StepScore(0, 2, 1.0), decode=lambda ids: "".join(words[token] for token in ids)
    )
    assert exact == (at(t12=2.0), "")


def test_without_token_ids_turns_are_checked_and_placed_nowhere() -> None:
    bare = replace(TRAJECTORY, completion_ids=(), turns=tuple(replace(t, start=0, end=0) for t in TURNS))
    assert token_rewards(bare, StepScore(0, 1, 0.5, "turn")) == ([], "")


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (StepScore(1, 2, 1.0, "turn"), "ends with turn 1, which is the tool's"),
        (StepScore(4, 6, 1.0, "turn"), "ends with turn 5, which does not exist"),
        (StepScore(0, 9, 1.0), "outside the completion's 8 characters"),
    ],
)
def test_a_step_outside_is_an_error_and_not_0(step: StepScore, why: str) -> None:
    rewards, reason = token_rewards(TRAJECTORY, step)
    assert rewards == []
    assert why in reason
