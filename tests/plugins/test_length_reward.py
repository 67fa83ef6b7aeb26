"""`length`: a straight line between two lengths."""

import pytest
from pydantic import ValidationError

from verl_lite.plugins import Rollout, ScoreOutcome
from verl_lite.plugins.builtin.length import LengthOptions, length


@pytest.mark.unit
@pytest.mark.parametrize(
    ("size", "value"), [(0, 1.0), (10, 1.0), (11, 0.9), (15, 0.5), (19, 0.1), (20, 0.0), (500, 0.0)]
)
def test_the_line(size: int, value: float) -> None:
    rollout = Rollout(completion="x" * size, completion_ids=(1,) * size)
    for unit in ("tokens", "characters"):
        score = length(rollout, LengthOptions.model_validate({"target": 10, "unit": unit}))
        assert score.value == pytest.approx(value)
        assert score.details == {"length": size}


@pytest.mark.unit
def test_words_and_another_end() -> None:
    options = LengthOptions(target=2, zero_at=6, unit="words")
    assert length(Rollout(completion=" one two\nthree "), options).value == 0.75


@pytest.mark.unit
def test_tokens_that_are_not_known_are_no_length() -> None:
    score = length(Rollout(completion="some text"), LengthOptions())
    assert score.value is None
    assert score.outcome is ScoreOutcome.ABSTAIN
    assert length(Rollout(completion=""), LengthOptions()).value == 1.0


@pytest.mark.parametrize(
    "options", [{"target": 0}, {"target": 5, "zero_at": 5}, {"unit": "lines"}, {"taget": 1}]
)
def test_options_that_make_no_line_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LengthOptions.model_validate(options)
