"""The tool `calculator`: exact arithmetic on plain text."""

from fractions import Fraction
from typing import Annotated

from pydantic import Field

from verl_lite.plugins.builtin.arithmetic import NoValue, read_tokens, value_of
from verl_lite.plugins.environments.contract import ToolError, tool

MAX_CHARS = 1000
SHOWN_DIGITS = 15  # of a value that has no finite decimal expansion


@tool("calculator", isolate=False, timeout_s=5.0)
def calculator(expression: Annotated[str, Field(description="such as (12.5 + 3) * 4^2")]) -> str:
    """Calculate an expression of numbers, + - * / ^ % and parentheses."""
    if len(expression) > MAX_CHARS:
        raise ToolError(
            f"Error: an expression has at most {MAX_CHARS} characters, this has {len(expression)}"
        )
    text = expression.replace("×", "*").replace("÷", "/").replace("−", "-").strip().removesuffix("=")
    tokens = read_tokens(text)
    if "".join(tokens) != "".join(text.replace("**", "^").replace(",", "").split()):
        raise ToolError(f"Error: {expression!r:.100} has more than numbers, + - * / ^ % and parentheses")
    try:
        return shown(value_of(tokens))
    except NoValue:
        raise ToolError(
            f"Error: {expression!r:.100} has no value: a missing operand or parenthesis, a division by zero, "
            "or numbers that are too large"
        ) from None


def shown(value: Fraction) -> str:
    """A value as a decimal number, exact where it has one.

    >>> shown(Fraction(7)), shown(Fraction(-1, 8)), shown(Fraction(1, 3))
    ('7', '-0.125', '0.333333333333333')
    """
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1 or places > 2 * SHOWN_DIGITS:
        return f"{float(value):.{SHOWN_DIGITS}g}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"
