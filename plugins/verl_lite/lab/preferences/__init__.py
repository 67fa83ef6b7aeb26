"""Preference data: rows, and how rewards, judges and people make them."""

from verl_lite.lab.preferences.rows import (
    PairChoice,
    PreferenceRow,
    read_preferences,
    to_preference,
    write_preferences,
)

__all__ = [
    "PairChoice",
    "PreferenceRow",
    "read_preferences",
    "to_preference",
    "write_preferences",
]
