"""The result of a verifier: a verdict with its reasons, never a bare float."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How verifying an answer ended."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"  # the response holds no readable answer
    BAD_REFERENCE = "bad_reference"  # the data set's answer or tests cannot be used
    NOT_INSTALLED = "not_installed"  # the program failed for want of a library that the sandbox lacks
    TIMEOUT = "timeout"  # undecided at the deadline
    ERROR = "error"  # the verifier's fault, never the response's


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one verification.

    `extracted` is the answer or program found in the response, `matched_by` the comparison that decided
    ("string", "number", "symbolic", ...; empty if none did), `credit` a number in [0, 1] (1.0 for
    correct, less for partly passed tests), `wall_s` the seconds spent.
    """

    outcome: Outcome
    extracted: str | None = None
    matched_by: str = ""
    reason: str = ""
    credit: float = 0.0
    wall_s: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_correct(self) -> bool:
        """Whether the answer was accepted."""
        return self.outcome is Outcome.CORRECT
