"""No text freezes the caller: what verify_math does in its own process takes time linear in the text.

A regular expression with two quantifiers over the same characters may take quadratic time or worse, and
holds the interpreter's lock meanwhile. The texts here repeat what such expressions stumble over. The
clock counts the CPU time of this thread only, and the collector leaves the objects of earlier tests alone,
so that neither a busy machine nor the rest of the suite changes anything.
"""

import gc
import itertools
import time
from collections.abc import Iterator

import pytest

from verl_lite.verifiers import verify_math
from verl_lite.verifiers.math import pool
from verl_lite.verifiers.math.answers import plain_numbers
from verl_lite.verifiers.math.answers.plain_numbers import plain_number

MAX_CPU_S = 0.5  # linear work takes some 10 ms; the slowest quadratic one found took seconds
REFERENCES = ("5", "A", "x+1", "(1,2)", "5 m")
TAILS = ("", "!", "=", "}")
UNITS = [
    " ", "\t", " \n", "A ", "A,", "(A", "A:", "A. ", "1", "1 ", "1,", "1, ", "1/", "0.", "0.1", ".", "...",
    "(", "()", ")", "{", "}", "[1,", "|", "<,", "\\\\", "$", "^", "_{", "^{2}", "*", "**", "-", "+", "!",
    "'", '"', ": ", "= ", "x=", "x+", "a, ", "ab ", "abc", "(abc) ", "and ", "or ", "or 1 ", "is ", "at ",
    "answer ", "answer", "final ", "1'", "\\frac", "\\frac{", "\\sqrt", "\\sin ", "sin ",
    "\\sqrt[", "\\binom", "!!", "2^",
    "\\text{", "\\text{a}", "\\left(",
    "\\over", "{\\over", "\\overline{", "1\\dot1", "\\mathbb ", "\\boxed{", "\\boxed{1}, ", "<answer>",
    "\\(", "\u00bd", "0\u0305", "1A ", "1 base ",
]  # fmt: skip
# Runs that only matter between two given things.
FRAMED = [
    ("1", " ", "ab"), ("ab", "1", "ab"), ("ab'", "1", "'"), ("Area", " ", "x"), ("Area =", " ", "=="),
    ("\\mathbb", " ", "x"), ("\\mathbb{", " ", "x"), ("0.\\overline{", " ", "x"), ("0.", "1", "..!"),
    ("\\boxed{1}", " ", "x \\boxed{2}"), ("\\boxed{1}", " $", "x \\boxed{2}"), ("(", "abc", ")x 1 2"),
    ("<answer>answer", " ", "x</answer>"), ("<answer>answer", "\n", "x</answer>"), ("plus", " ", "x"),
    ("{1", "\\over", "x"), ("{1", "\\over ", "x}"), ("", "0." + "1" * 190 + " ", "x"), ("1.", " ", "\\dot"),
    ("1 base", " ", "!"), ("except", " ", "!"), ("a", "= ", "1"), ("$", " ", "-"), ("\\left", " ", "x"),
    ("A", " ", "!"), ("x", " =", ""),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _own_garbage_only() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers have deadlines of their own; here they run out of time at once."""
    monkeypatch.setattr(pool, "ask", lambda *_, timeout_s: pool.Reply("timeout", f"not in {timeout_s} s"))
    monkeypatch.setattr(pool, "start", lambda: None)


def _cpu_s(response: str, reference: str) -> float:
    """The least of up to six readings: what the machine adds to one of them is not the verifier's."""
    readings = []
    for _ in range(6):
        started_s = time.thread_time()
        verify_math(response, reference)
        readings.append(time.thread_time() - started_s)
        if readings[-1] < MAX_CPU_S:
            break
    return min(readings)


def _check(texts: list[str], references: tuple[str, ...]) -> None:
    for text in texts:
        for response in (text, f"\\boxed{{{text}}}", f"The answer is {text}"):
            for reference in references:
                assert _cpu_s(response, reference) < MAX_CPU_S, (
                    response[:40],
                    response[-20:],
                    len(response),
                    reference,
                )


@pytest.mark.parametrize("unit", UNITS)
def test_repeated_text_takes_linear_time(unit: str) -> None:
    _check([unit * (1500 // len(unit)) + tail for tail in TAILS[1:3]], REFERENCES)
    # A long text needs two references: a number, which goes a way of its own, and another in turn.
    others = itertools.cycle(REFERENCES[1:])
    for tail in TAILS:
        _check([unit * (6000 // len(unit)) + tail], ("5", next(others)))


@pytest.mark.parametrize("unit", UNITS)
def test_such_a_reference_is_read_or_refused_in_linear_time(unit: str) -> None:
    for tail in TAILS:
        reference = unit * (6000 // len(unit)) + tail
        assert not verify_math("\\boxed{z}", reference).is_correct
        assert _cpu_s("\\boxed{z}", reference) < MAX_CPU_S, (unit, tail)


@pytest.mark.parametrize("frame", FRAMED, ids=repr)
def test_a_long_run_between_two_things_takes_linear_time(frame: tuple[str, str, str]) -> None:
    before, run, after = frame
    _check([before + run * (7900 // len(run)) + after], REFERENCES)


def test_a_response_of_blanks_far_beyond_any_answer_takes_linear_time() -> None:
    blanks = " " * 100_000
    for text in (f"\\boxed{{1}}{blanks}x \\boxed{{2}}", f"<answer>answer{blanks}x</answer>", f"1{blanks}x"):
        assert _cpu_s(text, "5") < MAX_CPU_S, text[:20]


@pytest.mark.parametrize("gap", ["", " ", "  \t"])
def test_blanks_and_dollars_are_read_around_a_plain_number(gap: str) -> None:
    for text in (f"{gap}${gap}-{gap}3.0{gap}${gap}.{gap}", f"{gap}-{gap}\\frac{gap}{{{gap}9{gap}}}{{3}}"):
        found = plain_number(text)
        assert found is not None
        assert found.equals(plain_numbers.PlainNumber(-3, 1, False))


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("\\boxed{12base 3}", "12_3"),
        ("\\boxed{1}  ,  and  \\boxed{x_1 = 2}", "1, 2"),
        ("\\boxed{1} $\\text{ or } \\boxed{2}", "1, 2"),
        ("The answer  **  is  **  : ** 5", "5"),
        ("So it ends.\n\n  **A** : **5**", "5"),
        ("It is 5 (five of them in all).", "5"),
        ("\\boxed{5'6\"}", "5'6''"),
        ("\\boxed{Area (cm)  =  12}", "12"),
        ("\\boxed{{1 \\over 2}}", "1/2"),
        ("\\boxed{0.121212...}", "4/33"),
        ("\\boxed{0.\\overline{ 1 2 }}", "4/33"),
        ("\\boxed{\\mathbb { R }}", "\\mathbb{R}"),
        ("\\boxed{" + "1" * 100 + " base 2}", "1" * 100 + "_2"),
    ],
)
def test_what_these_expressions_are_there_for_is_still_read(response: str, reference: str) -> None:
    assert verify_math(response, reference).is_correct
