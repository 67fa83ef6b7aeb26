"""The contract's types: what a reward may return, and what is refused."""

import subprocess
import sys

import pytest

from verl_lite.plugins import Score, ScoreOutcome
from verl_lite.plugins.score import to_score


@pytest.mark.unit
@pytest.mark.parametrize(("answer", "value"), [(1, 1.0), (0.25, 0.25), (True, 1.0), (False, 0.0)])
def test_plain_answers_become_scores(answer: object, value: float) -> None:
    assert to_score(answer) == Score(value)


@pytest.mark.unit
def test_none_is_abstain_and_never_zero() -> None:
    score = to_score(None)
    assert score.value is None
    assert score.outcome is ScoreOutcome.ABSTAIN


@pytest.mark.unit
@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(answer: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        to_score(answer)


@pytest.mark.unit
@pytest.mark.parametrize("answer", ["1.0", [1.0], {"score": 1}])
def test_other_types_are_refused(answer: object) -> None:
    with pytest.raises(TypeError, match="expected Score, float"):
        to_score(answer)


def test_importing_the_plugin_room_never_imports_torch() -> None:
    code = "import sys, verl_lite.plugins; print(sorted({'torch', 'vllm', 'sympy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
