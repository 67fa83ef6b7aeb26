"""The parts of verify_code that run outside the sandbox: values, comparison, extraction, reading tests."""

import collections
import doctest
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from verl_lite.verifiers.code import (
    AssertTest,
    CallTest,
    NotPlainData,
    NotReadable,
    UnitTestFile,
    compare,
    decode,
    encode,
    extract,
    extract_program,
    loading,
    matches_text,
    matches_value,
    read_test_code,
    split_asserts,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("module", [compare, extract, loading])
def test_the_examples_in_docstrings_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


@given(PLAIN)
@settings(max_examples=80, deadline=None)
def test_values_travel_unchanged(value: Any) -> None:
    sent = json.loads(json.dumps(encode(value), allow_nan=False))
    back = decode(sent)
    assert back == value
    assert type(back) is type(value)
    assert matches_value(sent, value, rules="python")


@given(PLAIN, PLAIN)
@settings(max_examples=120, deadline=None)
def test_python_rules_are_pythons_equality(left: Any, right: Any) -> None:
    assert matches_value(encode(left), right, rules="python") == (left == right)


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (3**200, 3**200),
        ({1, 2, frozenset([3])}, {1, 2, frozenset([3])}),
        (b"\x00\xff", b"\x00\xff"),
        (complex(1, -2), complex(1, -2)),
        (Decimal("1.10"), Decimal("1.10")),
        (Fraction(1, 3), Fraction(1, 3)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.deque([1, 2]), [1, 2]),
        (collections.namedtuple("P", "x y")(1, 2), (1, 2)),
        (math.inf, math.inf),
        ("\ud800", "\ud800"),
    ],
)
def test_further_plain_types(value: Any, back: Any) -> None:
    found = decode(json.loads(json.dumps(encode(value))))
    assert found == back
    assert type(found) is type(back)


class _Lie(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value", [_Lie(3), [_Lie(3)], {1: _Lie(3)}, object(), print, int, math.nan, [math.nan], Decimal("NaN")]
)
def test_what_is_not_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(NotPlainData):
        encode(value)


def test_nesting_is_bounded() -> None:
    value: Any = []
    for _ in range(200):
        value = [value]
    with pytest.raises(NotPlainData, match="nested"):
        encode(value)


@pytest.mark.parametrize(
    "data",
    [
        ["l"],
        ["l", 3],
        ["x", 1],
        [],
        {},
        {"a": 1},
        ["i", 5],
        ["i", "12"],
        [1, 2],
        ["d", [[1]]],
        ["inf"],
        ["l", [{}]],
    ],
)
def test_malformed_data_matches_nothing(data: Any) -> None:
    for expected in (0, 5, 18, 1.0, True, None, "", "x", [1], (1,), {1}, {"a": 1}, b"", [], {}):
        assert not matches_value(data, expected, rules="json")
        assert not matches_value(data, expected, rules="python")


@pytest.mark.parametrize(
    ("got", "expected", "json_rules", "python_rules"),
    [
        (1, True, False, True),
        (True, 1, False, True),
        (1.0, 1, True, True),
        (1, 1.0000000001, True, False),
        (1.0000000001, 1, False, False),
        ((1, 2), [1, 2], True, False),
        ({1: 2}, {"1": 2}, True, False),
        ({"a": (1,)}, {"a": [1]}, True, False),
        ("1", 1, False, False),
        (None, 0, False, False),
        (math.inf, 1e308, False, False),
        (10**400, 1.0, False, False),
        (10**400, 10**400, True, True),
        ([[1], [2]], [[1], [2]], True, True),
        ({"i": "0x5"}, {"i": "0x05"}, False, False),
        ({1, 2}, {2, 1}, False, True),
    ],
)
def test_rules_for_values(got: Any, expected: Any, json_rules: bool, python_rules: bool) -> None:
    assert matches_value(encode(got), expected, rules="json") is json_rules
    assert matches_value(encode(got), expected, rules="python") is python_rules


@pytest.mark.parametrize(
    ("output", "expected", "how", "same"),
    [
        ("1 2\n", "1\n2", "tokens", True),
        ("1 2\n", "1\n2", "lines", False),
        ("a  \nb\n\n", "a\nb", "lines", True),
        ("a\r\nb", "a\nb", "lines", True),
        (" a", "a", "lines", False),
        ("a\n", "a", "exact", False),
        ("0.1000001", "0.1", "floats", True),
        ("0.11", "0.1", "floats", False),
        ("1e-3", "0.001", "floats", True),
        ("nan", "nan", "tokens", True),
        ("nan", "1", "floats", False),
        ("inf", "1e300", "floats", False),
        ("1e999", "1e300", "floats", False),
        ("1_0", "10", "floats", False),
        ("１０", "10", "floats", False),
        ("12345678901234567891", "12345678901234567890", "floats", False),
        ("1 2", "1", "floats", False),
        ("007", "7", "tokens", False),
        ("007", "7", "floats", True),
        ("Yes", "YES", "tokens", False),
    ],
)
def test_rules_for_output(output: str, expected: str, how: Any, same: bool) -> None:
    assert matches_text(output, expected, how) is same


