"""A reward whose library is missing says so when its options are read, and what to install."""

from collections.abc import Mapping
from importlib import import_module

import pytest

from verl_lite.plugins import find_rewards

NEEDS = {
    "language": ({}, "verl-lite[language]"),
    "reasoning_gym": ({}, "verl-lite[reasoning]"),
    "sql": ({"engine": "duckdb"}, "verl-lite[sql]"),
    "text_overlap": ({}, "verl-lite[text]"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_library_is_one_clear_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: Mapping[str, object]
    options, extra = NEEDS[name]
    definition = find_rewards().get(name)
    module = import_module(f"verl_lite.plugins.builtin.{name}")
    monkeypatch.setattr(module, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"pip install") as caught:
        definition.options_model.model_validate(options)
    assert extra in str(caught.value)
