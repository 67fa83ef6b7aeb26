"""A room's names that are imported when they are first used."""

import sys
from types import ModuleType

import pytest

from verl_lite.lazy import lazy_exports


@pytest.fixture
def room(monkeypatch):
    module = ModuleType("lazy_room")
    monkeypatch.setitem(sys.modules, "lazy_room", module)
    module.__getattr__, module.__dir__ = lazy_exports("lazy_room", {"fractions": ("Fraction",)})
    return module


def test_a_name_is_imported_when_it_is_first_used_and_kept(room):
    from fractions import Fraction

    assert "Fraction" not in vars(room)
    assert room.Fraction is Fraction
    assert vars(room)["Fraction"] is Fraction


def test_names_not_yet_imported_are_listed(room):
    assert "Fraction" in dir(room)


def test_an_unknown_name_is_an_attribute_error_that_names_the_room(room):
    with pytest.raises(AttributeError, match="module 'lazy_room' has no attribute 'Fractoin'"):
        room.Fractoin
