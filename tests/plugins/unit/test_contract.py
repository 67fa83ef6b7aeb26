"""The contract's types: what a reward may return, and what is refused."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from pydantic import BaseModel

from verl_lite.errors import PluginError
from verl_lite.plugins import Rollout, Score, ScoreOutcome, definition_of, reward, to_score


@pytest.mark.parametrize(("answer", "value"), [(1, 1.0), (0.25, 0.25), (True, 1.0), (False, 0.0)])
def test_plain_answers_become_scores(answer: object, value: float) -> None:
    assert to_score(answer) == Score(value)


def test_none_is_abstain_and_never_zero() -> None:
    score = to_score(None)
    assert score.value is None
    assert score.outcome is ScoreOutcome.ABSTAIN


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(answer: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        to_score(answer)


@pytest.mark.parametrize("answer", ["1.0", [1.0], {"score": 1}])
def test_other_types_are_refused(answer: object) -> None:
    with pytest.raises(TypeError, match="expected Score, float"):
        to_score(answer)


class Options(BaseModel):
    n: int = 1


def bare(rollout: Rollout) -> float:
    return 1.0


def three(rollout: Rollout, options: Options, more: int) -> float:
    return 1.0


class Mute:
    def __init__(self, options: Options) -> None: ...


class Stateful(Mute):
    def __call__(self, rollout: Rollout) -> float:
        return 1.0


class Greedy(Stateful):
    def __init__(self, options: Options, device: str) -> None: ...


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (bare, {"form": "token"}, "form='token'; expected 'rollout', 'batch' or 'group'"),
        (bare, {"options": dict}, "options must be a pydantic model class"),
        (bare, {"timeout_s": 0}, "timeout_s=0; expected seconds above 0"),
        (bare, {"timeout_s": float("nan")}, "timeout_s=nan; expected seconds above 0"),
        (bare, {"max_batch": 0}, "max_batch=0; expected 1 or more"),
        (bare, {"max_retries": -1}, "max_retries=-1; expected 0 or more"),
        (bare, {"retry_on": (OSError, "busy")}, "expected a tuple of exception classes"),
        (bare, {"name": "my reward"}, "a name is letters, digits"),
        (bare, {"name": "./a.py:b"}, "a name is letters, digits"),
        (three, {}, "expected (rollout) or (rollout, options)"),
        (three, {"form": "group"}, "expected (rollouts) or (rollouts, options)"),
        (Mute, {}, "the class has no __call__"),
        (Greedy, {}, "the constructor takes the options alone"),
    ],
)
def test_declarations_that_cannot_work_are_refused(
    call: object, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PluginError) as caught:
        reward(**{"name": "mine", **arguments})(call)  # type: ignore[type-var]
    assert message in str(caught.value)


def test_a_declared_function_stays_what_it_was() -> None:
    declared = reward("mine", options=Options, form="batch", timeout_s=2, version="3")(bare)
    assert declared is bare
    definition = definition_of(declared)
    assert (definition.name, definition.form, definition.timeout_s, definition.version) == (
        "mine",
        "batch",
        2,
        "3",
    )
    assert not definition.takes_options
    assert definition_of(reward("kept")(Stateful)).is_class


def test_rollouts_stay_frozen_and_travel() -> None:
    rollout = Rollout(completion="4", columns={"a": 1}, completion_ids=(1, 2))
    with pytest.raises(FrozenInstanceError):
        rollout.completion = "5"  # type: ignore[misc]
    for other in (copy.deepcopy(rollout), pickle.loads(pickle.dumps(rollout)), replace(rollout)):
        assert other == rollout
