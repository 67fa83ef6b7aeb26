"""Preference data: rows, and how rewards, judges and people make them."""

from verl_lite.lab.preferences.agreement import Agreement, annotator_agreement, annotator_name
from verl_lite.lab.preferences.candidates import Candidates, read_candidates
from verl_lite.lab.preferences.rows import (
    PairChoice,
    PreferenceRow,
    read_preferences,
    to_preference,
    write_preferences,
)

__all__ = [
    "Agreement",
    "Candidates",
    "PairChoice",
    "PreferenceRow",
    "annotator_agreement",
    "annotator_name",
    "read_candidates",
    "read_preferences",
    "to_preference",
    "write_preferences",
]
