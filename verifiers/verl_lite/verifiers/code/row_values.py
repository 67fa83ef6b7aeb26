"""Reads the values in which rows hold tests: cases, asserts, checks, test files.

The readers index freely: `loading` catches the errors.
"""

import ast
import decimal
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verl_lite.verifiers.code.asserts import split_asserts
from verl_lite.verifiers.code.types import AssertTest, CallTest, CodeTest, StdinTest, UnitTestFile

# What starter code of data sets assumes. The builtins come last: math has a `pow` of its own.
LEETCODE_PRELUDE = (
    "from typing import *\nfrom string import *\nfrom collections import *\nfrom heapq import *\n"
    "from bisect import *\nfrom itertools import *\nfrom functools import *\nfrom operator import *\n"
    "from math import *\nfrom builtins import *\n"
    "import bisect, collections, copy, functools, heapq, itertools, json, math, operator, random, re\n"
    "import string, sys\n"
    "try:\n    import sortedcontainers\n    from sortedcontainers import *\nexcept ImportError:\n    pass\n"
)
Columns = Mapping[str, object]  # of a row, or of what a column holds
# The names under which rows hold the input and the output of a case.
_CASE_KEYS = (
    ("input", "output"), ("input", "expected_output"), ("input", "expected"), ("inputs", "outputs"),
    ("stdin", "stdout"), ("stdin", "expected"), ("test_input", "test_output"), ("in", "out"),
)  # fmt: skip
_NESTED_KEYS = "test_cases tests cases ground_truth verification_info official_tests unit_tests".split()
_FUNCTION_KEYS = ("fn_name", "func_name", "function_name", "entry_func")


class BadTests(ValueError):
    """A row whose tests cannot be used; the message says what was expected and what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTests:
    """The tests of one row, the shape they were read from, and the CodeOptions that go with them."""

    tests: tuple[CodeTest, ...]
    shape: str
    prelude: str = ""
    continues: str = ""
    language: str = ""  # of the programs, where the row says so


def from_json(value: Any) -> Any:
    """`value`, parsed if it is JSON text, or a dict or list as Python prints it; other text stays text."""
    if hasattr(value, "tolist"):  # an array, as pandas reads from Parquet
        value = value.tolist()
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_int=_integer)
    except (ValueError, RecursionError):
        return _from_repr(value)


def _from_repr(text: str) -> Any:
    if not text.lstrip().startswith(("{'", '{"', "[{'", "['")):
        return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _integer(digits: str) -> int:
    """An integer of any length; `int` itself reads 4,300 digits."""
    return int(digits) if len(digits) < 4000 else int(decimal.Decimal(digits))


def as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "\n".join(str(line) for line in value)
    return str(value)


def strings(values: Any) -> list[str]:
    if isinstance(values, str):
        return [values]
    for value in values:
        if not isinstance(value, str):
            raise BadTests(f"expected lines of text, got {type(value).__name__}: {value!r:.60}")
    return list(values)


def read_value(value: object, shape: str, *, columns: Columns | None = None) -> LoadedTests:
    """The tests in `value`: JSON or not, a list of cases or asserts, inputs and outputs, test code."""
    columns = columns or {}
    data = from_json(value)
    if isinstance(data, str):
        return read_code(data, shape)
    if isinstance(data, Mapping):
        return _read_object(data, shape, columns)
    if not isinstance(data, Sequence):
        raise BadTests(
            f"{shape}: expected an object with inputs and outputs, cases or asserts, got {data!r:.80}"
        )
    if all(isinstance(row, str) for row in data):
        return read_asserts(list(data), shape)
    return read_cases(data, shape, columns)


def _read_object(data: Columns, shape: str, columns: Columns) -> LoadedTests:
    for key in ("test_code", "functional", "assert_case", "assert", "asserts", "check"):
        if data.get(key):
            return _read_code_of(data, key, shape, columns)
    for key in _NESTED_KEYS:
        if data.get(key):
            return read_value(data[key], shape, columns={**columns, **data})
    return read_inputs_outputs(data, shape, columns)


def _read_code_of(data: Columns, key: str, shape: str, columns: Columns) -> LoadedTests:
    entry = data.get("entry_point") or columns.get("entry_point")
    value = from_json(data[key])
    if entry and isinstance(value, str):
        prelude = str(data.get("import_prefix") or data.get("imports") or "")
        return read_check({**columns, **data, "test": value, "entry_point": entry, "prompt": prelude}, shape)
    if isinstance(value, str):
        return read_code(value, shape)
    return read_asserts(strings(value), shape)


def read_code(source: str, shape: str) -> LoadedTests:
    """Test code: a test file, or asserts."""
    expected = f"{shape}: expected an object with inputs and outputs, cases or asserts, got {source!r:.80}"
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadTests(f"{expected}, which is neither JSON nor Python: {error}") from None
    if has_test_functions(tree):
        return LoadedTests(tests=(UnitTestFile(source=source),), shape=shape)
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise BadTests(expected)
    return read_asserts([source], shape)


def has_test_functions(tree: ast.Module) -> bool:
    """Whether a module has `test_*` functions or classes of tests."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
            return True
        if isinstance(node, ast.ClassDef):
            based = any("TestCase" in ast.unparse(base) for base in node.bases)
            if based or node.name.startswith("Test"):
                return True
    return False


