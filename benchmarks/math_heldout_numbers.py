"""Numbers in two notations and a near miss: the families of math_heldout whose answer is one value."""

import random
from fractions import Fraction
from math import isqrt

Triple = tuple[str, str, str]  # the reference, an equal answer, a near miss
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


NUMBER_FAMILIES = (
    fraction, large_integer, scientific, percent, radical, conjugate, surd_decimal, unit, angle,
    base, complex_number, tiny_power,
)  # fmt: skip
