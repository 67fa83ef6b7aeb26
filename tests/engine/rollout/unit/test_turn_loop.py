"""The loop of turns: each budget, failure and bad input ends a trajectory in its own way; none waits."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from verl_lite.engine.model import ChatTemplate, build_tiny_tokenizer
from verl_lite.engine.rollout import SequenceRequest, TurnsSampler
from verl_lite.engine.rollout.turns.rendering import TurnRenderer
from verl_lite.engine.rollout.turns.tool_calls import choose_tool_parser
from verl_lite.engine.rollout.turns.trajectory import TurnBudgets, TurnKit
from verl_lite.engine.testing import FakeSampler
from verl_lite.engine.types import PromptRow
from verl_lite.errors import EnvironmentFailed
from verl_lite.plugins import Rollout, SamplerSettings, Step
from verl_lite.plugins.testing import FakeEnvironments

TOKENIZER = build_tiny_tokenizer()
END = TOKENIZER.eos_token_id
Say = Callable[[int], str]


def double(x: int) -> int:
    """Twice x."""
    return 2 * x


def more(message: Any) -> Step:
    return Step(messages=[{"role": "user", "content": "more"}])


@pytest.fixture
def sample() -> Iterator[Any]:
    """Samples `count` trajectories; `say` has the text of the model's n-th turn."""
    opened: list[TurnsSampler] = []

    def run(
        say: Say,
        host: FakeEnvironments,
        *,
        count: int = 1,
        step_s: float = 0.0,
        max_failed: float = 1.0,
        **budgets: Any,
    ) -> list[Rollout]:
        def write(request: SequenceRequest) -> Sequence[int]:
            turn = list(request.prompt_ids).count(TOKENIZER.convert_tokens_to_ids("<|assistant|>"))
            ids = [*TOKENIZER(say(turn), add_special_tokens=False)["input_ids"], END]
            return ids[: request.settings.max_new_tokens]

        limits = {"context_tokens": 500, "max_turns": 4, "max_tool_s": 9.0, **budgets}
        settings = SamplerSettings(max_new_tokens=limits.pop("max_new_tokens", 400), seed=3)
        kit = TurnKit(
            renderer=TurnRenderer(ChatTemplate(TOKENIZER), end_ids=(END,)),
            parser=choose_tool_parser("pythonic", TOKENIZER),
            budgets=TurnBudgets(**limits),
            max_failed=max_failed,
        )
        inner = FakeSampler(TOKENIZER, write=write, end_ids=(END,), num_slots=count, step_s=step_s)
        opened.append(TurnsSampler(inner, host, kit))
        rows = [
            PromptRow(id=str(at), messages=[{"role": "user", "content": "hi"}], prompt_ids=())
            for at in range(count)
        ]
        groups = list(opened[-1].generate(rows, num_samples=1, settings=settings))
        return [rollout for group in groups for rollout in group]

    yield run
    for sampler in opened:
        sampler.close()


@pytest.mark.parametrize(
    ("budgets", "reason", "num_turns"),
    [
        ({}, "turns", 4),
        ({"max_turns": 2}, "turns", 2),
        ({"context_tokens": 30}, "context", 2),
        ({"context_tokens": 12}, "context", 1),
        ({"context_tokens": 4}, "context", 0),
        ({"max_new_tokens": 9}, "length", 2),
        ({"max_turn_tokens": 3}, "length", 1),
    ],
)
def test_each_budget_has_its_name(sample: Any, budgets: Any, reason: str, num_turns: int) -> None:
    """Prompt: 5 tokens; a turn: 5 and its end; the answer: 7. An environment never ends by itself."""
    (rollout,) = sample(lambda turn: "hello", FakeEnvironments(reply=more), **budgets)
    assert rollout.finish_reason == reason
    assert [turn.role for turn in rollout.turns].count("assistant") == num_turns
    assert rollout.is_truncated
    limit = budgets.get("context_tokens", 500)
    assert len(rollout.prompt_ids) + len(rollout.completion_ids) <= max(limit, len(rollout.prompt_ids))


def test_seconds_in_tools_are_a_budget(sample: Any) -> None:
    host = FakeEnvironments(reply=more, delay_s=0.02)
    (rollout,) = sample(lambda turn: "hello", host, max_tool_s=0.03)
    assert rollout.finish_reason == "tool_seconds"
    assert len(rollout.turns) == 4
    assert host.num_open == 0


def test_a_tool_is_called_and_its_answer_read(sample: Any) -> None:
    say = {1: "[double(x=21)]", 2: "it is 42"}.__getitem__
    (rollout,) = sample(say, FakeEnvironments(tools=[double]))
    assert rollout.finish_reason == "stop"
    assert rollout.completion == "it is 42"
    assert [(turn.role, turn.content, turn.outcome) for turn in rollout.turns] == [
        ("assistant", "", "ok"),
        ("tool", "42", "ok"),
        ("assistant", "it is 42", "ok"),
    ]
    call = rollout.turns[0].tool_calls[0]
    assert (call["id"], call["function"]) == ("call00000", {"name": "double", "arguments": '{"x": 21}'})
    assert TOKENIZER.decode(rollout.completion_ids) == (
        "[double(x=21)]<|end|><|user|>42<|end|><|assistant|>it is 42<|end|>"
    )


