"""What people's rewards return, and how they are written: a right score, or one message."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verl_lite.plugins import Score, ScoreOutcome, find_rewards, reward
from verl_lite.plugins.contract import definition_of
from verl_lite.plugins.execution.calls import checked_answers


@pytest.mark.parametrize("value", [1, True, np.float32(1.0), np.bool_(True), np.int64(1), np.array(1.0)])
def test_a_number_of_any_library_is_a_float(value: Any) -> None:
    assert type(Score(value).value) is float
    assert Score(value) == Score(1.0)


def test_a_number_of_torch_is_a_float() -> None:
    torch = pytest.importorskip("torch")
    assert type(Score(torch.tensor(0.5, requires_grad=True)).value) is float


@pytest.mark.parametrize("value", ["1.0", np.array([1.0]), {"score": 1.0}, 1j, [1.0]])
def test_what_is_no_number_is_refused_by_its_type(value: Any) -> None:
    with pytest.raises(TypeError, match=f"a reward returned {type(value).__name__}"):
        Score(value)


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf")])
def test_no_score_is_nan_or_infinite(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        Score(value)


@reward("several", form="batch")
def several(rollouts: list[Any]) -> list[float]:
    return []


@pytest.mark.parametrize(
    "answer", [{1.0, 2.0}, frozenset({1.0, 2.0}), {1: 0, 2: 0}.keys(), (x for x in "ab")]
)
def test_answers_without_an_order_of_rows_are_refused(answer: object) -> None:
    """Two numbers for two rollouts, but not in their order."""
    first, second = checked_answers(answer, 2, definition_of(several))
    assert first.outcome == second.outcome == ScoreOutcome.ERROR
    assert "expected one answer for each of the 2 rollouts" in first.reason


FILE = """
def make(word):
    def inner(rollout):
        return float(rollout.completion == word)
    return inner

closure = make("42")
lam = lambda rollout: 1.0

class Scale:
    def __init__(self, k):
        self.k = k
    def score(self, rollout):
        return float(self.k)
    async def later(self, rollout):
        return float(self.k)

two = Scale(2).score
later = Scale(2).later

def plain(rollout):
    return 0.0

other = plain
"""


@pytest.mark.parametrize("name", ["closure", "lam", "two", "other", "plain"])
def test_a_function_of_a_file_is_sent_by_its_name(tmp_path: Path, name: str) -> None:
    """Closures, lambdas and bound methods too, which pickle does not find by their own names."""
    (tmp_path / "mine.py").write_text(FILE)
    definition = find_rewards().get(f"{tmp_path / 'mine.py'}:{name}")
    call: Callable[..., object] = pickle.loads(pickle.dumps(definition.call))
    rollout = type("Rollout", (), {"completion": "42"})
    assert call(rollout) == {"closure": 1.0, "lam": 1.0, "two": 2.0}.get(name, 0.0)
    assert definition.call.__module__.startswith("verl_lite_local_mine")  # its code is hashed for the cache


def test_a_method_that_is_async_stays_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    assert find_rewards().get(f"{tmp_path / 'mine.py'}:later").is_async
