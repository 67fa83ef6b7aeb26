"""Settings described by their models: values in words, defaults as YAML, where a section is met."""

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from verl_lite.errors import ConfigError
from verl_lite.plugins import ConfigModel, validate
from verl_lite.plugins.settings import explain, sections_of, settings_of


class Inner(ConfigModel):
    rate: float = Field(default=0.5, gt=0, le=1)
    """How fast it goes, in steps per second."""
    names: tuple[str, ...] = ("a",)
    """Who takes part."""


class Outer(ConfigModel):
    count: Annotated[int, Field(ge=1)]
    """How many there are."""
    mode: Literal["off", "on"] | None = None
    """Whether it is on."""
    inner: Inner = Inner()
    """The rest."""
    others: Mapping[str, Inner] = {}
    """More of the rest, by name."""
    path: Path | None = None
    """Where it is."""


@pytest.mark.parametrize(
    ("name", "values", "default", "is_required"),
    [
        ("count", "whole number, at least 1", "", True),
        ("mode", "`'off'` or `'on'` or `null`", "null", False),
        ("inner", "section", "", False),
        ("others", "mapping of names to section", "{}", False),
        ("path", "path or `null`", "null", False),
    ],
)
def test_a_setting_in_words(name: str, values: str, default: str, is_required: bool) -> None:
    [found] = [setting for setting in settings_of(Outer) if setting.name == name]
    assert (found.values, found.default, found.is_required) == (values, default, is_required)
    assert found.description.endswith(".")


class Colour(Enum):
    RED = "red"
    BLUE = 2


class OfAnAuthor(BaseModel):
    """Options as plugins have them: bare and rare types."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    bare: dict = {}  # type: ignore[type-arg]
    old: typing.List = []  # type: ignore[type-arg]  # noqa: UP006
    several: Sequence[str] = ("x", "y")
    colour: Colour = Colour.RED
    names: set[str] = {"b", "a"}
    pattern: re.Pattern[str] = re.compile("a+")
    raw: bytes = b"\xff"
    call: Callable[[int], str] = str


@pytest.mark.parametrize(
    ("name", "values", "default"),
    [
        ("bare", "mapping", "{}"),
        ("old", "list", "[]"),
        ("several", "list (text)", "[x, y]"),
        ("colour", "`red` or `2`", "red"),
        ("names", "list (text)", "[a, b]"),
        ("pattern", "pattern", "a+"),
        ("raw", "bytes", "_w=="),
        ("call", "callable", "<class 'str'>"),
    ],
)
def test_types_of_a_plugin_in_words(name: str, values: str, default: str) -> None:
    [found] = [setting for setting in settings_of(OfAnAuthor) if setting.name == name]
    assert (found.values, found.default) == (values, default)


def test_bounds_and_lists() -> None:
    rate, names = settings_of(Inner)
    assert (rate.values, rate.default) == ("number, above 0, at most 1", "0.5")
    assert (names.values, names.default) == ("list (text)", "[a]")


def test_a_section_is_described_once_with_every_place() -> None:
    assert [(section.model, section.paths) for section in sections_of(Outer)] == [
        (Outer, ("",)),
        (Inner, ("inner", "others")),
    ]


def test_an_explained_config_is_the_same_config() -> None:
    config = Outer(count=2, others={"x": Inner(rate=0.25)})
    lines = list(explain(config))
    assert Outer.model_validate(yaml.safe_load("\n".join(lines))) == config
    assert "  # How fast it goes, in steps per second. (number, above 0, at most 1;" in lines
    assert all(len(line) <= 80 for line in lines)


def test_a_wrong_value_quotes_what_the_setting_is() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Outer, {"count": 1, "inner": {"rate": 7}}, source="a.yaml")
    assert str(caught.value) == (
        "a.yaml: inner.rate: input should be less than or equal to 1, got 7\n"
        "  inner.rate: How fast it goes, in steps per second."
    )
    with pytest.raises(ConfigError, match=r"others\.x\.rate: How fast it goes"):
        validate(Outer, {"count": 1, "others": {"x": {"rate": 7}}}, source="a.yaml")
