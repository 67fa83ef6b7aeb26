"""What the reward server writes is JSON, whatever a reward put into its details."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_lite.plugins.serving.shapes import to_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
        ({"a": float("nan"), "b": [float("inf"), -float("inf"), 1.0]}, {"a": None, "b": [None, None, 1.0]}),
        ({1: "a", (2, 3): {"b": float("nan")}}, {"1": "a", "(2, 3)": {"b": None}}),
        ({"p": Path("x"), "t": (1, float("nan"))}, {"p": "x", "t": [1, None]}),
    ],
)
def test_every_value_becomes_strict_json(value: Any, expected: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(to_json(value), parse_constant=refuse) == expected
