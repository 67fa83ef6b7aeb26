"""Labelled answers nobody wrote by hand: exact values said in two notations, and near misses.

Every row is true by construction: a random exact value is drawn, written once as the reference and once
in another notation as the response (label true), and a value next to it is written the same ways (label
false). No verifier takes part in the labelling. The same seed gives the same rows.

    python benchmarks/math_heldout.py --seed 1 --pairs 40 --out heldout.jsonl
    python benchmarks/math_verify_comparison.py --file heldout.jsonl --math-verify-python VENV/bin/python
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import isqrt
from pathlib import Path

Triple = tuple[str, str, str]  # the reference, an equal answer, a near miss
Family = Callable[[random.Random], Triple]

TEMPLATES = [
    "\\boxed{%s}",
    "Working through the cases, we find that the answer is $\\boxed{%s}$.",
    "The answer is $%s$.",
    "So the final answer is: $%s$",
    "<think>Let me try.</think>\n<answer>%s</answer>",
    "Step 1. We set it up.\nStep 2. We solve it.\n\\[ \\boxed{%s} \\]",
]
SQUAREFREE = [2, 3, 5, 6, 7, 10, 11, 13, 14, 15]


def latex_fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def plain_fraction(value: Fraction) -> str:
    return str(value)


def unreduced_fraction(value: Fraction) -> str:
    return f"\\dfrac{{{value.numerator * 6}}}{{{value.denominator * 6}}}"


def mixed_latex(value: Fraction) -> str:
    whole, rest = divmod(abs(value), 1)
    return f"{'-' * (value < 0)}{whole}\\frac{{{rest.numerator}}}{{{rest.denominator}}}"


def mixed_plain(value: Fraction) -> str:
    whole, rest = divmod(abs(value), 1)
    return f"{'-' * (value < 0)}{whole} {rest.numerator}/{rest.denominator}"


def decimal_expansion(value: Fraction) -> str:
    """The exact decimal of `value`, its period under an overline when it has one."""
    whole, rest = divmod(abs(value), 1)
    digits, seen, remainder = "", {}, rest.numerator
    while remainder and remainder not in seen:
        seen[remainder] = len(digits)
        digit, remainder = divmod(remainder * 10, rest.denominator)
        digits += str(digit)
    if remainder:
        start = seen[remainder]
        digits = f"{digits[:start]}\\overline{{{digits[start:]}}}"
    return f"{'-' * (value < 0)}{whole}.{digits or '0'}"


def signed(value: int, symbol: str = "") -> str:
    """` + 3x`, ` - x` or nothing: a term behind another."""
    if value == 0:
        return ""
    size = "" if abs(value) == 1 and symbol else str(abs(value))
    return f" {'+' if value > 0 else '-'} {size}{symbol}"


def fraction(rng: random.Random) -> Triple:
    denominator = rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 16, 20, 25])
    numerator = rng.choice([n for n in range(denominator + 1, 9 * denominator) if n % denominator])
    value = Fraction(numerator, denominator) * rng.choice([1, 1, 1, -1])
    improper = [latex_fraction, plain_fraction, unreduced_fraction, decimal_expansion]
    said, again = rng.sample([*improper, mixed_latex, mixed_plain], 2)
    step = Fraction(1, denominator)
    slips = [-value, 1 / value, value + 1, value - 1, value + step, value - step, value * 10, value / 2]
    slip = rng.choice([slip for slip in slips if slip not in (value, 0)])
    wrong_form = again if abs(slip) > 1 and slip.denominator > 1 else rng.choice(improper[:3])
    return said(value), again(value), wrong_form(slip)


def large_integer(rng: random.Random) -> Triple:
    millions = rng.randint(2, 900)
    number = millions * 1_000_000
    said = [f"{number:,}", str(number), f"{millions} million", f"{millions} \\times 10^6", f"{millions}e6"]
    reference, right = rng.sample(said, 2)
    slip = rng.choice([number * 10, number // 10, number + 1_000_000, number + 1])
    return reference, right, rng.choice([str(slip), f"{slip:,}"])


def scientific(rng: random.Random) -> Triple:
    digits, exponent = rng.randint(11, 98), rng.choice([-9, -6, -5, -4, 5, 7, 11, 23])
    head = f"{digits // 10}.{digits % 10}"

    def forms(exponent: int) -> list[str]:
        superscript = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return [f"{head} \\times 10^{{{exponent}}}", f"{head}e{exponent}", f"{head} × 10{superscript}"]

    reference, right = rng.sample(forms(exponent), 2)
    return reference, right, rng.choice(forms(rng.choice([-exponent, exponent + 1, exponent - 1])))


def percent(rng: random.Random) -> Triple:
    number = rng.choice([5, 12, 15, 20, 24, 35, 48, 60, 72, 85])
    value = Fraction(number, 100)
    right = rng.choice([f"{number}%", f"{number} percent", latex_fraction(value), decimal_expansion(value)])
    slips = [f"{number + 1}\\%", f"{100 - number}\\%", f"{number * 10}\\%", decimal_expansion(value / 10)]
    return f"{number}\\%", right, rng.choice(slips)


def radical(rng: random.Random) -> Triple:
    factor, inside = rng.randint(2, 9), rng.choice(SQUAREFREE)
    said = [
        f"{factor}\\sqrt{{{inside}}}",
        f"\\sqrt{{{factor * factor * inside}}}",
        f"{factor}√{inside}" if inside < 10 else f"{factor}√({inside})",
        f"\\frac{{{factor * inside}}}{{\\sqrt{{{inside}}}}}",
        f"{factor}*sqrt({inside})",
        f"{factor} \\cdot {inside}^{{1/2}}",
    ]
    reference, right = rng.sample(said, 2)
    slips = [f"{factor}\\sqrt{{{inside + 1}}}", f"\\sqrt{{{factor * inside}}}", f"{factor}", f"-{said[0]}"]
    return reference, right, rng.choice(slips)


def conjugate(rng: random.Random) -> Triple:
    low, high = sorted(rng.sample(SQUAREFREE, 2))
    quotient = f"\\frac{{1}}{{\\sqrt{{{high}}}-\\sqrt{{{low}}}}}"
    rationalised = f"\\frac{{\\sqrt{{{high}}}+\\sqrt{{{low}}}}}{{{high - low}}}"
    slip = f"\\frac{{\\sqrt{{{high}}}-\\sqrt{{{low}}}}}{{{high - low}}}"
    return (*rng.sample([quotient, rationalised], 2), slip)  # type: ignore[return-value]


def surd_decimal(rng: random.Random) -> Triple:
    number = rng.choice([n for n in range(2, 200) if isqrt(n) ** 2 != n])
    digits = str(isqrt(number * 10**20))
    decimal = f"{digits[:-10]}.{digits[-10:-1]}"
    return (
        f"\\sqrt{{{number}}}",
        decimal,
        rng.choice([decimal[:4], f"\\sqrt{{{number + 1}}}", f"{number / 2}"]),
    )


def polynomial(rng: random.Random) -> Triple:
    one, two = rng.sample([n for n in range(-7, 8) if n], 2)
    expanded = f"x^2{signed(-one - two, 'x')}{signed(one * two)}"
    said = [
        f"(x{signed(-one)})(x{signed(-two)})",
        f"(x{signed(-two)})(x{signed(-one)})".replace(" ", ""),
        expanded,
        expanded.replace("^2", "²").replace(" ", ""),
    ]
    reference, right = rng.sample(said, 2)
    slips = [
        f"x^2{signed(-one - two, 'x')}{signed(-one * two)}",
        f"x^2{signed(-one - two + 1, 'x')}{signed(one * two)}",
        f"(x{signed(-one)})(x{signed(two)})",
    ]
    return reference, right, rng.choice(slips)


def identity(rng: random.Random) -> Triple:
    n = rng.randint(2, 9)
    rows = [
        (f"\\sin({2 * n}x)", f"2\\sin({n}x)\\cos({n}x)", f"2\\sin({n}x)"),
        (f"{n}\\ln x + \\ln 3", f"\\ln(3x^{n})", f"\\ln({3 * n}x)"),
        (f"e^{{{n}x}}", f"(e^x)^{n}", f"{n}e^x"),
        (f"\\frac{{x^2-{n * n}}}{{x-{n}}}", f"x+{n}", f"x-{n}"),
        (f"2^{{{n}k}}", f"{2**n}^k", f"2^{n}k"),
        (
            f"\\frac{{1}}{{x}} - \\frac{{1}}{{x+{n}}}",
            f"\\frac{{{n}}}{{x(x+{n})}}",
            f"\\frac{{1}}{{x(x+{n})}}",
        ),
    ]
    one, other, slip = rng.choice(rows)
    return (*rng.sample([one, other], 2), slip)  # type: ignore[return-value]


def interval(rng: random.Random) -> Triple:
    low = rng.randint(-9, 5)
    high = low + rng.randint(1, 9)
    left, right = rng.choice("(["), rng.choice(")]")

    def forms(high: int, left: str, right: str) -> list[str]:
        tex = {"(": "<", "[": "\\le", ")": "<", "]": "\\le"}
        plain = {"(": "<", "[": "≤", ")": "<", "]": "≤"}
        return [
            f"{left}{low},{high}{right}",
            f"{low} {tex[left]} x {tex[right]} {high}",
            f"x \\in {left}{low}, {high}{right}",
            f"{low} {plain[left]} x {plain[right]} {high}",
            f"\\{{x \\mid {low} {tex[left]} x {tex[right]} {high}\\}}",
        ]

    reference, same = rng.sample(forms(high, left, right), 2)
    open_left, open_right = "(" if left == "[" else "[", ")" if right == "]" else "]"
    slips = forms(high, open_left, right) + forms(high, left, open_right) + forms(high + 1, left, right)
    return reference, same, rng.choice(slips)


def union(rng: random.Random) -> Triple:
    low = rng.randint(-9, 5)
    high = low + rng.randint(1, 9)
    said = [
        f"(-\\infty,{low})\\cup({high},\\infty)",
        f"x<{low} or x>{high}",
        f"x>{high} \\text{{ or }} x<{low}",
        f"(-∞, {low}) ∪ ({high}, ∞)",
    ]
    reference, right = rng.sample(said, 2)
    slips = [f"({low},{high})", f"(-\\infty,{low}]\\cup[{high},\\infty)", f"x>{high}", f"{low}<x<{high}"]
    return reference, right, rng.choice(slips)


def half_line(rng: random.Random) -> Triple:
    bound, factor = rng.randint(-9, 9), rng.randint(2, 5)
    said = [f"x>{bound}", f"({bound},\\infty)", f"{bound}<x", f"{factor}x > {factor * bound}", f"-x<{-bound}"]
    reference, right = rng.sample(said, 2)
    slips = [f"x<{bound}", f"x\\ge {bound}", f"[{bound},\\infty)", f"(-\\infty,{bound})", f"x>{bound + 1}"]
    return reference, right, rng.choice(slips)


def solutions(rng: random.Random) -> Triple:
    numbers = rng.sample(range(-20, 21), rng.randint(2, 4))
    values = [latex_fraction(Fraction(number, 3)) for number in numbers]
    again = rng.sample(values, len(values))
    reference = rng.choice([", ".join(values), f"\\{{{', '.join(values)}\\}}"])
    right = [", ".join(again), f"\\{{{','.join(again)}\\}}", ", ".join(f"x={value}" for value in again)]
    slips = [values[:-1], [*values, "99"], [*values[:-1], "77"]]
    return reference, rng.choice(right), ", ".join(rng.choice(slips))


def plus_minus(rng: random.Random) -> Triple:
    centre, inside = rng.randint(1, 9), rng.choice(SQUAREFREE)
    said = [
        f"{centre} \\pm \\sqrt{{{inside}}}",
        f"{centre}+\\sqrt{{{inside}}}, {centre}-\\sqrt{{{inside}}}",
        f"x={centre}-\\sqrt{{{inside}}} \\text{{ or }} x={centre}+\\sqrt{{{inside}}}",
        f"{centre} ± sqrt({inside})",
    ]
    reference, right = rng.sample(said, 2)
    return (
        reference,
        right,
        rng.choice([f"{centre}+\\sqrt{{{inside}}}", f"-{centre} \\pm \\sqrt{{{inside}}}"]),
    )


def pair(rng: random.Random) -> Triple:
    one, two = rng.sample(range(-20, 21), 2)
    said = [
        f"({one},{two})",
        f"\\left({one}, {two}\\right)",
        f"\\langle {one},{two}\\rangle",
        f"\\begin{{pmatrix}}{one}\\\\{two}\\end{{pmatrix}}",
        f"\\begin{{bmatrix}} {one} \\\\ {two} \\end{{bmatrix}}",
    ]
    reference, right = rng.sample(said, 2)
    return reference, right, rng.choice([f"({two},{one})", f"\\{{{one},{two}\\}}", f"({one},{two + 1})"])


def matrix(rng: random.Random) -> Triple:
    a, b, c, d = rng.sample(range(1, 30), 4)

    def forms(a: int, b: int, c: int, d: int) -> list[str]:
        body = f"{a} & {b} \\\\ {c} & {d}"
        kinds = [f"\\begin{{{kind}}} {body} \\end{{{kind}}}" for kind in ("pmatrix", "bmatrix")]
        return [
            *kinds,
            f"\\left[\\begin{{array}}{{cc}} {body} \\end{{array}}\\right]",
            f"[[{a},{b}],[{c},{d}]]",
        ]

    reference, right = rng.sample(forms(a, b, c, d), 2)
    return reference, right, rng.choice(forms(a, c, b, d) + forms(a, b, c, -d))


def unit(rng: random.Random) -> Triple:
    units = [
        ("m", "cm", 100),
        ("km", "m", 1000),
        ("kg", "g", 1000),
        ("hours", "minutes", 60),
        ("m^2", "cm^2", 10_000),
    ]
    big, small, ratio = rng.choice(units)
    number = rng.randint(2, 40)
    said = [
        f"{number} {big}",
        f"{number} \\, \\mathrm{{{big}}}",
        f"{number * ratio} {small}",
        f"{number}.0 {big}",
    ]
    reference, right = rng.sample(said, 2)
    slips = [
        f"{number} {small}",
        f"{number * ratio * 10} {small}",
        f"{number + 1} {big}",
        f"{number * ratio} {big}",
    ]
    return reference, right, rng.choice(slips)


def angle(rng: random.Random) -> Triple:
    degrees = rng.choice([15, 20, 30, 36, 40, 45, 60, 72, 75, 105, 120, 135, 150, 210, 240, 300])
    turn = Fraction(degrees, 180)
    top = "\\pi" if turn.numerator == 1 else f"{turn.numerator}\\pi"
    radians = [f"\\frac{{{top}}}{{{turn.denominator}}}", f"{top}/{turn.denominator}".replace("\\pi", "π")]
    said = [f"{degrees}^\\circ", f"{degrees}°", f"{degrees} degrees", *radians]
    reference, right = rng.sample(said, 2)
    slips = [f"{180 - degrees}^\\circ", f"\\frac{{{top}}}{{{turn.denominator + 1}}}", f"{degrees + 10}°"]
    return reference, right, rng.choice(slips)


def base(rng: random.Random) -> Triple:
    number, radix = rng.randint(20, 500), rng.choice([2, 3, 5, 7, 8])
    digits, rest = "", number
    while rest:
        rest, digit = divmod(rest, radix)
        digits = str(digit) + digits
    said = [f"{digits}_{radix}", f"{digits}_{{{radix}}}", f"{digits}_{{({radix})}}", f"{number}_{{10}}"]
    reference, right = rng.sample(said, 2)
    return reference, right, rng.choice([f"{digits}_9", f"{digits}0_{radix}", f"{number + 1}_{{10}}"])


def line(rng: random.Random) -> Triple:
    slope, offset, scale = rng.choice([-4, -3, -2, 2, 3, 4]), rng.randint(1, 9), rng.choice([-3, -2, 2, 3])
    said = [
        f"y={slope}x+{offset}",
        f"y-{offset}={slope}x",
        f"{slope}x-y+{offset}=0",
        f"{scale}y={scale * slope}x{signed(scale * offset)}",
    ]
    reference, right = rng.sample(said, 2)
    slips = [
        f"y={slope}x-{offset}",
        f"y={-slope}x+{offset}",
        f"x={slope}y+{offset}",
        f"{slope}x+y+{offset}=0",
    ]
    return reference, right, rng.choice(slips)


def function(rng: random.Random) -> Triple:
    factor, offset, letter = rng.randint(2, 9), rng.randint(1, 9), rng.choice("ntuk")
    right = [
        f"f({letter})={factor}{letter}^2+{offset}",
        f"f(x)={offset}+{factor}x²",
        f"{factor}x^2+{offset}",
    ]
    slips = [
        f"f({letter})={factor}{letter}^2-{offset}",
        f"f({letter})={factor}x^2+{offset}",
        f"f(x)={factor}x+{offset}",
    ]
    return f"f(x)={factor}x^2+{offset}", rng.choice(right), rng.choice(slips)


def complex_number(rng: random.Random) -> Triple:
    real, imaginary = rng.randint(1, 9), rng.choice([-7, -5, -3, 2, 4, 6])
    said = [
        f"{real}{signed(imaginary, 'i')}",
        f"{imaginary}i+{real}",
        f"{real} + ({imaginary})\\mathrm{{i}}",
        f"\\frac{{{2 * real}{signed(2 * imaginary, 'i')}}}{{2}}",
    ]
    reference, right = rng.sample(said, 2)
    return (
        reference,
        right,
        rng.choice([f"{real}{signed(-imaginary, 'i')}", f"{real + imaginary}", f"-{said[0]}"]),
    )


def tiny_power(rng: random.Random) -> Triple:
    exponent = rng.randint(40, 120)
    said = [
        f"\\frac{{1}}{{2^{{{exponent}}}}}",
        f"2^{{-{exponent}}}",
        f"(1/2)^{{{exponent}}}",
        f"0.5^{{{exponent}}}",
    ]
    reference, right = rng.sample(said, 2)
    return (
        reference,
        right,
        rng.choice([f"\\frac{{1}}{{2^{{{exponent + 1}}}}}", f"2^{{-{exponent - 1}}}", "0"]),
    )


def choice(rng: random.Random) -> Triple:
    letter, other = rng.sample("ABCDE", 2)
    said = [letter, f"({letter})", f"\\text{{({letter})}}", f"\\textbf{{({letter})}}"]
    reference, right = rng.sample(said, 2)
    return reference, right, rng.choice([other, f"({other})", f"\\text{{{other}}}"])


def word(rng: random.Random) -> Triple:
    groups = [
        (["\\infty", "∞", "infinity", "+\\infty"], ["-\\infty", "0", "does not exist"]),
        (
            ["no solution", "\\emptyset", "\\text{no solution}", "∅"],
            ["0", "\\{0\\}", "infinitely many solutions"],
        ),
        (["does not exist", "DNE", "\\text{DNE}"], ["0", "\\infty", "1"]),
        (["Yes", "\\text{yes}", "yes"], ["No", "\\text{no}"]),
        (["\\text{False}", "false", "False"], ["True", "\\text{true}"]),
        (["(-\\infty,\\infty)", "\\mathbb{R}", "ℝ"], ["\\emptyset", "[0,\\infty)", "\\mathbb{Z}"]),
    ]
    said, slips = rng.choice(groups)
    reference, right = rng.sample(said, 2)
    return reference, right, rng.choice(slips)


FAMILIES: Sequence[Family] = (
    fraction, large_integer, scientific, percent, radical, conjugate, surd_decimal, polynomial, identity,
    interval, union, half_line, solutions, plus_minus, pair, matrix, unit, angle, base, line, function,
    complex_number, tiny_power, choice, word,
)  # fmt: skip


def heldout_rows(*, seed: int, pairs_per_family: int) -> Iterator[dict[str, object]]:
    """One right and one wrong row for each pair, every family `pairs_per_family` times."""
    rng = random.Random(seed)
    for family in FAMILIES:
        for number in range(pairs_per_family):
            reference, right, wrong = family(rng)
            for label, answer in ((True, right), (False, wrong)):
                yield {
                    "id": f"{family.__name__}-{number}-{'right' if label else 'wrong'}",
                    "kind": family.__name__,
                    "reference": reference,
                    "response": rng.choice(TEMPLATES) % answer,
                    "label": label,
                }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--pairs", type=int, default=40, help="pairs (a right and a wrong row) for each family"
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    args = parser.parse_args()
    rows = list(heldout_rows(seed=args.seed, pairs_per_family=args.pairs))
    args.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows of {len(FAMILIES)} families to {args.out}")


if __name__ == "__main__":
    main()
