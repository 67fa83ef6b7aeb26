"""The types of a trajectory, and the fake host that the engine's tests use."""

import asyncio

import pytest

from verl_lite.errors import DataError, EnvironmentFailed
from verl_lite.plugins import Rollout, Step, Turn
from verl_lite.plugins.builtin import LengthOptions, length_reward
from verl_lite.plugins.rollout import spoken
from verl_lite.plugins.testing import FakeEnvironments

QUESTION = {"prompt": [{"role": "user", "content": "2 * 21?"}]}


def call(name: str, arguments: str, identity: str = "1") -> dict:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize("roles", [("model", "user"), ("tool", "tool"), ("user", "system")])
def test_messages_without_one_of_the_assistant_are_no_completion(roles):
    messages = [{"role": role, "content": "4"} for role in roles]
    with pytest.raises(DataError, match=f"no message of the role assistant; its roles: .*{roles[0]}"):
        spoken(messages)
    assert spoken([*messages, {"role": "assistant", "content": "5"}])["completion"] == "5"


def test_the_mask_is_1_at_the_tokens_of_assistant_turns_and_everywhere_without_turns():
    turns = (
        Turn(role="assistant", content="a", start=0, end=2),
        Turn(role="tool", content="b", start=3, end=5),
        Turn(role="assistant", content="c", start=6, end=7),
    )
    rollout = Rollout(completion="c", completion_ids=range(8), turns=turns)
    assert rollout.sampled_mask == [1, 1, 0, 0, 0, 0, 1, 0]
    assert rollout.num_sampled == 3
    options = LengthOptions()
    assert length_reward(rollout, options).details == {"length": 3}
    unplaced = (Turn(role="assistant", content="c"),)
    assert Rollout(completion="c", completion_ids=range(3), turns=unplaced).num_sampled == 3
    assert Rollout(completion="c", completion_ids=range(3)).sampled_mask == [1, 1, 1]
    assert Rollout(completion="c").sampled_mask == []


@pytest.mark.parametrize("reason", ["length", "turns", "tool_seconds", "context"])
def test_every_budget_truncates(reason):
    assert Rollout(completion="", finish_reason=reason).is_truncated
    assert not Rollout(completion="", finish_reason="stop").is_truncated


def test_a_turn_is_a_message_of_what_it_has():
    assert Turn(role="tool", content="42", tool_call_id="1", name="double", end=4).message == {
        "role": "tool",
        "content": "42",
        "tool_call_id": "1",
        "name": "double",
    }
    calls = [call("double", "{}")]
    assert Turn(role="assistant", content="", tool_calls=calls).message == {
        "role": "assistant",
        "content": "",
        "tool_calls": calls,
    }


def test_the_fake_host_answers_calls_counts_sessions_and_fails_as_a_real_one_does():
    def double(x: int) -> int:
        """Twice x."""
        return 2 * x

    async def play():
        host = FakeEnvironments(tools=[double])
        session = host.open(QUESTION, seed=3)
        assert await session.reset() == QUESTION["prompt"]
        assert host.num_open == 1
        assert host.seeds == [3]
        calls = [call("double", '{"x": 21}'), call("half", "{}"), call("double", "{x"), call("double", "{}")]
        answer = await session.step({"role": "assistant", "content": "", "tool_calls": calls})
        last = await session.step({"role": "assistant", "content": "42"})
        await session.close()
        await session.close()
        return answer, last, host.num_open, session.tools

    answer, last, num_open, tools = asyncio.run(play())
    assert answer.messages[0]["content"] == "42"
    assert answer.outcomes == ("ok", "unknown_tool", "malformed", "error")
    assert last.done
    assert not last.messages
    assert num_open == 0
    assert tools[0]["function"]["name"] == "double"


def test_the_fake_environment_replies_or_fails():
    async def play(reply):
        session = FakeEnvironments(reply=reply).open(QUESTION, seed=0)
        return await session.step({"role": "assistant", "content": "hello"})

    step = Step(messages=[{"role": "user", "content": "go on"}], details={"turn": 1})
    answer = asyncio.run(play(lambda message: step))
    assert answer.messages == step.messages
    assert answer.outcomes == ["ok"]
    assert answer.details == {"turn": 1}
    with pytest.raises(EnvironmentFailed, match="KeyError"):
        asyncio.run(play(lambda message: {}["missing"]))
