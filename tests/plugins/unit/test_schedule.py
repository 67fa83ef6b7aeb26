"""Weights over steps, against hand-computed numbers."""

import pytest
from pydantic import TypeAdapter, ValidationError

from verl_lite.plugins.composite import Schedule, Weight, weight_at, weights_of

WEIGHT: TypeAdapter[float | Schedule] = TypeAdapter(Weight)


@pytest.mark.parametrize(
    ("weight", "step", "expected"),
    [
        (0.3, 17, 0.3),
        ({"constant": 0.2}, 5, 0.2),
        ({"linear": {10: 0.0, 30: 1.0}}, 0, 0.0),  # flat before the first point
        ({"linear": {10: 0.0, 30: 1.0}}, 15, 0.25),
        ({"linear": {30: 1.0, 10: 0.0}}, 15, 0.25),  # the points' order in the file does not matter
        ({"linear": {10: 0.0, 30: 1.0}}, 99, 1.0),
        ({"linear": {0: 1.0, 10: 0.0, 20: 4.0}}, 15, 2.0),
        ({"step": {0: 0.0, 50: 0.5}}, 49, 0.0),
        ({"step": {0: 0.0, 50: 0.5}}, 50, 0.5),
        ({"step": {20: 2.0, 50: 0.5}}, 3, 2.0),
        ({"linear": {4: 3.0}}, 0, 3.0),
    ],
)
def test_weight_at(weight: object, step: int, expected: float) -> None:
    assert weight_at(WEIGHT.validate_python(weight), step) == pytest.approx(expected)


@pytest.mark.parametrize(
    "weight",
    [
        {},
        {"constant": 1.0, "step": {0: 1.0}},
        {"linear": {}},
        {"linear": {-1: 0.0}},
        {"linear": {"soon": 0.0}},
        {"step": {0: float("nan")}},
        {"cosine": {0: 1.0}},
        float("inf"),
        "often",
        [1.0],
        None,
    ],
)
def test_what_is_no_weight_is_refused(weight: object) -> None:
    with pytest.raises(ValidationError):
        WEIGHT.validate_python(weight)


def test_every_weight_of_a_schedule_is_listed() -> None:
    assert weights_of(0.5) == [0.5]
    assert weights_of(Schedule(constant=0.1)) == [0.1]
    assert weights_of(Schedule(step={0: 0.0, 5: 2.0})) == [0.0, 2.0]
