"""What a comparison decides."""

from typing import NamedTuple

from verl_lite.verifiers.verdict import Outcome

__all__ = ["Decision", "decided"]


class Decision(NamedTuple):
    outcome: Outcome
    matched_by: str = ""
    reason: str = ""
    credit: float = 0.0  # of a wrong answer with some parts right


def decided(is_same: bool, matched_by: str, reason: str) -> Decision:
    return Decision(Outcome.CORRECT, matched_by) if is_same else Decision(Outcome.WRONG, "", reason)
