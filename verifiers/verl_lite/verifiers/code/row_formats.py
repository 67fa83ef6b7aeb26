"""Readers of a row's tests, one per data-set shape. They index freely: `loading` catches the errors."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verl_lite.verifiers.code.asserts import split_asserts
from verl_lite.verifiers.code.packed_cases import unpack_private_cases
from verl_lite.verifiers.code.types import AssertTest, CallTest, CodeTest, ObjectTest, StdinTest, UnitTestFile

# What starter code in data sets assumes, above all `List[int]` in signatures.
LEETCODE_PRELUDE = (
    "from typing import *\nfrom collections import *\nfrom heapq import *\nfrom bisect import *\n"
    "from itertools import *\nfrom functools import *\nfrom math import inf, gcd, sqrt, ceil, floor\n"
    "import collections, functools, heapq, itertools, math, re, string, bisect, random, operator\n"
)


class BadTests(ValueError):
    """A row whose tests cannot be used; the message says what was expected and what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTests:
    """The tests of one row, the shape they were read from, and the CodeOptions that go with them."""

    tests: tuple[CodeTest, ...]
    shape: str
    prelude: str = ""
    continues: str = ""


# -- our own shape ----------------------------------------------------------------------------------


def read_own(columns: Mapping[str, Any]) -> LoadedTests:
    rows = _from_json(columns["tests"])
    if isinstance(rows, str):
        return _read_asserts([rows], "verl-lite")
    if not isinstance(rows, Sequence):
        raise BadTests(f"tests: expected a list, got {type(rows).__name__}")
    tests: list[CodeTest] = []
    for index, row in enumerate(rows):
        tests += _own_test(row, index)
    return LoadedTests(tests=tuple(tests), shape="verl-lite", prelude=str(columns.get("prelude") or ""))


def _own_test(row: Any, index: int) -> list[CodeTest]:
    if isinstance(row, str):
        return split_asserts(AssertTest(source=row))
    if not isinstance(row, Mapping):
        raise BadTests(f"tests[{index}]: expected an object or an assert line, got {type(row).__name__}")
    fields = {key: value for key, value in row.items() if value is not None}
    if "kind" not in fields:
        return [_case(fields, index)]
    kind = fields.pop("kind")
    if kind == "asserts":
        return split_asserts(AssertTest(**_tuples(fields)))
    makers: dict[str, Any] = {
        "stdin": StdinTest, "call": CallTest, "object": ObjectTest, "unit_tests": UnitTestFile,
    }  # fmt: skip
    if kind not in makers:
        known = ", ".join(sorted([*makers, "asserts"]))
        raise BadTests(f"tests[{index}].kind is {kind!r}; expected one of {known}")
    if kind in ("call", "object") and "expected" not in fields:
        raise BadTests(f"tests[{index}] has no 'expected'")
    if kind == "object":
        fields["calls"] = tuple((str(method), tuple(args)) for method, args in fields.get("calls", ()))
    try:
        return [makers[kind](**_tuples(fields, keep=("expected", "calls") if kind == "call" else ("calls",)))]
    except TypeError as error:
        raise BadTests(f"tests[{index}] ({kind}): {error}") from None


def _tuples(fields: Mapping[str, Any], keep: Sequence[str] = ()) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) and k not in keep else v for k, v in fields.items()}


def _case(row: Mapping[str, Any], index: int) -> CodeTest:
    """One {input, output} case, as in LiveCodeBench and DeepCoder."""
    if "input" not in row or "output" not in row:
        raise BadTests(f"tests[{index}]: expected 'kind', or 'input' and 'output'; got {sorted(row)}")
    kind = row.get("testtype") or row.get("type") or "stdin"
    function = row.get("fn_name") or _metadata(row).get("func_name")
    if kind in ("functional", "function_call") or (function and kind != "stdin"):
        if not function:
            raise BadTests(f"tests[{index}] is functional but no func_name is given")
        return _functional(str(function), row["input"], row["output"])
    return StdinTest(stdin=_text(row["input"]), expected=_text(row["output"]))


# -- HumanEval and MBPP -----------------------------------------------------------------------------


def read_humaneval(columns: Mapping[str, Any]) -> LoadedTests:
    name, source = str(columns["entry_point"]), str(columns["test"])
    prompt = columns.get("prompt")
    prelude = _stub(prompt, name)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise BadTests(f"test is not Python: {error}") from None
    check = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
    if check is None:
        raise BadTests("test defines no check(candidate)")
    tests = _plain_checks(check, name)
    if tests is None:
        tests = [AssertTest(source=f"{source}\n\ncheck({name})\n", names=(name,))]
    continues = str(prompt) if prelude else ""
    return LoadedTests(tests=tuple(tests), shape="humaneval", prelude=prelude, continues=continues)


def _stub(prompt: object, name: str) -> str:
    """The prompt as a module that defines `name`; "" when the prompt is something else, such as a chat."""
    if not isinstance(prompt, str):
        return ""
    for text in (prompt, f"{prompt.rstrip()}\n    pass\n"):  # a stub without even a docstring
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError):
            continue
        return text if any(isinstance(node, ast.FunctionDef) and node.name == name for node in body) else ""
    return ""


def _plain_checks(check: ast.FunctionDef, name: str) -> list[CodeTest] | None:
    """One test per assert if check() contains nothing else (skipping `assert True` and docstrings)."""
    parameter = check.args.args[0].arg
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
        tests += split_asserts(AssertTest(source=ast.unparse(node), names=(name,)))
    return tests if all(isinstance(test, CallTest) for test in tests) and tests else None


