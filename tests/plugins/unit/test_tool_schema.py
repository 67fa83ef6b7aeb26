"""Functions as JSON schemas, and what a model gives checked against them."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from verl_lite.errors import PluginError
from verl_lite.plugins.environments.schema import BadArguments, signature_of


class Place(BaseModel):
    city: str
    zip: int = 0


def plan(
    place: Place,
    days: Annotated[int, Field(ge=1, description="how long")] = 3,
    *,
    mode: Literal["train", "bus"] = "train",
    stops: list[str] | None = None,
) -> str:
    """Plan a trip.

    By land only.

    Args:
        place: where
            to go
        mode (str): by what
        stops (list of str): on the way

    Returns:
        the plan
    """
    return f"{place.city} {days} {mode} {stops}"


async def sphinx(question: str) -> str:
    """Ask.

    :param question: the question
    """
    return question


def scale(x: float, y: float, by: int = 2) -> float:
    """Scale a vector.

    In the plane.

    Parameters
    ----------
    x, y : float
        The coordinates,
        both of them.
    by : int, optional
        The factor.

    Returns
    -------
    float
        The length.
    """
    return (x * x + y * y) ** 0.5 * by


def test_a_docstring_in_numpys_style() -> None:
    function = signature_of(scale, name="scale").schema["function"]
    assert function["description"] == "Scale a vector.\n\nIn the plane."
    properties: Any = function["parameters"]["properties"]
    assert {name: value["description"] for name, value in properties.items()} == {
        "x": "The coordinates, both of them.",
        "y": "The coordinates, both of them.",
        "by": "The factor.",
    }


def test_hints_and_docstring_become_the_schema() -> None:
    function = signature_of(plan, name="plan").schema["function"]
    assert (function["name"], function["description"]) == ("plan", "Plan a trip.\n\nBy land only.")
    properties: Any = function["parameters"]["properties"]
    assert properties["days"] == {
        "type": "integer", "minimum": 1, "default": 3, "description": "how long",
    }  # fmt: skip
    assert properties["mode"]["enum"] == ["train", "bus"]
    assert [properties[name].get("description") for name in ("place", "mode", "stops")] == [
        "where to go",
        "by what",
        "on the way",
    ]
    assert function["parameters"]["required"] == ["place"]
    asked: Any = signature_of(sphinx, name="ask").schema["function"]
    assert asked["parameters"]["properties"]["question"]["description"] == "the question"
    assert asked["description"] == "Ask."


def test_arguments_become_what_the_hints_say() -> None:
    given = signature_of(plan, name="plan").read('{"place": {"city": "Rome", "zip": "7"}, "days": "2"}')
    assert given == {"place": Place(city="Rome", zip=7), "days": 2, "mode": "train", "stops": None}
    assert plan(**given) == "Rome 2 train None"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{", "not valid JSON"),
        ("", "place: Missing required argument"),
        ("null", "must be a JSON object, got null"),
        ('"Rome"', 'must be a JSON object, got "Rome"'),
        ('{"place": {"city": "Rome"}, "days": 0}', "days: Input should be greater than or equal to 1, got 0"),
        ('{"place": {"city": "Rome"}, "speed": 9}', "speed: Unexpected keyword argument"),
        ('{"place": "Rome"}', "place: Input should be a valid dictionary"),
        ("[" * 5000, "not valid JSON"),
        ('{"place": {"city": "R"}, "mode": "' + "x" * 1000 + '"}', "..."),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(arguments: str, message: str) -> None:
    with pytest.raises(BadArguments) as found:
        signature_of(plan, name="plan").read(arguments)
    assert message in str(found.value)
    assert len(str(found.value)) < 300


def no_hint(x): ...  # type: ignore[no-untyped-def]


def many(*values: int) -> None: ...


def anything(**values: int) -> None: ...


def position(x: int, /) -> None: ...


def odd(x: Callable[[int], int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_hint, "the parameter 'x' has no type hint"),
        (many, "has no name that the model could give"),
        (anything, "has no name that the model could give"),
        (position, "has no name that the model could give"),
        (odd, "not types of JSON values"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused(function: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        signature_of(function, name="f")
