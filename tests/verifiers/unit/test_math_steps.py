"""No nesting of brackets and commands makes the caller's work grow faster than the text.

Work is counted in calls of Python functions, which no busy machine changes; what regular expressions
do within one call is the subject of test_math_redos.py.
"""

import random
import sys
from types import FrameType

import pytest

from verl_lite.verifiers import Outcome, verify_math
from verl_lite.verifiers.math import pool

CALLS_PER_CHAR = 60
CALLS_AT_LEAST = 1_000_000  # what a short answer of sines and determinants takes
NESTINGS = [
    ("(", ")"), ("[", "]"), ("(", "]"), ("{", "}"), ("\\{", "\\}"), ("\\left\\{", "\\right\\}"),
    ("\\lbrace ", "\\rbrace "), ("\\langle ", "\\rangle "), ("|", "|"), ("\\lfloor ", "\\rfloor "),
    ("\\left(", "\\right)"), ("\\{1,", "\\}"), ("\\{|", "|\\}"), ("\\{1|", "\\}"), ("\\{x|", "\\}"),
    ("\\{x:", "\\}"), ("1+(", ")"), ("(1,", ")"), ("\\frac{", "}{2}"), ("2\\frac{", "}{2}"),
    ("2\\frac{1}{", "}"), ("\\frac", ""), ("{", "\\over 2}"), ("{5\\choose ", "}"), ("\\binom{", "}{2}"),
    ("\\sqrt{", "}"), ("\\sqrt[", "]{2}"), ("\\sqrt[3]{", "}"), ("\\sqrt", ""), ("\\sqrt[1", ""),
    ("x^{", "}"), ("x_{", "}"), ("{x}_{", "}"), ("2^", ""), ("\\text{", "}"), ("\\mathrm{", "}"),
    ("\\overline{", "}"), ("\\boxed{", "}"), ("\\sin ", ""), ("\\sin(", ")"), ("\\ln ", ""),
    ("\\log_{", "}2"), ("f(", ")"), ("f(x)=", ""), ("\\begin{pmatrix}", "\\end{pmatrix}"),
    ("\\begin{vmatrix}1&", "\\\\2&3\\end{vmatrix}"), ("\\begin{cases}", "\\end{cases}"),
    ("\\begin{vmatrix}", "&1&2&3\\\\1&2&3&4\\\\2&3&4&1\\\\3&4&1&1\\end{vmatrix}"),
    ("\\sum_{k=1}^{2}", ""), ("\\sum_{k=", "}^{9}k"), ("\\prod_{k=1}^{3}(k+", ")"),
    ("\\int_{0}^{1}", "dx"), ("\\lim_{x\\to ", "}x"), ("\\lim_{x\\to 0}(x+", ")"), ("\\not", ""),
    ("-", ""), ("+", ""), ("\\pm ", ""), ("\\pm(1,", ")"), ("x\\in ", ""), ("1<", ""), ("2 ", ""), ("a:", ""),
    ("x = ", ""), ("x\\to ", ""), ("\\mathbb{R}\\setminus ", ""), ("\\neg ", ""), ("\\text{a: }", ","),
    ("x=1 \\text{ or } (", ")"), ("(\\text{B}) ", ""), ("\\forall ", ""), ("'", ""), ("!", ""),
    ("1\\bmod ", ""),
]  # fmt: skip
DEPTHS = (20, 58, 1000, 10_000)


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers have deadlines of their own; here they run out of time at once."""
    monkeypatch.setattr(pool, "ask", lambda *_, timeout_s: pool.Reply("timeout", f"not in {timeout_s} s"))
    monkeypatch.setattr(pool, "start", lambda: None)


class TooManyCalls(Exception):
    pass


def outcome_within_budget(response: str, reference: str) -> Outcome:
    """The outcome, or TooManyCalls (raised through the verifier, which catches no such thing)."""
    calls, limit = 0, CALLS_AT_LEAST + CALLS_PER_CHAR * len(response + reference)

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1
        if calls > limit:
            raise TooManyCalls(f"more than {limit} calls for {response[:60]!r} and {reference[:60]!r}")

    sys.setprofile(count)
    try:
        return verify_math(response, reference).outcome
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("nesting", NESTINGS, ids=repr)
def test_a_nested_answer_or_reference_takes_linear_work(nesting: tuple[str, str]) -> None:
    opening, closing = nesting
    for depth in DEPTHS:
        nested = opening * depth + "1" + closing * depth
        other = opening * depth + "x" + closing * depth
        outcome_within_budget(f"\\boxed{{{nested}}}", "42")
        outcome_within_budget(f"\\boxed{{{nested}}}", "(x, y)")
        outcome_within_budget("\\boxed{z}", nested)
        outcome_within_budget(f"\\boxed{{{nested}}}", other)


@pytest.mark.parametrize("seed", range(20))
def test_mixed_nesting_takes_linear_work(seed: int) -> None:
    rng = random.Random(seed)
    for depth in (12, 25, 50):
        chosen = [rng.choice(NESTINGS) for _ in range(depth)]
        texts = []
        for leaf in ("1", "x"):
            text = leaf
            for opening, closing in chosen:
                text = opening + text + closing
            texts.append(text)
        outcome_within_budget(f"\\boxed{{{texts[0]}}}", texts[1])
        outcome_within_budget(f"\\boxed{{{texts[1]}}}", "x+1")


def test_a_comparison_beyond_the_budget_of_steps_is_unparsed() -> None:
    members = [f"\\sqrt{{{k}}}+x^{{{k % 7}}}" for k in range(2, 80)]
    ours = "\\{" + ",".join(members) + "\\}"
    theirs = "\\{" + ",".join(reversed([f"{text}+y-y" for text in members])) + "\\}"
    verdict = verify_math(f"\\boxed{{{theirs}}}", ours)
    assert verdict.outcome is Outcome.UNPARSED
    assert "steps" in verdict.reason
