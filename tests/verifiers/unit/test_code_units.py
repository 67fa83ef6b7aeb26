"""The parts of verify_code that run outside the sandbox: values, comparison, extraction, reading tests."""

import collections
import datetime
import doctest
import enum
import json
import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from verl_lite.verifiers.code import (
    AssertTest,
    BadTests,
    CallTest,
    NotPlainData,
    NotReadable,
    UnitTestFile,
    compare,
    decode,
    encode,
    extract,
    extract_program,
    load_tests,
    loading,
    matches_text,
    matches_value,
    program_tests,
    read_test_code,
    split_asserts,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("module", [compare, extract, loading, program_tests])
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


class _Color(enum.Enum):
    RED = 1


class _Grade(enum.IntEnum):
    A = 1


class _Lie(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value", [object(), [print], int, re.match("a", "a"), datetime.date(2020, 1, 2), _Color.RED]
)
def test_what_is_not_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(NotPlainData):
        encode(value)


class _Text(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize("value", [_Lie(3), [_Lie(3)], {1: _Lie(3)}, _Text("a"), _Grade.A])
def test_of_an_instance_of_a_subclass_only_the_value_under_it_counts(value: Any) -> None:
    base = {"_Lie": 3, "list": [3], "dict": {1: 3}, "_Text": "a", "_Grade": 1}[type(value).__name__]
    assert matches_value(encode(value), base, rules="python")
    for other in (4, [4], {1: 4}, "b"):
        assert not matches_value(encode(value), other, rules="python")
        assert not matches_value(encode(value), other, rules="json")


@pytest.mark.parametrize("value", [math.nan, [math.nan], Decimal("NaN"), complex(math.nan, 0)])
def test_nan_is_no_right_answer(value: Any) -> None:
    for expected in (0, 1.0, [1.0], complex(1, 0), math.nan):
        assert not matches_value(encode(value), expected, rules="python")
        assert not matches_value(encode(value), expected, rules="json")


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
        ("1\n2\n3", "1 2 3\n", "tokens", True),
        ("1\n2 3", "1 2\n3", "tokens", False),
        ("1 2 3", "1 2\n3", "tokens", False),
        ("a b\n\nc", "a b\nc\n", "tokens", True),
        ("*\n***", " *\n***", "tokens", False),
        (" *\n***\n", " *\n***", "tokens", True),
        ("1 2\n33 4", " 1 2\n33 4", "tokens", True),
        ("0.333333", "0.333333333333", "tokens", True),
        ("0.3333", "0.333333333333", "tokens", False),
        ("6.0", "6", "tokens", True),
        ("6.00001", "6", "tokens", False),
        ("1.50", "1.5", "tokens", True),
        ("1000000000000000001", "1000000000000000000", "tokens", False),
        ("1e18", "1000000000000000001", "tokens", False),
        ("nan", "1.0", "tokens", False),
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
        ("assert f(Pair(1)) == 1", ""),
        ("s = Stack()\nassert s.pop() == 1", ""),
        ("assert f(1).value == 1", ""),
        ("assert f(lambda x: x) == 1", ""),
        ("assert Color.RED.value == 1", ""),
        ("assert Config.SIZE == 5", ""),
        ("assert len(Pair(1)) == 1", ""),
        ("assert f.calls == 1", "f.calls"),
        ("assert Pair(1) == Pair(1)", "compares objects of the class Pair"),
        ("assert f(1) == Color.RED", "compares objects of the class Color"),
        ("p = Pair(1)\nassert [f(1)] == [p]", "compares objects of the class Pair"),
        ("s = Bag()\nassert 3 in s", "compares objects of the class Bag"),
        ("assert (Money(3) - 3).value < 1", "compares objects of the class Money"),
        ("class Mine(Base): pass\nassert Mine().f() == 1", "derives Mine"),
    ],
)
def test_which_tests_trust_the_program(source: str, reason: str) -> None:
    code = read_test_code(AssertTest(source=source))
    assert (code.mode == "together") == bool(reason)
    assert reason in code.trusts_because


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert eval(f(1)) == 2", "runs text with eval()"),
        ("e = eval\nassert e(f(1)) == 2", "uses eval"),
        ("from builtins import exec as e\ne(f(1))\nassert f(2)", "imports exec"),
        ("import builtins as b\nassert b.eval(f(1)) == 2", "builtins.eval"),
        ("import builtins\nassert getattr(builtins, 'ev' + 'al')(f(1))", "getattr()"),
        ("assert getattr(object, f(1))", "getattr()"),
        ("assert __builtins__['eval'](f(1))", "__builtins__"),
        ("ns = {}\nexec(compile(f(1), 'x', 'exec'), ns)\nassert ns", "runs text with exec()"),
        ("import pickle\nassert pickle.loads(f(1)) == 3", "imports pickle"),
        ("import marshal as m\nassert m.loads(f(1))", "imports marshal"),
        ("import numpy as np\nassert np.load(f(1), allow_pickle=True)", "allows pickles"),
        ("import yaml\nassert yaml.load(f(1), Loader=yaml.Loader)", "library yaml"),
        ("import os\nassert os.system(f(1)) == 0", "uses os.system"),
        ("from os import popen\nassert popen(f(1)).read()", "imports popen"),
        ("import subprocess\nassert subprocess.check_output(f(1))", "imports subprocess"),
        ("import importlib.util\nassert importlib.util.spec_from_file_location('m', f(1))", "loads code"),
        ("from operator import methodcaller\nassert methodcaller(f(1))('')", "methodcaller()"),
        (
            "import doctest, solution\nassert doctest.testmod(solution).failed == solution.f(0)",
            "imports doctest",
        ),
        ("import typing\nassert typing.get_type_hints(f)", "get_type_hints"),
        ("assert f(eval)('1') == 1", "uses eval"),
        ("assert eval('1 + 1') == f(2)", ""),
        ("import ast\nassert ast.literal_eval(f(1)) == 2", ""),
        ("import re\nassert re.compile(f(1))", ""),
        ("import json\nassert getattr(json, 'loads')(f(1)) == 2", ""),
        ("import importlib\nassert importlib.import_module(f(1)).pi > 3", ""),
    ],
)
def test_tests_that_run_the_programs_text_trust_it(source: str, reason: str) -> None:
    code = read_test_code(AssertTest(source=source, names=("f",)))
    assert (code.mode == "together") == bool(reason), code.trusts_because
    assert reason in code.trusts_because


