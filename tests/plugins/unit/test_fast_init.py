"""fast_init: what it writes does what dataclasses' own does, only sooner."""

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace

import pytest

from verl_lite.plugins import Rollout, Score
from verl_lite.plugins.fast_init import fast_init


@dataclass(frozen=True, slots=True)
class Slow:
    first: int
    second: str = "b"
    parts: list[int] = field(default_factory=list)
    last: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"first={self.first}")


CALLS = [((1,), {}), ((1, "x", [3]), {"last": 2.0}), ((), {"first": 4, "parts": [1]})]


@fast_init
@dataclass(frozen=True, slots=True)
class Quick:
    first: int
    second: str = "b"
    parts: list[int] = field(default_factory=list)
    last: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"first={self.first}")


@pytest.mark.parametrize(("positional", "named"), CALLS)
def test_the_fields_are_those_of_the_generated_init(positional, named):
    assert asdict(Quick(*positional, **named)) == asdict(Slow(*positional, **named))


def test_the_signature_stays():
    assert inspect.signature(Quick) == inspect.signature(Slow)
    assert list(inspect.signature(Rollout).parameters)[:3] == ["completion", "prompt", "reference"]


@pytest.mark.parametrize(("positional", "named"), [((), {}), ((1, "b", [], 2.0), {}), ((1,), {"other": 1})])
def test_wrong_calls_are_refused_alike(positional, named):
    with pytest.raises(TypeError) as slow:
        Slow(*positional, **named)
    with pytest.raises(TypeError) as quick:
        Quick(*positional, **named)
    assert str(quick.value).rpartition("__init__")[2] == str(slow.value).rpartition("__init__")[2]


def test_every_instance_gets_its_own_default():
    assert Quick(1).parts is not Quick(1).parts


def test_post_init_runs():
    with pytest.raises(ValueError, match="first=-1"):
        Quick(-1)
    assert Score(None).outcome == "abstain"  # set in its __post_init__


def test_instances_stay_frozen_and_travel():
    rollout = Rollout(completion="4", columns={"a": 1}, completion_ids=(1, 2))
    with pytest.raises(FrozenInstanceError):
        rollout.completion = "5"
    for other in (copy.deepcopy(rollout), pickle.loads(pickle.dumps(rollout)), replace(rollout)):
        assert other == rollout
    assert replace(rollout, completion="5").completion == "5"
