"""What counts as equal, and how long it may take to find out."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class MathOptions:
    """Options of `verify_math`.

    mode       "lenient": a box, `####`, `<answer>`, an answer phrase, or a bare final expression;
               "strict": all of these but the bare final expression
    timeout_s  the deadline of one call; a batch as a whole spends at most one more on hostile pairs
    rel_tol    how far a decimal may be from the exact reference, relative to the reference
    rounding   "reference": a decimal reference of three or more significant digits is a rounding,
               and a more precise answer that rounds to it is correct; "exact": only rel_tol counts
    units      "convert": where both name a unit they must agree after conversion, if only one does,
               it is implied; "require": the reference's unit must be given; "strip": units ignored
    decimal_comma  read 3,5 as three and a half, in answers and references, instead of a list
    unclosed_thinking  "refuse": a response whose `<think>` is not closed has no answer; "read": it is
               read like any other
    partial    for a reference with several parts, a wrong answer gets the share of right parts
               as `credit` (the outcome stays "wrong")
    computed   where the reference is a number, arithmetic that is left to do is wrong: 70 + 59 for 129, 12/4
               for 3; 1/2 for 0.5, 3e5 and 5 cm stay right
    """

    mode: Literal["lenient", "strict"] = "lenient"
    timeout_s: float = 5.0
    rel_tol: float = 1e-6
    rounding: Literal["reference", "exact"] = "reference"
    units: Literal["convert", "require", "strip"] = "convert"
    partial: bool = False
    computed: bool = False
    decimal_comma: bool = False
    unclosed_thinking: Literal["refuse", "read"] = "refuse"

    def __post_init__(self) -> None:
        if self.mode not in ("lenient", "strict"):
            raise ValueError(f"mode={self.mode!r}: expected 'lenient' or 'strict'")
        if self.rounding not in ("reference", "exact"):
            raise ValueError(f"rounding={self.rounding!r}: expected 'reference' or 'exact'")
        if self.units not in ("convert", "require", "strip"):
            raise ValueError(f"units={self.units!r}: expected 'convert', 'require' or 'strip'")
        if self.unclosed_thinking not in ("refuse", "read"):
            raise ValueError(f"unclosed_thinking={self.unclosed_thinking!r}: expected 'refuse' or 'read'")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s={self.timeout_s!r}: expected a positive number of seconds")
        if not 0 <= self.rel_tol < 1:
            raise ValueError(f"rel_tol={self.rel_tol!r}: expected a number in [0, 1)")
