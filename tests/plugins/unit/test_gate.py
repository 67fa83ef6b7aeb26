"""`when:` conditions: what they mean, and that nothing else gets through."""

import pytest
from hypothesis import given, strategies as st

from verl_lite.plugins.composite import parse_gate

VALUES = {"a": 1.0, "b": 0.5, "c": -2.0, "zero": 0.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a > 0", True),
        ("a > 1", False),
        ("a >= 1 and b < 1", True),
        ("a > 1 or b == 0.5", True),
        ("not a > 1", True),
        ("not (a >= 1 and b < 1)", False),
        ("0 < b < 1", True),
        ("0 < b <= 0.4 < 1", False),
        ("a + b * c == 0", True),
        ("(a + b) * c == -3", True),
        ("a - b - c != 2.5", False),
        ("-c / 2 == +a", True),
        ("max(a, b, c) == a", True),
        ("min(a, c) < -1", True),
        ("abs(c) - 2 == 0", True),
        ("  a > 0\n", True),
        ("2 > 1", True),
        ("a / zero > 0", None),  # no result: undecided
        ("missing > 0", None),
        ("a > 0 or missing > 0", None),  # every name must have a value
    ],
)
def test_conditions(text: str, expected: bool | None) -> None:
    assert parse_gate(text).is_open(VALUES) is expected


def test_the_names_are_known() -> None:
    assert parse_gate("max(a, b) > 0 and not c < a").names == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a condition"),
        ("a >", "not a condition"),
        ("a > 0; b", "not a condition"),
        ("a = 1", "not a condition"),
        ("a > 0\x00", "not a condition"),
        ("(" * 250 + "a" + ")" * 250 + " > 0", "characters"),
        ("(" * 140 + "a" + ")" * 140 + " > 0", None),  # nested, but readable: fine
        ("a", "'a' is a number, not a condition"),
        ("a + b", "'a + b' is a number, not a condition"),
        ("1", "'1' is a number"),
        ("a and b > 0", "'a' is a number"),
        ("not a", "'a' is a number"),
        ("(a > 0) + 1 > 0", "'a > 0' is not allowed"),
        ("True", "'True' is not allowed"),
        ("a > True", "'True' is not allowed"),
        ("a == 'x'", "is not allowed"),
        ("a == None", "is not allowed"),
        ("a is b", "is not allowed"),
        ("a in b", "is not allowed"),
        ("a ** 99 > 0", "'a ** 99' is not allowed"),
        ("a // b > 0", "is not allowed"),
        ("a % b > 0", "is not allowed"),
        ("a << 9 > 0", "is not allowed"),
        ("~a > 0", "is not allowed"),
        ("a[0] > 0", "is not allowed"),
        ("a.real > 0", "is not allowed"),
        ("a.__class__ > 0", "is not allowed"),
        ("__import__('os').system('true') > 0", "is not allowed"),
        ("eval(a) > 0", "is not allowed"),
        ("max(*a) > 0", "is not allowed"),
        ("max(a, key=b) > 0", "is not allowed"),
        ("max(a) > 0", "max takes two or more"),
        ("abs() > 0", "abs takes one number"),
        ("abs(a, b) > 0", "abs takes one number"),
        ("(lambda: a)() > 0", "is not allowed"),
        ("[a] > [b]", "is not allowed"),
        ("(a if b else c) > 0", "is not allowed"),
        ("(x := a) > 0", "is not allowed"),
        ("f'{a}' > 0", "is not allowed"),
        ("1e999 > a", "not a finite number"),
        ("1j > a", "is not allowed"),
        ("a > 1" + "0" * 290, None),
        ("a > 0 # " + "x" * 400, "at most 300"),
    ],
)
def test_everything_else_is_refused(text: str, message: str | None) -> None:
    if message is None:
        assert parse_gate(text).names == {"a"}
        return
    with pytest.raises(ValueError, match=r".") as caught:
        parse_gate(text)
    assert message in str(caught.value)


@given(st.text(alphabet="ab01 <>=!()+-*/.,andortmixs_'[]{}:~%&|^@\n", max_size=60))
def test_any_text_parses_to_a_condition_or_a_message(text: str) -> None:
    try:
        gate = parse_gate(text)
    except ValueError:
        return
    assert gate.is_open(dict.fromkeys(gate.names, 0.5)) in (True, False, None)
