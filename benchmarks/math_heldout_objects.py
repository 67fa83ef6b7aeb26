"""Expressions, sets, intervals, points, words: the families of math_heldout that are no single number."""

import random
from fractions import Fraction

from math_heldout_numbers import SQUAREFREE, Triple, latex_fraction, signed


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


OBJECT_FAMILIES = (
    polynomial,
    identity,
    interval,
    union,
    half_line,
    solutions,
    plus_minus,
    pair,
    matrix,
    line,
    function,
    choice,
    word,
)