def read_asserts(lines: Sequence[str], shape: str, setup: str = "") -> LoadedTests:
    tests: list[CodeTest] = []
    for line in lines:
        tests += split_asserts(AssertTest(source=line.strip("\n"), setup=setup))
    return LoadedTests(tests=tuple(tests), shape=shape)


def read_cases(rows: Sequence[object], shape: str, columns: Columns) -> LoadedTests:
    """A list of cases, each an object with an input and an output."""
    tests: list[CodeTest] = []
    for index, row in enumerate(rows):
        if isinstance(row, str):
            tests += split_asserts(AssertTest(source=row))
        else:
            tests.append(read_case(row, index, columns))
    return _with_prelude(tests, shape)


def _with_prelude(tests: Sequence[CodeTest], shape: str) -> LoadedTests:
    tests = _unwrapped(tests)
    calls = any(isinstance(test, CallTest) and not test.source for test in tests)
    return LoadedTests(tests=tuple(tests), shape=shape, prelude=LEETCODE_PRELUDE if calls else "")


def _unwrapped(tests: Sequence[CodeTest]) -> list[CodeTest]:
    """APPS wraps each result in a list of one; where every output is such a list, accept both readings."""
    calls = [test for test in tests if isinstance(test, CallTest)]
    wrapped = all(isinstance(call.expected, list) and len(call.expected) == 1 for call in calls)
    if not calls or not wrapped or len(calls) < len(tests):
        return list(tests)
    return [replace(call, also=(call.expected[0],)) for call in calls]


def _case_keys(row: Columns) -> tuple[str, str] | None:
    return next((pair for pair in _CASE_KEYS if pair[0] in row and pair[1] in row), None)


def read_case(row: object, index: int, columns: Columns) -> CodeTest:
    """One case, as in LiveCodeBench, DeepCoder, SYNTHETIC and Codeforces."""
    if not isinstance(row, Mapping):
        raise BadTests(f"tests[{index}]: expected an object or an assert line, got {type(row).__name__}")
    keys = _case_keys(row)
    if keys is None:
        raise BadTests(f"tests[{index}]: expected 'kind', or 'input' and 'output'; got {sorted(row)}")
    given, wanted = row[keys[0]], row[keys[1]]
    if isinstance(given, Mapping) and isinstance(wanted, Mapping):  # SandboxFusion
        return read_case({**given, **wanted}, index, columns)
    kind = row.get("testtype") or row.get("type") or ""
    function = _function(row) or _function(columns)
    if kind in ("functional", "function_call") or (function and kind not in ("stdin", "stdin_stdout")):
        if not function:
            raise BadTests(f"tests[{index}] is functional but no func_name is given")
        return functional(str(function), given, wanted)
    return StdinTest(stdin=as_text(given), expected=as_text(wanted))


def _function(row: Mapping[str, Any]) -> str:
    """The function that a row or its metadata names; "" for a program that reads stdin."""
    metadata = from_json(row.get("metadata")) if row.get("metadata") else {}
    for part in (row, metadata if isinstance(metadata, Mapping) else {}):
        for key in _FUNCTION_KEYS:
            if part.get(key):
                return str(part[key])
    return ""


def _starter_function(columns: Columns) -> str:
    """The function of the starter code, if it has just one."""
    try:
        tree = ast.parse(str(columns.get("starter_code") or "").rstrip() + "\n        pass")
    except (SyntaxError, ValueError):
        return ""
    found = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name != "__init__"]
    return found[0] if len(found) == 1 else ""