@pytest.mark.parametrize(
    ("source", "names", "mode"),
    [
        ("from solution import f\ndef test(): assert f(1)", ("f",), "separate"),
        ("from solution import *\ndef test(): assert f(g(1))", ("f", "g"), "separate"),
        ("import solution as s\ndef test(): assert s.f(1)", ("f",), "separate"),
        ("def test(): assert f(1)", ("f",), "separate"),
        ("from solution import f as g\ndef test(): assert g(1)", ("f",), "separate"),
        ("import solution\ndef test(): assert hasattr(solution, 'f') and solution.f(1)", ("f",), "separate"),
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


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"test": "see below", "entry_point": ""}, "the nearest format is HumanEval (test + entry_point)"),
        ({"inputs": ["1"], "question": "?"}, "inputs and outputs (inputs + outputs), and lacks outputs"),
        ({"label": "42"}, "the nearest format is label (label), whose values are not tests"),
        ({"question": "?"}, "expected one of [tests + language; tests; base_input"),
    ],
)
def test_an_unknown_row_names_the_nearest_format(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadTests) as info:
        load_tests(columns)
    assert reason in str(info.value)
    assert str(sorted(columns)) in str(info.value)


def test_integers_of_any_length_are_read() -> None:
    digits = "7" * 5000
    loaded = load_tests({"input_output": f'{{"fn_name": "f", "inputs": [[1]], "outputs": [{digits}]}}'})
    (test,) = loaded.tests
    assert isinstance(test, CallTest)
    assert test.expected % 10**9 == 777777777
    assert not matches_value(encode(1), test.expected, rules="json")
