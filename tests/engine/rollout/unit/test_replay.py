"""The replay buffer: what it keeps, for how long, and that it resumes."""

import pytest

from verl_lite.engine.config.curriculum import ReplayConfig
from verl_lite.engine.rollout.replay import ReplayBuffer
from verl_lite.plugins import Rollout, ScoredRollout


def group(name: str, rewards: list[float], *, logprobs: bool = True) -> list[ScoredRollout]:
    return [
        ScoredRollout(
            rollout=Rollout(
                completion="x",
                completion_ids=[1],
                logprobs=[-1.0] if logprobs else [],
                group=name,
                sample_index=at,
            ),
            components={},
            reward=reward,
        )
        for at, reward in enumerate(rewards)
    ]


def names(rows: list[ScoredRollout]) -> set[str]:
    return {row.rollout.group for row in rows}


@pytest.fixture
def buffer() -> ReplayBuffer:
    found = ReplayBuffer(ReplayConfig(num_prompts=2, capacity=3, rare_at=0.25, max_age_steps=4), seed=0)
    rates = {"never": 0.0, "rare": 0.25, "often": 0.5, "blind": 0.25}
    rows = [
        *group("never", [0.0] * 4),
        *group("rare", [1.0, 0.0, 0.0, 0.0]),
        *group("often", [1.0, 1.0, 0.0, 0.0]),
        *group("blind", [1.0, 0.0, 0.0, 0.0], logprobs=False),
    ]
    found.add(rows, rates, step=0)
    return found


def test_only_solved_rare_groups_with_log_probabilities_are_kept(buffer):
    assert names(buffer.rows) == {"rare"}
    assert [row.reward for row in buffer.take(1, besides=())] == [1.0, 0.0, 0.0, 0.0]


def test_a_prompt_of_the_batch_itself_and_what_is_too_old_are_not_taken(buffer):
    assert buffer.take(1, besides={"rare"}) == []
    assert names(buffer.take(4, besides=())) == {"rare"}
    assert buffer.take(5, besides=()) == []
    assert buffer.rows == []


def test_the_oldest_leave_first_and_a_newer_group_replaces_its_older_one(buffer):
    for step, name in enumerate(("a", "b", "rare", "c"), start=1):
        buffer.add(group(name, [0.0, 1.0, 0.0, 0.0]), {name: 0.25}, step=step)
    assert buffer.steps == {"b": 2, "rare": 3, "c": 4}
    assert [row.reward for row in buffer.rows if row.rollout.group == "rare"] == [0.0, 1.0, 0.0, 0.0]


def test_it_resumes_exactly(buffer):
    buffer.add(group("a", [1.0, 0.0]), {"a": 0.2}, step=1)
    buffer.add(group("b", [1.0, 0.0]), {"b": 0.2}, step=1)
    other = ReplayBuffer(ReplayConfig(num_prompts=2, max_age_steps=4), seed=0)
    other.restore(buffer.rows, buffer.steps)
    for step in (2, 3, 4):
        assert other.take(step, besides={"x"}) == buffer.take(step, besides={"x"})