def functional(function: str, given: object, wanted: object) -> CallTest:
    """`given` and `wanted` as values, or as JSON text with one argument per line (LiveCodeBench, verl)."""
    expected = from_json(wanted) if isinstance(given, str) and isinstance(wanted, str) else wanted
    function = function.replace("()", "")
    if isinstance(given, str):
        lines = [line for line in given.strip().split("\n") if line.strip()]
        given = [json.loads(line, parse_int=_integer) for line in lines]
    if isinstance(given, Mapping):
        return CallTest(function=function, kwargs=dict(given), expected=expected)
    if not isinstance(given, (list, tuple)):
        raise BadTests(f"expected a list of arguments, got {type(given).__name__}")
    return CallTest(function=function, args=tuple(given), expected=expected)


def read_inputs_outputs(data: Any, shape: str, columns: Mapping[str, Any] | None = None) -> LoadedTests:
    """Inputs and outputs in two lists, as in APPS, TACO and verl."""
    columns = columns or {}
    keys = _case_keys(data) if isinstance(data, Mapping) else None
    if keys is None:
        found = sorted(data) if isinstance(data, Mapping) else f"{data!r:.80}"
        raise BadTests(f"{shape}: expected an object with inputs and outputs, got {found}")
    inputs, outputs = from_json(data[keys[0]]), from_json(data[keys[1]])
    if isinstance(inputs, str) and isinstance(outputs, str):
        inputs, outputs = [inputs], [outputs]
    if len(inputs) != len(outputs):
        raise BadTests(f"{shape}: {len(inputs)} inputs but {len(outputs)} outputs")
    function = _function(data) or _function(columns)
    if not function and inputs and not all(_is_stdin(given) for given in inputs):
        function = _starter_function(columns)
    pairs = list(zip(inputs, outputs, strict=True))
    if not function:
        tests: list[CodeTest] = [StdinTest(stdin=as_text(a), expected=as_text(b)) for a, b in pairs]
        return LoadedTests(tests=tuple(tests), shape=shape)
    return _with_prelude([functional(function, a, b) for a, b in pairs], shape)


def _is_stdin(given: Any) -> bool:
    """Text, or lines of text."""
    return isinstance(given, str) or (
        isinstance(given, (list, tuple)) and all(isinstance(g, str) for g in given)
    )


def read_check(columns: Columns, shape: str) -> LoadedTests:
    """`test` with `check(candidate)`, a test file or asserts, for the function `entry_point`."""
    name, source = str(columns["entry_point"]), str(columns["test"])
    prelude, continues = _prompt_parts(columns.get("prompt"), name)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise BadTests(f"test is not Python: {error}") from None
    check = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
    tests: Sequence[CodeTest] | None
    owner = name.partition("(")[0].partition(".")[0]
    if check is not None:
        others = [n for n in tree.body if n is not check and not isinstance(n, (ast.Assign, ast.Expr))]
        tests = None if others else _plain_checks(check, name)
        called = any(isinstance(n, ast.Expr) and ast.unparse(n).startswith("check(") for n in tree.body)
        call = "" if called else f"\n\ncheck({name})\n"
        tests = tests or [AssertTest(source=f"{source}{call}", names=(owner,))]
    elif has_test_functions(tree):
        tests = [UnitTestFile(source=source)]
    elif any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        reads_candidate = any(isinstance(n, ast.Name) and n.id == "candidate" for n in ast.walk(tree))
        given = f"candidate = {name}\n" if reads_candidate else ""
        tests = split_asserts(AssertTest(source=given + source, names=(owner,)))
    else:
        raise BadTests("test defines no check(candidate), no test function and no assert")
    return LoadedTests(tests=tuple(tests), shape=shape, prelude=prelude, continues=continues)


def _prompt_parts(prompt: object, name: str) -> tuple[str, str]:
    """The prelude that the prompt is, and what the response continues; neither for a chat or prose."""
    if not isinstance(prompt, str):
        return "", ""
    for text in (prompt, f"{prompt.rstrip()}\n    pass\n"):  # a stub without even a docstring
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError):
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == name for node in body):
            return text, prompt
        code = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
        return (text, "") if any(isinstance(node, code) for node in body) else ("", "")
    return "", ""


def _plain_checks(check: ast.FunctionDef, name: str) -> list[CodeTest] | None:
    """One test per assert if check() contains nothing else (skipping `assert True` and docstrings)."""
    parameter = check.args.args[0].arg
    names = (name,) if name.isidentifier() else ()
    tests: list[CodeTest] = []
    for node in check.body:
        if isinstance(node, ast.Pass) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            continue
        if not isinstance(node, ast.Assert):
            return None
        if isinstance(node.test, ast.Constant) and node.test.value:
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id == parameter:
                part.id = name
        tests += split_asserts(AssertTest(source=ast.unparse(node), names=names))
    return tests if all(isinstance(test, CallTest) for test in tests) and tests else None
