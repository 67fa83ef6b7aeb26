"""The formats of data sets: which columns tell one, and how its rows are read."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verl_lite.verifiers.code.asserts import split_asserts
from verl_lite.verifiers.code.packed_cases import unpack_private_cases
from verl_lite.verifiers.code.row_values import (
    LEETCODE_PRELUDE,
    BadTests,
    Columns,
    LoadedTests,
    from_json,
    has_test_functions,
    read_asserts,
    read_case,
    read_cases,
    read_check,
    read_code,
    read_inputs_outputs,
    read_value,
    strings,
)
from verl_lite.verifiers.code.types import (
    AssertTest,
    CallTest,
    CodeTest,
    ObjectTest,
    ProgramTest,
    StdinTest,
    UnitTestFile,
)

Reader = Callable[[Columns], LoadedTests]


@dataclass(frozen=True, slots=True)
class Format:
    """A row is of this format if it has all `columns`, with values that `fits`."""

    name: str
    columns: tuple[str, ...]
    read: Reader
    fits: Callable[[Columns], bool] = lambda columns: True


def _value_of(column: str, shape: str) -> Reader:
    return lambda columns: read_value(columns[column], shape, columns=_beside(columns, column))


def _beside(columns: Columns, column: str) -> Columns:
    """The other columns of a row, where a value may leave something to them: the function's name."""
    return {name: value for name, value in columns.items() if name != column}


def _read_own(columns: Columns) -> LoadedTests:
    rows = from_json(columns["tests"])
    if isinstance(rows, str):
        return read_code(rows, "verl-lite")
    if isinstance(rows, Mapping):
        return read_value(rows, "verl-lite", columns=_beside(columns, "tests"))
    if not isinstance(rows, Sequence):
        raise BadTests(f"tests: expected a list, got {type(rows).__name__}")
    if rows and not any(isinstance(row, Mapping) and "kind" in row for row in rows):
        return read_cases(rows, "verl-lite", _beside(columns, "tests"))
    tests = [test for index, row in enumerate(rows) for test in _own_test(row, index)]
    return LoadedTests(tests=tuple(tests), shape="verl-lite", prelude=str(columns.get("prelude") or ""))


def _own_test(row: Any, index: int) -> list[CodeTest]:
    if isinstance(row, str):
        return split_asserts(AssertTest(source=row))
    if not isinstance(row, Mapping) or "kind" not in row:
        return [read_case(row, index, {})]
    fields = {key: value for key, value in row.items() if value is not None}
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


def _tuples(fields: Columns, keep: Sequence[str] = ()) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) and k not in keep else v for k, v in fields.items()}


def _read_mbpp(columns: Columns) -> LoadedTests:
    """MBPP's asserts and, in MBPP+, the script `test` beside them."""
    imports = strings(from_json(columns.get("test_imports") or ()))
    setup = "\n".join([*imports, str(columns.get("test_setup_code") or "")]).strip()
    lines = strings(from_json(columns["test_list"])) + strings(columns.get("challenge_test_list") or ())
    loaded = read_asserts(lines, "mbpp", setup=setup)
    script = columns.get("test")
    if not isinstance(script, str) or not script.strip():
        return loaded
    called = [test.function for test in loaded.tests if isinstance(test, CallTest)]
    defined = re.findall(r"^def (\w+)", str(columns.get("code") or ""), re.MULTILINE)
    wanted = next((name for name in [*called, *defined] if re.search(rf"\b{name}\(", script)), "")
    whole = AssertTest(source=script, setup=setup, names=(wanted.partition(".")[0],) if wanted else ())
    return replace(loaded, tests=(*loaded.tests, *split_asserts(whole)), shape="mbpp+")


def _read_evalplus(columns: Columns) -> LoadedTests:
    """EvalPlus' releases: inputs, and a reference program whose results are the expected ones.

    The reference program runs in the tests' process; an input it does not take is left out.
    """
    name = str(columns["entry_point"])
    inputs = [*(from_json(columns["base_input"]) or ()), *(from_json(columns.get("plus_input")) or ())]
    prompt = str(columns.get("prompt") or "")
    reference = str(columns["canonical_solution"])
    if not re.search(rf"^def {name}\b", reference, re.MULTILINE):
        reference = prompt + reference
    tolerance = max(float(str(columns.get("atol") or 0)), 1e-6)
    setup = f"_candidate = {name}\n{reference}\n_reference = {name}\n"
    source = _EVALPLUS.format(inputs=inputs, tolerance=tolerance)
    stub = f"{prompt.rstrip()}\n    pass\n"
    test = AssertTest(source=source, setup=setup, names=(name,))
    continues = prompt if re.search(rf"^def {name}\b", prompt, re.MULTILINE) else ""
    return LoadedTests(
        tests=(test,), shape="evalplus", prelude=stub if continues else "", continues=continues
    )


_EVALPLUS = """\
import copy, math
_INPUTS = {inputs!r}
def _same(got, wanted):  # nan and inf like any other number
    if isinstance(wanted, float) and type(got) in (int, float):
        return got == wanted or math.isclose(got, wanted, rel_tol=1e-7, abs_tol={tolerance!r})
    if isinstance(wanted, (list, tuple)) and type(got) is type(wanted):
        return len(got) == len(wanted) and all(map(_same, got, wanted))
    return got == wanted
_answered = 0
for _given in _INPUTS:
    try:
        _wanted = _reference(*copy.deepcopy(_given))
    except Exception:
        continue
    _answered += 1
    _got = _candidate(*_given)
    assert _same(_got, _wanted), f"returned {{_got!r:.80}} for {{_given!r:.80}}, expected {{_wanted!r:.80}}"
assert _answered, "the reference program takes none of the inputs"
"""