def read_mbpp(columns: Mapping[str, Any]) -> LoadedTests:
    setup = [*_strings(columns.get("test_imports") or ()), str(columns.get("test_setup_code") or "")]
    lines = _strings(_from_json(columns["test_list"]))
    lines += _strings(columns.get("challenge_test_list") or ())
    return _read_asserts(lines, "mbpp", setup="\n".join(setup).strip())


def _read_asserts(lines: Sequence[str], shape: str, setup: str = "") -> LoadedTests:
    tests: list[CodeTest] = []
    for line in lines:
        tests += split_asserts(AssertTest(source=line, setup=setup))
    return LoadedTests(tests=tuple(tests), shape=shape)


def _strings(values: Any) -> list[str]:
    if isinstance(values, str):
        return [values]
    for value in values:
        if not isinstance(value, str):
            raise BadTests(f"expected lines of text, got {type(value).__name__}: {value!r:.60}")
    return list(values)


# -- APPS, LiveCodeBench, verl ----------------------------------------------------------------------


def read_apps(columns: Mapping[str, Any]) -> LoadedTests:
    return _inputs_outputs(_from_json(columns["input_output"]), "apps")


def read_ground_truth(truth: Any) -> LoadedTests:
    data = _from_json(truth)
    if isinstance(data, str):
        return _read_asserts([data], "verl")
    if isinstance(data, Sequence):
        return read_own({"tests": data})
    if isinstance(data, Mapping) and data.get("assert_case"):
        return _read_asserts(_strings(data["assert_case"]), "verl")
    if isinstance(data, Mapping) and "functional" in data:
        return _read_asserts([str(data["functional"])], "verl")
    return _inputs_outputs(data, "verl")


def _inputs_outputs(data: Any, shape: str) -> LoadedTests:
    if not isinstance(data, Mapping) or "inputs" not in data or "outputs" not in data:
        raise BadTests(f"{shape}: expected an object with inputs and outputs, got {data!r:.80}")
    inputs, outputs = data["inputs"], data["outputs"]
    if len(inputs) != len(outputs):
        raise BadTests(f"{shape}: {len(inputs)} inputs but {len(outputs)} outputs")
    function = data.get("fn_name")
    if not function:
        tests: list[CodeTest] = [
            StdinTest(stdin=_text(given), expected=_text(wanted))
            for given, wanted in zip(inputs, outputs, strict=True)
        ]
        return LoadedTests(tests=tuple(tests), shape=shape)
    # APPS wraps each result in a list of one; where every output is such a list, accept both readings.
    calls = [_functional(str(function), given, wanted) for given, wanted in zip(inputs, outputs, strict=True)]
    wrapped = all(isinstance(call.expected, list) and len(call.expected) == 1 for call in calls)
    tests = [replace(call, also=(call.expected[0],)) if wrapped else call for call in calls]
    return LoadedTests(tests=tuple(tests), shape=shape, prelude=LEETCODE_PRELUDE)


def _json_args(given: Any) -> tuple[Any, ...]:
    if isinstance(given, str):
        return tuple(json.loads(line) for line in given.strip().split("\n"))
    if not isinstance(given, (list, tuple)):
        raise BadTests(f"expected a list of arguments, got {type(given).__name__}")
    return tuple(given)


def _functional(function: str, given: Any, wanted: Any) -> CallTest:
    """`given` and `wanted` as values, or as JSON text with one argument per line (LiveCodeBench, verl)."""
    expected = json.loads(wanted) if isinstance(given, str) and isinstance(wanted, str) else wanted
    return CallTest(function=function, args=_json_args(given), expected=expected)


def read_livecodebench(columns: Mapping[str, Any]) -> LoadedTests:
    rows = list(_from_json(columns["public_test_cases"]))
    if columns.get("private_test_cases"):
        rows += _private_cases(columns["private_test_cases"])
    function = _metadata(columns).get("func_name")
    tests: list[CodeTest] = []
    for index, row in enumerate(rows):
        if function and row.get("testtype") != "stdin":
            tests.append(_functional(str(function), row["input"], row["output"]))
        else:
            tests.append(_case(row, index))
    return LoadedTests(
        tests=tuple(tests), shape="livecodebench", prelude=LEETCODE_PRELUDE if function else ""
    )


def _private_cases(packed: Any) -> list[Any]:
    """JSON, or the data set's packed form of it."""
    cases = _from_json(packed)
    if isinstance(cases, str):
        try:
            cases = unpack_private_cases(cases)
        except ValueError as error:
            raise BadTests(f"private_test_cases: not JSON and not the packed form: {error}") from None
    return list(cases)


def _metadata(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = columns.get("metadata")
    data = _from_json(metadata) if metadata else {}
    return data if isinstance(data, Mapping) else {}


def read_unit_tests(columns: Mapping[str, Any]) -> LoadedTests:
    module = str(columns.get("module") or "solution")
    test = UnitTestFile(source=str(columns["unit_tests"]), module=module)
    return LoadedTests(tests=(test,), shape="unit tests")


def _from_json(value: Any) -> Any:
    """`value`, parsed if it is JSON text; other text stays text."""
    if hasattr(value, "tolist"):  # an array, as pandas reads from Parquet
        value = value.tolist()
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "\n".join(str(line) for line in value)
    return str(value)