@pytest.mark.parametrize(
    ("line", "function", "args", "expected"),
    [
        ("assert f(1, [2]) == (3,)", "f", (1, [2]), (3,)),
        ("assert {'a': 1} == f('x')", "f", ("x",), {"a": 1}),
        ("assert f(-1) is None", "f", (-1,), None),
        ("assert f() is True, 'message'", "f", (), True),
        ("assert Solution().f({1, 2}) == 1.5", "Solution.f", ({1, 2},), 1.5),
        ("assert (f(1)) == (2)", "f", (1,), 2),
    ],
)
def test_assert_lines_become_calls(line: str, function: str, args: Any, expected: Any) -> None:
    (test,) = split_asserts(AssertTest(source=line))
    assert isinstance(test, CallTest)
    assert (test.function, test.args, test.expected) == (function, args, expected)
    assert test.rules == "python"


@pytest.mark.parametrize(
    "line",
    [
        "assert f(1)",
        "assert not f(1)",
        "assert f(1) != 2",
        "assert f(x) == 2",
        "assert f(*[1]) == 2",
        "assert f(1) == g(1)",
        "assert set(f(1)) == {1}",
        "assert f(1) == 2 and f(2) == 3",
        "assert f(1) is 5",
        "assert len('a') == 1",
        "assert f(f(1)) == 1",
    ],
)
def test_other_asserts_stay_asserts(line: str) -> None:
    (test,) = split_asserts(AssertTest(source=line))
    assert isinstance(test, AssertTest)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert f(3) > 2", ""),
        ("assert sorted(f(3)) == [1]", ""),
        ("assert f(3).upper() == 'A'", ""),
        ("assert list(map(f, [1])) == [1]", ""),
        ("assert Solution().f(1) == g(1)", ""),
        ("assert f(Pair(1)) == 1", "Pair"),
        ("s = Stack()\nassert s.pop() == 1", "Stack"),
        ("assert f(1).value == 1", ".value"),
        ("assert f.calls == 1", "f.calls"),
        ("assert f(lambda x: x) == 1", "passes a function"),
    ],
)
def test_which_tests_trust_the_program(source: str, reason: str) -> None:
    code = read_test_code(AssertTest(source=source))
    assert (code.mode == "together") == bool(reason)
    assert reason in code.trusts_because


@pytest.mark.parametrize(
    ("source", "names", "mode"),
    [
        ("from solution import f\ndef test(): assert f(1)", ("f",), "separate"),
        ("from solution import *\ndef test(): assert f(g(1))", ("f", "g"), "separate"),
        ("import solution as s\ndef test(): assert s.f(1)", ("f",), "separate"),
        ("def test(): assert f(1)", ("f",), "separate"),
        ("from solution import f as g\ndef test(): assert g(1)", ("f",), "together"),
        ("import solution\ndef test(): assert vars(solution)['f'](1) == solution.f(1)", ("f",), "together"),
    ],
)
def test_what_a_test_file_takes_from_the_program(source: str, names: Any, mode: str) -> None:
    code = read_test_code(UnitTestFile(source=source))
    assert (code.names, code.mode) == (names, mode)


def test_tests_that_say_nothing_are_refused() -> None:
    for source in ("print(f(1))", "f(1) == 2", ""):
        with pytest.raises(NotReadable):
            split_asserts(AssertTest(source=source))
    with pytest.raises(NotReadable, match="calls nothing"):
        read_test_code(AssertTest(source="assert True"))


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nx\n```", "x\n"),
        ("````python\n```\nx\n````", "```\nx\n"),
        ("~~~py\nx\n~~~", "x\n"),
        ("  ```Python3 title=a\nx\n  ```", "x\n"),
        ("```{.python}\nx\n```", "x\n"),
        ("```\nx\n```\n```js\ny\n```", "x\n"),
        ("```python\nx\n```\n```\noutput\n```", "x\n"),
        ("```python\n```", None),
        ("", None),
        ("  \n", None),
        ("x = '```'\n", "x = '```'\n"),
        ("<think>```python\nx\n```</think>\n", None),
        ("thought</think>x", "x"),
    ],
)
def test_extraction(response: str, program: str | None) -> None:
    assert extract_program(response) == (program if program is None or program.strip() else None)


def test_extraction_of_other_languages() -> None:
    response = "```cpp\nint main() {}\n```\n```python\nx\n```"
    assert extract_program(response, "cpp") == "int main() {}\n"
    assert extract_program(response, "bash") is None
