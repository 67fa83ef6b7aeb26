"""Answers built to hang, crash or bloat a verifier: too big or too odd to sit in math.jsonl.

Each row has the fields of math.jsonl with the kind "hostile". `expect` lists the outcomes that are
honest: what a bounded verifier cannot decide may time out or stay unparsed, but it is never an error,
and never correct where the answer is wrong.
"""

from collections.abc import Iterator
from typing import Any

NOT_CORRECT = ["wrong", "unparsed", "timeout"]
ANY_HONEST = ["correct", "wrong", "unparsed", "timeout"]

# (name, what stands in the box, why): wrong for a reference of 5, whatever it would evaluate to
WRONG_FOR_FIVE = [
    ("tower", "10^{10^{10}}", "a power tower of ten billion digits"),
    ("tower-plain", "9**9**9**9", "a power tower in plain notation"),
    ("tower-negative", "10^{-10^{10}}", "a power tower close to zero"),
    ("tower-five", "5^{5^{5^{5^{5}}}}", "a power tower of fives"),
    ("tower-mod", "2^{10^{12}} - 2^{10^{12}} + 6", "towers that cancel"),
    ("factorial", "(10^6)!", "a factorial of 5,565,709 digits"),
    ("factorial-plain", "1000000!", "a factorial of 5,565,709 digits"),
    ("factorial-nested", "((((9!)!)!)!)!", "factorials of factorials"),
    ("factorial-signs", "9" + "!" * 2000, "2,000 exclamation marks"),
    ("binomial", "\\binom{10^8}{5 \\cdot 10^7}", "a binomial of 30 million digits"),
    ("expansion", "(x+y+z+w)^{200}", "1,373,701 terms when expanded"),
    ("expansion-nested", "(((x+1)^{99}+1)^{99}+1)^{99}", "nested powers of sums"),
    ("sum", "\\sum_{n=1}^{10^9} \\frac{1}{n}", "a thousand million terms"),
    ("product", "\\prod_{n=1}^{10^7} n", "ten million factors"),
    ("integral", "\\int_0^{\\infty} e^{-x^2} \\sin(x^{x^x}) \\, dx", "an integral nobody knows"),
    ("digits-power", "7" * 5000 + "^{" + "7" * 5000 + "}", "5,000 digits to the power of 5,000 digits"),
    ("exponent-float", "1e999999999", "a float with a huge exponent"),
    ("exponent-float-negative", "1e-999999999", "a float with a huge negative exponent"),
    ("sqrt-nested", "\\sqrt{" * 400 + "2" + "}" * 400, "400 nested roots"),
    ("frac-nested", "\\frac{1}{1+" * 500 + "1" + "}" * 500, "500 nested fractions"),
    ("frac-deep", "\\frac{1}{" * 20000 + "7" + "}" * 20000, "20,000 nested fractions"),
    ("parens-wrong", "(" * 1000 + "6" + ")" * 1000, "1,000 nested parentheses"),
    ("parens-open", "(" * 100_000, "100,000 opened parentheses"),
    ("brackets-mixed", "([{" * 3000 + "6" + "}])" * 3000, "9,000 nested brackets"),
    ("bars", "|" * 4001, "4,001 bars"),
    ("minus-signs", "-" * 50_001 + "5", "an odd number of minus signs"),
    ("caret-chain", "^".join(["2"] * 3000), "a chain of 3,000 powers"),
    ("matrix", "\\begin{pmatrix}" + "\\\\".join(["&".join(f"x+{i}" for i in range(30))] * 30)
     + "\\end{pmatrix}", "a 30 by 30 matrix"),
    ("set", "\\{" + ",".join(str(i) for i in range(3000)) + "\\}", "a set of 3,000 integers"),
    ("list", ",".join(str(i) for i in range(100_000)), "a list of 100,000 integers"),
    ("sum-long", "+".join(["x"] * 50_000), "50,000 summands"),
    ("product-long", "".join(f"(x-{i})" for i in range(300)), "a polynomial of degree 300"),
    ("digits", "7" * 1_000_000, "a million digits"),
    ("decimals", "0." + "3" * 1_000_000, "a million decimals"),
    ("period", "0.\\overline{" + "3" * 100_000 + "}", "a period of 100,000 digits"),
    ("base", "1" * 200_000 + "_2", "200,000 binary digits"),
    ("letters", "x" * 1_000_000, "a million letters"),
    ("commands", "\\frac" * 50_000, "50,000 commands without arguments"),
    ("backslashes", "\\" * 100_001, "100,001 backslashes"),
    ("interval-many", "\\cup".join(f"({i},{i + 1})" for i in range(2000)), "a union of 2,000 intervals"),
    ("plus-minus-many", "\\pm 1" * 40, "forty plus-minus signs: 2^40 values"),
    ("equation-many", "=".join(["x"] * 5000), "a chain of 5,000 equations"),
    ("trig", "\\sin(" * 200 + "x" + ")" * 200, "200 nested sines"),
    ("trig-power", "(\\sin x + \\cos x + \\tan x)^{60}", "a power of a sum of functions"),
    ("log-tower", "\\ln(10^{10^{10}})", "the logarithm of a power tower"),
    ("mod-tower", "7^{7^{7^7}} \\bmod 10", "a tower modulo ten"),
    ("gcd-tower", "\\gcd(10^{10^{9}}, 6)", "a divisor of a tower"),
    ("unit-power", "6 m^{999999999}", "a unit with a huge exponent"),
    ("unit-chain", "6 " + "m*" * 5000 + "m", "a chain of 5,000 units"),
    ("python", "__import__('time').sleep(60)", "a program, not an answer"),
    ("python-attribute", "().__class__.__bases__[0].__subclasses__()", "a program, not an answer"),
    ("lambda", "lambda: 6", "a program, not an answer"),
    ("format", "{0.__class__}%s%n", "format strings"),
]  # fmt: skip

