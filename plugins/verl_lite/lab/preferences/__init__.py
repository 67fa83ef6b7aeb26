"""Preference data: its rows, and how rewards, judge models and people rank completions."""

from typing import TYPE_CHECKING

from verl_lite.lab.preferences.agreement import Agreement, annotator_agreement, annotator_name
from verl_lite.lab.preferences.candidates import Candidates, read_candidates
from verl_lite.lab.preferences.rows import (
    PairChoice,
    PreferenceRow,
    read_preferences,
    to_preference,
    write_preferences,
)
from verl_lite.lazy import lazy_exports

if TYPE_CHECKING:
    from verl_lite.lab.preferences.by_judge import ComparisonJudge, rank_by_judge
    from verl_lite.lab.preferences.by_people import AnnotationPage, AnnotationStore
    from verl_lite.lab.preferences.by_rewards import rank_by_rewards
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".by_judge": ("ComparisonJudge", "rank_by_judge"),
            ".by_people": ("AnnotationPage", "AnnotationStore"),
            ".by_rewards": ("rank_by_rewards",),
        },
    )

__all__ = [
    "Agreement",
    "AnnotationPage",
    "AnnotationStore",
    "Candidates",
    "ComparisonJudge",
    "PairChoice",
    "PreferenceRow",
    "annotator_agreement",
    "annotator_name",
    "rank_by_judge",
    "rank_by_rewards",
    "read_candidates",
    "read_preferences",
    "to_preference",
    "write_preferences",
]
