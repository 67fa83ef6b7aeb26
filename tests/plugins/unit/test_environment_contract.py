"""Environments as other libraries have them: right, or one message that says what is wrong."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verl_lite.errors import EnvironmentFailed, PluginError
from verl_lite.plugins import Rollout, Step, Turn, environment
from verl_lite.plugins.builtin.environment import EnvironmentRewardOptions, environment_reward
from verl_lite.plugins.testing import play

USER = {"role": "user", "content": "go"}


def lake(answer: Callable[[], object], *, first: object = (USER,)) -> type:
    """An environment that begins with `first` and answers with `answer()`."""

    @environment("lake")
    class Lake:
        def __init__(self, options: Any, row: Any) -> None:
            pass

        def reset(self) -> object:
            return first

        def step(self, message: Any) -> object:
            return answer()

    return Lake


def test_numbers_and_arrays_of_numpy_are_those_of_json() -> None:
    details = {
        "reward": np.float32(0.5),
        "won": np.bool_(True),
        "at": np.int64(3),
        "path": np.array([[1, 2]]),
    }
    game = play(lake(lambda: Step(done=np.bool_(True), details=details)), ["right"])
    assert game.columns["environment"] == {"reward": 0.5, "won": True, "at": 3, "path": [[1, 2]]}
    assert game.finish_reason == "stop"


def test_numbers_of_torch_and_objects_of_their_own() -> None:
    torch = pytest.importorskip("torch")
    details = {"reward": torch.tensor(0.25), "all": torch.tensor([1, 2]), "other": Exception("odd")}
    game = play(lake(lambda: Step(done=True, details=details)), ["right"])
    assert game.columns["environment"] == {"reward": 0.25, "all": [1, 2], "other": "odd"}


def test_a_tool_s_number_of_numpy_is_a_number_to_the_model() -> None:
    def count(word: str) -> Any:
        """Letters."""
        return np.int64(len(word))

    call: Any = {"id": "1", "type": "function", "function": {"name": "count", "arguments": '{"word": "abc"}'}}
    sums = play(
        None,
        [{"role": "assistant", "content": "", "tool_calls": [call]}],
        tools=[count],
        row={"prompt": [USER]},
    )
    assert [turn.content for turn in sums.turns if turn.role == "tool"] == ["3"]


def test_no_messages_and_no_details_may_be_none() -> None:
    game = play(lake(lambda: Step(messages=None, done=True, details=None)), ["right"])  # type: ignore[arg-type]
    assert (game.finish_reason, game.columns["environment"]) == ("stop", {})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (("at 1", 0.0, False, {}), r"step must return a Step\(messages=\[\.\.\.\], .*\), got tuple"),
        ({"messages": [USER], "done": True}, "got dict"),
        (Step(messages="at 1"), "expected a list of messages .*, got 'at 1'"),  # type: ignore[arg-type]
        (Step(messages=USER), r"expected a list of messages .*, got \{'role': 'user'"),  # type: ignore[arg-type]
        (Step(messages=["at 1"]), "expected messages with a role of user, system, tool"),  # type: ignore[list-item]
        (Step(messages=[{"role": "user", "content": [{"type": "image"}]}]), "must be text, got list"),  # type: ignore[typeddict-item]
    ],
)
def test_an_answer_of_another_library_is_refused_by_what_is_expected(answer: object, why: str) -> None:
    with pytest.raises(EnvironmentFailed, match=why):
        play(lake(lambda: answer), ["right"])


@pytest.mark.parametrize("first", ["at 0", ("at 0", {}), USER])
def test_a_beginning_of_another_library_is_refused(first: object) -> None:
    with pytest.raises(EnvironmentFailed, match=r"reset: TypeError: expected .*messages"):
        play(lake(lambda: Step(done=True), first=first), ["right"])


class Odd(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_error_says_where_in_the_environment_s_file_it_was_raised() -> None:
    def breaks() -> object:
        raise KeyError("state")

    def breaks_oddly() -> object:
        raise Odd

    file = Path(__file__).name
    with pytest.raises(EnvironmentFailed, match=rf"step 1: KeyError: 'state' \({file}:\d+\)$"):
        play(lake(breaks), ["right"])
    with pytest.raises(EnvironmentFailed, match=r"step 1: Odd: \(its text cannot be shown\)"):
        play(lake(breaks_oddly), ["right"])


def test_a_reward_that_a_cut_trajectory_never_got_says_that_it_was_cut() -> None:
    cut = Rollout(completion="x", finish_reason="length", turns=(Turn(role="assistant", content="x"),))
    options = EnvironmentRewardOptions()
    reason = "the environment gave no reward: the trajectory was cut before (length)"
    assert environment_reward(cut, options).reason == reason
    ended = dataclasses.replace(cut, finish_reason="stop")
    assert environment_reward(ended, options).reason == "the environment gave no reward"


class Right:
    def __init__(self, options: Any, row: Any) -> None:
        pass

    def reset(self) -> list[object]:
        return [USER]

    def step(self, message: Any) -> Step:
        return Step(done=True)


class NoRow(Right):
    def __init__(self, options: Any) -> None:
        pass


class TakesTheRow(Right):
    def reset(self, row: Any) -> list[object]:  # type: ignore[override]
        return [USER]


class TakesTheHistory(Right):
    def step(self, message: Any, history: Any) -> Step:  # type: ignore[override]
        return Step(done=True)


class TakesAnything(Right):
    def __init__(self, *args: Any, **keywords: Any) -> None:
        pass

    def reset(self, seed: int | None = None) -> list[object]:
        return [USER]

    @staticmethod
    def step(message: Any) -> Step:  # type: ignore[override]
        return Step(done=True)


@pytest.mark.parametrize(
    ("kind", "signature"),
    [
        (NoRow, "__init__(self, options, row)"),
        (TakesTheRow, "reset(self)"),
        (TakesTheHistory, "step(self, message)"),
    ],
)
def test_methods_that_cannot_be_called_are_refused_when_declared(kind: type, signature: str) -> None:
    with pytest.raises(PluginError) as caught:
        environment("lake")(kind)
    assert f"the class must have def {signature}" in str(caught.value)


@pytest.mark.parametrize("kind", [Right, TakesAnything])
def test_methods_that_can_be_called_are_taken(kind: type) -> None:
    assert play(environment("lake")(kind), ["right"]).finish_reason == "stop"