# (name, whole response, reference, expect, why)
OTHERS: list[tuple[str, str, str, list[str] | str, str]] = [
    ("frac-nested-same", "\\boxed{" + "\\frac{1}{1+" * 500 + "1" + "}" * 500 + "}",
     "\\frac{1}{1+" * 500 + "1" + "}" * 500, [*ANY_HONEST, "bad_reference"], "500 nested fractions twice"),
    ("parens-right", "\\boxed{" + "(" * 1000 + "5" + ")" * 1000 + "}", "5", ANY_HONEST, "1,000 parentheses"),
    ("long-right", "Let us see. " * 90_000 + "\\boxed{5}", "5", "correct", "a million characters first"),
    ("long-wrong", "Let us see. " * 90_000 + "\\boxed{6}", "5", "wrong", "a million characters first"),
    ("long-none", "Let us see. " * 90_000, "5", "unparsed", "a million characters without an answer"),
    ("boxes-right", "\\boxed{3} " * 10_000 + "finally \\boxed{5}", "5", "correct", "10,000 boxes"),
    ("boxes-wrong", "\\boxed{5} " * 10_000 + "finally \\boxed{3}", "5", "wrong", "10,000 boxes"),
    ("boxes-open", "\\boxed{" * 10_000, "5", "unparsed", "10,000 unterminated boxes"),
    ("boxes-nested", "\\boxed{" * 3000 + "6" + "}" * 3000, "5", NOT_CORRECT, "3,000 boxes in boxes"),
    ("tags-open", "<answer>" * 20_000, "5", NOT_CORRECT, "20,000 opened tags"),
    ("marks", "#### " * 20_000, "5", NOT_CORRECT, "20,000 empty marks"),
    ("sentences", "the answer is " * 20_000, "5", NOT_CORRECT, "20,000 broken sentences"),
    ("dollars", "$" * 99_999, "5", NOT_CORRECT, "an odd number of dollar signs"),
    ("spaces", " " * 1_000_000, "5", "unparsed", "a million blanks"),
    ("newlines", "\n" * 500_000 + "\\boxed{5}", "5", "correct", "500,000 empty lines, then the box"),
    ("nul", "\\boxed{5\x00}", "5", ["correct", "unparsed"], "a NUL byte in the box"),
    ("nul-many", "\x00" * 100_000, "5", "unparsed", "100,000 NUL bytes"),
    ("nul-split", "\\boxed{1\x005}", "5", NOT_CORRECT, "a NUL byte does not hide a digit"),
    ("rtl-mark", "\\boxed{\u200f5\u200f}", "5", ["correct", "unparsed"], "right-to-left marks"),
    ("rtl-override", "\\boxed{\u202e51\u202c}", "15", NOT_CORRECT, "digits only displayed in another order"),
    ("zero-width", "\\boxed{5\u200b}", "5", ["correct", "unparsed"], "a zero-width blank"),
    ("bom", "\ufeff\\boxed{5}", "5", "correct", "a byte-order mark"),
    ("surrogate", "\\boxed{\ud800}", "5", NOT_CORRECT, "a lone surrogate"),
    ("combining", "\\boxed{5" + "\u0301" * 50_000 + "}", "5", ANY_HONEST, "50,000 combining accents"),
    ("bell", "\x07\x1b[31m\\boxed{5}\x1b[0m", "5", "correct", "terminal colours around the box"),
    ("emoji", "\\boxed{\U0001f600}", "5", NOT_CORRECT, "an emoji"),
    ("superscripts", "\\boxed{" + "10" + "¹⁰" * 2000 + "}", "5", NOT_CORRECT, "superscript digits"),
    ("reference-tower", "\\boxed{5}", "10^{10^{10}}", [*NOT_CORRECT, "bad_reference"], "a tower"),
    ("reference-factorial", "\\boxed{5}", "(10^6)!", [*NOT_CORRECT, "bad_reference"], "a factorial"),
    ("reference-digits", "\\boxed{5}", "7" * 1_000_000, [*NOT_CORRECT, "bad_reference"], "a million digits"),
    ("reference-parens", "\\boxed{5}", "(" * 100_000, ["bad_reference", "timeout"], "100,000 parentheses"),
    ("set-shuffled", "\\boxed{\\{" + ",".join(str(i * 7 % 3001) for i in range(1, 3001)) + "\\}}",
     "\\{" + ",".join(str(i) for i in range(1, 3001)) + "\\}", [*ANY_HONEST, "bad_reference"],
     "the same 3,000 integers in another order"),
    ("set-one-off", "\\boxed{\\{" + ",".join(str(i) for i in range(1, 2000)) + ",9999\\}}",
     "\\{" + ",".join(str(i) for i in range(1, 2001)) + "\\}", [*NOT_CORRECT, "bad_reference"],
     "2,000 integers, one of them another"),
    ("expansion-equal", "\\boxed{(x+y+z+w)^{200}}", "(w+x+y+z)^{200}", ANY_HONEST, "equal without expanding"),
    ("expansion-unequal", "\\boxed{(x+y+z+w)^{200}}", "(x+y+z+2w)^{200}", NOT_CORRECT, "not equal"),
    ("zero-hidden", "\\boxed{\\sin^{40} x + \\cos^{40} x + 10^{-30}}", "\\sin^{40} x + \\cos^{40} x",
     NOT_CORRECT, "a difference of 10^-30"),
    ("power-of-two", "\\boxed{2^{100000}+1}", "2^{100000}", NOT_CORRECT, "differs by one in 30,103 digits"),
    ("decimal-late", "\\boxed{0." + "3" * 3000 + "4}", "0." + "3" * 3000 + "5", NOT_CORRECT,
     "differs in the 3,001st decimal"),
]  # fmt: skip


def hostile_rows() -> Iterator[dict[str, Any]]:
    """Every hostile row, as math.jsonl would hold it."""
    for name, boxed, why in WRONG_FOR_FIVE:
        yield _row(name, f"\\boxed{{{boxed}}}", "5", NOT_CORRECT, why)
        # The same text without a box goes through the search for a bare final expression.
        yield _row(f"{name}-bare", boxed, "5", NOT_CORRECT, f"{why}, without a box")
    for name, response, reference, expect, why in OTHERS:
        yield _row(name, response, reference, expect, why)


def _row(name: str, response: str, reference: str, expect: list[str] | str, why: str) -> dict[str, Any]:
    return {
        "id": f"hostile-{name}",
        "reference": reference,
        "response": response,
        "expect": expect,
        "kind": "hostile",
        "why": why,
    }