def _read_livecodebench(columns: Columns) -> LoadedTests:
    rows = list(from_json(columns["public_test_cases"]))
    if columns.get("private_test_cases"):
        rows += _private_cases(columns["private_test_cases"])
    beside = {"metadata": columns.get("metadata")}
    tests = [read_case(row, index, beside) for index, row in enumerate(rows)]
    calls = any(isinstance(test, CallTest) for test in tests)
    return LoadedTests(tests=tuple(tests), shape="livecodebench", prelude=LEETCODE_PRELUDE if calls else "")


def _private_cases(packed: Any) -> list[Any]:
    """JSON, or the data set's packed form of it."""
    cases = from_json(packed)
    if isinstance(cases, str):
        try:
            cases = unpack_private_cases(cases)
        except ValueError as error:
            raise BadTests(f"private_test_cases: not JSON and not the packed form: {error}") from None
    return list(cases)


def _read_codecontests(columns: Columns) -> LoadedTests:
    """Public, private and generated tests, each as lists of inputs and outputs or as a list of cases."""
    tests: list[CodeTest] = []
    for name in ("public_tests", "private_tests", "generated_tests"):
        value = from_json(columns.get(name))
        if value:
            tests += read_value(value, "codecontests").tests
    return LoadedTests(tests=tuple(tests), shape="codecontests")


def _read_codeforces(columns: Columns) -> LoadedTests:
    """open-r1's Codeforces: official tests, with the generated checker where the problem has many answers."""
    if not columns.get("official_tests_complete", True):
        raise BadTests("codeforces: official_tests_complete is false: the tests that are cut off are missing")
    loaded = read_value(columns["official_tests"], "codeforces")
    checker = columns.get("generated_checker")
    if not checker:
        return loaded
    tests = [
        replace(test, compare="checker", checker=str(checker))
        for test in loaded.tests
        if isinstance(test, StdinTest)
    ]
    return replace(loaded, tests=tuple(tests))


def _read_test(columns: Columns) -> LoadedTests:
    """`test` alone: KodCode's test file, or SandboxFusion's list of cases."""
    labels = from_json(columns.get("labels"))
    beside = {**columns, **(labels if isinstance(labels, Mapping) else {})}
    if beside.get("entry_point"):
        return read_check(beside, "sandboxfusion")
    return read_value(columns["test"], "test", columns=_beside(beside, "test"))


def _read_unit_tests(columns: Columns) -> LoadedTests:
    """A test file, or OpenCodeInstruct's list of asserts."""
    value = from_json(columns["unit_tests"])
    if not isinstance(value, str):
        return read_value(value, "unit tests")
    module = str(columns.get("module") or "solution")
    return LoadedTests(tests=(UnitTestFile(source=value, module=module),), shape="unit tests")


def _is_structured(column: str) -> Callable[[Columns], bool]:
    """For columns that other data sets use for a plain answer."""
    return lambda columns: isinstance(from_json(columns[column]), (Mapping, list))


def _is_code(columns: Columns) -> bool:
    value = from_json(columns["test"])
    if not isinstance(value, str):
        return bool(value)
    try:
        tree = ast.parse(value)
    except (SyntaxError, ValueError):
        return False
    return has_test_functions(tree) or any(isinstance(node, ast.Assert) for node in ast.walk(tree))


_LANGUAGES = {
    "cpp": "cpp", "c++": "cpp", "c": "c", "js": "javascript", "javascript": "javascript", "ts": "typescript",
    "typescript": "typescript", "go": "go", "go_test.go": "go", "rs": "rust", "rust": "rust", "java": "java",
    "sh": "bash", "bash": "bash",
}  # fmt: skip


def _read_multiple(columns: Columns) -> LoadedTests:
    """MultiPL-E: test code in the program's language, after the program."""
    test = ProgramTest(source=str(columns["tests"]), prompt=str(columns.get("prompt") or ""))
    language = _LANGUAGES[str(columns["language"]).lower()]
    return LoadedTests(tests=(test,), shape="multipl-e", language=language)


def _is_other_language(columns: Columns) -> bool:
    return str(columns["language"]).lower() in _LANGUAGES and isinstance(from_json(columns["tests"]), str)


def _read_reward_model(columns: Columns) -> LoadedTests:
    return read_value(from_json(columns["reward_model"])["ground_truth"], "verl", columns=columns)


FORMATS: tuple[Format, ...] = (
    Format("MultiPL-E", ("tests", "language"), _read_multiple, _is_other_language),
    Format("verl-lite", ("tests",), _read_own),
    Format("EvalPlus", ("base_input", "canonical_solution", "entry_point"), _read_evalplus),
    Format("HumanEval", ("test", "entry_point"), lambda columns: read_check(columns, "humaneval")),
    Format("MBPP", ("test_list",), _read_mbpp),
    Format("APPS", ("input_output",), _value_of("input_output", "apps")),
    Format("LiveCodeBench", ("public_test_cases",), _read_livecodebench),
    Format("CodeContests", ("public_tests",), _read_codecontests),
    Format("CodeContests", ("private_tests",), _read_codecontests),
    Format("Codeforces", ("official_tests",), _read_codeforces),
    Format("unit tests", ("unit_tests",), _read_unit_tests),
    Format("test cases", ("test_cases",), _value_of("test_cases", "test cases")),
    Format("verification_info", ("verification_info",), _value_of("verification_info", "verification_info")),
    Format("verl", ("reward_model",), _read_reward_model),
    Format("ground_truth", ("ground_truth",), _value_of("ground_truth", "verl")),
    Format("test", ("test",), _read_test, _is_code),
    Format("inputs and outputs", ("inputs", "outputs"), lambda row: read_inputs_outputs(row, "cases", row)),
    Format("label", ("label",), _value_of("label", "label"), _is_structured("label")),
)
