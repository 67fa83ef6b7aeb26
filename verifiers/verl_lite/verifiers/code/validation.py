"""Checks tests before any program runs. Unusable ones give the outcome bad_reference."""

import ast
import math
import re
from collections.abc import Sequence
from typing import Any, get_args

from verl_lite.verifiers.code.asserts import NotReadable, read_test_code
from verl_lite.verifiers.code.extract import LANGUAGE_TAGS
from verl_lite.verifiers.code.types import (
    AssertTest,
    CallTest,
    CodeOptions,
    CodeTest,
    Comparison,
    ObjectTest,
    ProgramTest,
    StdinTest,
    UnitTestFile,
)
from verl_lite.verifiers.code.wire import NotPlainData, encode

_NAME = re.compile(r"[^\W\d]\w*")
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def find_suite_problem(tests: Sequence[CodeTest]) -> str:
    """Why these tests as a whole cannot grade a program; "" when they can."""
    if not tests:
        return "no tests: an empty list would pass any program"
    if all(isinstance(t, StdinTest) and t.compare != "checker" and not t.expected.strip() for t in tests):
        return "every expected output is empty: a program that does nothing would pass"
    if all(isinstance(t, CallTest) and t.result_in is None and t.expected is None for t in tests):
        return "every expected result is None: a function that does nothing would pass"
    return ""


def find_problem(test: object, options: CodeOptions) -> str:
    """What makes `test` unusable; "" when nothing does. Its fields may have any type: rows are data."""
    try:
        return _find_problem(test, options)
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        return f"malformed {type(test).__name__}: {error}"


def _find_problem(test: object, options: CodeOptions) -> str:
    if options.language not in LANGUAGE_TAGS:
        return f"language {options.language!r}: expected one of {', '.join(sorted(LANGUAGE_TAGS))}"
    if options.language != "python" and not isinstance(test, (StdinTest, ProgramTest)):
        return f"a {options.language} program can be graded by stdin tests and test programs only"
    if isinstance(test, ProgramTest):
        return "" if test.source.strip() else "empty test code"
    if isinstance(test, StdinTest):
        return _stdin_problem(test)
    if isinstance(test, CallTest):
        return _call_problem(test)
    if isinstance(test, ObjectTest):
        return _object_problem(test)
    if isinstance(test, (AssertTest, UnitTestFile)):
        return _code_problem(test, options)
    return f"expected a test, got {type(test).__name__}"


def _stdin_problem(test: StdinTest) -> str:
    if not all(isinstance(text, str) for text in (test.stdin, test.expected)):
        return "stdin and expected must be text"
    if test.compare not in get_args(Comparison):
        return f"compare={test.compare!r}: expected one of {', '.join(get_args(Comparison))}"
    if (test.compare == "checker") != (test.checker is not None):
        return "compare='checker' and a checker belong together"
    if isinstance(test.checker, str):
        try:
            ast.parse(test.checker)
        except SyntaxError as error:
            return f"the checker is not Python: {error}"
    if test.compare == "floats" and any(_NOT_FINITE.fullmatch(token) for token in test.expected.split()):
        return "the expected output holds nan or inf, which no tolerance can compare"
    return _tolerance_problem(test.tolerance)


def _tolerance_problem(tolerance: Any) -> str:
    if not math.isfinite(tolerance) or tolerance < 0:
        return f"tolerance={tolerance!r}: expected a finite number from 0 up"
    return ""


def _call_problem(test: CallTest) -> str:
    if not _PATH.fullmatch(test.function):
        return f"function {test.function!r}: expected 'name' or 'Class.method'"
    if test.rules not in ("json", "python"):
        return f"rules={test.rules!r}: expected 'json' or 'python'"
    if test.result_in is not None and not 0 <= test.result_in < len(test.args):
        return f"result_in={test.result_in}, but the call has {len(test.args)} arguments"
    return _tolerance_problem(test.tolerance) or _values_problem(
        [("argument", [*test.args, *test.kwargs.values()]), ("expected", [test.expected, *test.also])]
    )


def _object_problem(test: ObjectTest) -> str:
    for name in (test.class_name, *(method for method, _ in test.calls)):
        if not _NAME.fullmatch(name):
            return f"{name!r}: expected the name of a class or method"
    if not test.calls or len(test.calls) != len(test.expected):
        return f"{len(test.calls)} calls but {len(test.expected)} expected values"
    if not any(value is not None for value in test.expected):
        return "every expected result is None: methods that do nothing would pass"
    given = [*test.args, *(arg for _, args in test.calls for arg in args)]
    return _tolerance_problem(test.tolerance) or _values_problem(
        [("argument", given), ("expected", test.expected)]
    )


def _values_problem(groups: Sequence[tuple[str, Sequence[object]]]) -> str:
    for what, values in groups:
        for value in values:
            try:
                encode(value)
            except NotPlainData as error:
                return f"{what} value is {error}; plain data is needed"
            if what == "expected" and _not_finite(value):
                return "an expected value holds nan or an infinite number"
    return ""


def _not_finite(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_not_finite(item) for pair in value.items() for item in pair)
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_not_finite, value))


def _code_problem(test: AssertTest | UnitTestFile, options: CodeOptions) -> str:
    if not test.source.strip():
        return "empty test code"
    try:
        read_test_code(test, options.prelude)
    except NotReadable as error:
        return str(error)
    return ""
