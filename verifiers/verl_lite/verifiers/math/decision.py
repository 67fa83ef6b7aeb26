"""What a comparison decides."""

from __future__ import annotations

from typing import NamedTuple

from verl_lite.verifiers.math.answers.answer import Answer
from verl_lite.verifiers.math.expressions import Unreadable
from verl_lite.verifiers.verdict import Outcome

__all__ = ["Decision", "decided", "unread"]


class Decision(NamedTuple):
    outcome: Outcome
    matched_by: str = ""
    reason: str = ""
    credit: float = 0.0  # of a wrong answer, where some of its parts are right


def decided(is_same: bool, matched_by: str, reason: str) -> Decision:
    return Decision(Outcome.CORRECT, matched_by) if is_same else Decision(Outcome.WRONG, "", reason)


def unread(response: Answer) -> Decision:
    if response.word_class or response.moment is not None:
        return decided(False, "", "an answer of another kind")
    why = response.tree if isinstance(response.tree, Unreadable) else "not an expression"
    return Decision(Outcome.UNPARSED, "", f"the answer cannot be read: {why}")