@pytest.mark.parametrize(
    ("call", "outcomes"),
    [
        ("[double(x=21]", ["malformed", "malformed"]),
        ("[triple(x=21)]", ["ok", "unknown_tool"]),
        ("[double(y=21)]", ["ok", "error"]),
    ],
)
def test_a_wrong_call_is_answered_and_counted(sample: Any, call: str, outcomes: list[str]) -> None:
    (rollout,) = sample({1: call, 2: "I give up"}.__getitem__, FakeEnvironments(tools=[double]))
    assert [turn.outcome for turn in rollout.turns] == [*outcomes, "ok"]
    assert rollout.finish_reason == "stop"
    assert rollout.turns[1].content


def test_an_empty_message_is_a_turn_like_any_other(sample: Any) -> None:
    host = FakeEnvironments(reply=lambda message: Step(messages=(), done=message["content"] == ""))
    (rollout,) = sample(lambda turn: "", host)
    assert (rollout.finish_reason, rollout.completion, list(rollout.completion_ids)) == ("stop", "", [END])


def test_an_environment_that_fails_makes_an_error_and_no_reward(sample: Any) -> None:
    def breaks(message: Any) -> Step:
        raise ValueError("no such state")

    (rollout,) = sample(lambda turn: "hello", FakeEnvironments(reply=breaks))
    assert rollout.has_failed
    assert "no such state" in rollout.columns["environment"]["error"]
    with pytest.raises(EnvironmentFailed, match=r"3 of 3 trajectories .* scoring\.max_error_fraction=0\.5"):
        sample(lambda turn: "hello", FakeEnvironments(reply=breaks), count=3, max_failed=0.5)


def test_an_environment_that_answers_nothing_and_goes_on_has_failed(sample: Any) -> None:
    (rollout,) = sample(lambda turn: "hello", FakeEnvironments(reply=lambda message: Step()))
    assert rollout.columns["environment"]["error"] == "the environment answered nothing, and did not end"


def test_while_one_waits_the_others_decode(sample: Any) -> None:
    """No environment answers before all 8 trajectories wait for theirs: one after another would hang."""

    class Environments(FakeEnvironments):
        def open(self, row: Any, *, seed: int) -> Any:
            session = super().open(row, seed=seed)
            answer = session.step

            async def step(message: Any) -> Any:
                await asyncio.wait_for(gate.wait(), timeout=60)
                return await answer(message)

            session.step = step  # type: ignore[method-assign]
            return session

    gate = asyncio.Barrier(8)
    found = sample(lambda turn: "hello", Environments(reply=more), count=8, max_turns=3)
    assert [rollout.finish_reason for rollout in found] == ["turns"] * 8


def test_a_batch_that_is_left_closes_its_sessions() -> None:
    host = FakeEnvironments(reply=more, delay_s=5.0)
    kit = TurnKit(
        renderer=TurnRenderer(ChatTemplate(TOKENIZER), end_ids=(END,)),
        parser=None,
        budgets=TurnBudgets(context_tokens=100, max_turns=2, max_tool_s=9.0),
    )
    inner = FakeSampler(TOKENIZER, write=lambda request: [50, END], end_ids=(END,), step_s=0.0)
    sampler = TurnsSampler(inner, host, kit)
    calls = iter(range(100))

    def check() -> None:
        if next(calls) > 5:
            raise KeyboardInterrupt

    row = PromptRow(id="0", messages=[{"role": "user", "content": "hi"}], prompt_ids=())
    with pytest.raises(KeyboardInterrupt):
        list(
            sampler.generate(
                [row], num_samples=2, settings=SamplerSettings(max_new_tokens=9, seed=0), check=check
            )
        )
    assert host.num_open == 0
    sampler.close()


class Broken(FakeEnvironments):
    """Environments whose sessions fail as no environment does: the error is ours."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__(reply=more)
        self.error = error

    def open(self, row: Any, *, seed: int) -> Any:
        session = super().open(row, seed=seed)

        async def step(message: Any) -> Any:
            raise self.error("ours")

        session.step = step  # type: ignore[method-assign]
        return session


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
def test_an_error_of_ours_ends_the_batch(sample: Any, error: type[BaseException]) -> None:
    """It is no failure of an environment, and nobody waits for the answer that never comes."""
    host = Broken(error)
    with pytest.raises(error, match="ours"):
        sample(lambda turn: "hello", host, count=3)
    assert host.num_open == 0


def test_questions_that_come_together_are_asked_together(
    sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wake-up of the event loop for all beginnings; each group that is handed out may take one more."""
    wakes: list[object] = []
    ask = asyncio.run_coroutine_threadsafe
    monkeypatch.setattr(
        asyncio, "run_coroutine_threadsafe", lambda work, loop: (wakes.append(work), ask(work, loop))[1]
    )
    found = sample(lambda turn: "hello", FakeEnvironments(reply=more), count=8, context_tokens=4)
    assert [rollout.finish_reason for rollout in found] == ["context"] * 8
    assert len(wakes) <= 1 + 8
