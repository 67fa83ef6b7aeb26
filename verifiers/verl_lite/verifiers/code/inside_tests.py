"""Runs inside the sandbox: the tests' own process, where calls to the program are looked up.

In "separate" mode the program is not here. Each of its functions is a stand-in that answers from
the table of calls already made; a call that is not in the table is noted and its assert skipped.
The reply then asks for those calls; outside, each is made in a process of the program, and this
process is run again with the longer table, until nothing is missing. So the expected values and the
program never share a process, while the tests stay plain Python.

In "together" mode the program is loaded right here: the tests trust it.
"""

import ast
import builtins
import functools
import json
import math
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from verl_lite.verifiers.code.inside_program import load_program, read_request, send_reply
from verl_lite.verifiers.code.wire import NotPlainData, decode, encode


class MissingCall(BaseException):
    """A call whose answer is not known yet. No `except Exception` of a test can swallow it."""


class Unsupported(BaseException):
    """The tests do something that cannot be done with the program in another process."""


# Unicode errors need five arguments; SystemExit and its kin would end the tests themselves.
_RAISED = {
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
}


class Calls:
    """The table of the program's answers, and the calls that it lacks."""

    def __init__(self, answers: dict[str, Any], max_calls: int, allow_infinity: bool) -> None:
        self.answers = answers
        self.missing: dict[str, Any] = {}
        self.made = 0
        self.max_calls = max_calls
        self.allow_infinity = allow_infinity

    def stand_in(self, path: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._answer(path, args, kwargs)

        call.__name__ = path.rpartition(".")[2]
        return call

    def _answer(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            request = {
                "function": path,
                "args": [encode(arg) for arg in args],
                "kwargs": {name: encode(value) for name, value in kwargs.items()},
            }
        except NotPlainData as error:
            raise Unsupported(f"{path} is called with {error}") from None
        key = json.dumps(request, sort_keys=True)
        self.made += 1
        if key not in self.answers:
            if len(self.missing) >= self.max_calls:
                raise Unsupported(f"more than {self.max_calls} different calls")
            self.missing[key] = request
            raise MissingCall
        answer = self.answers[key]
        if '["inf", ' in json.dumps(answer) and not self.allow_infinity:
            raise AssertionError(f"{path} gave an infinite number")
        return _replay(answer, args)


def _replay(answer: dict[str, Any], args: tuple[Any, ...]) -> Any:
    """What the program did: return, raise, or change an argument in place."""
    if "raised" in answer:
        kind = getattr(builtins, answer["raised"], RuntimeError)
        error: Any = kind(answer["message"]) if kind in _RAISED else RuntimeError(answer["message"])
        error.from_program = True
        raise error
    for index, after in answer.get("changed", {}).items():
        _change_in_place(args[int(index)], decode(after))
    return decode(answer["value"])


def _change_in_place(value: Any, after: Any) -> None:
    value.clear()
    if isinstance(value, list):
        value.extend(after)
    else:
        value.update(after)


class _Methods:
    """Stands in for a class used as `Name().method(...)`, a fresh object for each call."""

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls, self._name = calls, name

    def __call__(self) -> "_Methods":
        return self

    def __getattr__(self, method: str) -> Any:
        return self._calls.stand_in(f"{self._name}.{method}")


class _SkipWhileMissing(ast.NodeTransformer):
    """Wraps each assert, so that one missing answer does not hide the calls of those after it."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return self._wrap(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """`self.assertEqual(...)` and its family."""
        called = node.value.func if isinstance(node.value, ast.Call) else None
        is_assert = isinstance(called, ast.Attribute) and called.attr.startswith("assert")
        return self._wrap(node) if is_assert else node

    def _wrap(self, node: ast.stmt) -> ast.AST:
        skip = ast.ExceptHandler(
            type=ast.Name(id="verl_lite_missing_call", ctx=ast.Load()), name=None, body=[ast.Pass()]
        )
        return ast.Try(body=[node], handlers=[skip], orelse=[], finalbody=[])


class _Approx:
    """The small part of pytest.approx that test files of data sets use."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float = 1e-6, abs: float = 1e-12) -> None:
        self.expected, self.rel, self.abs = expected, rel, abs

    def __eq__(self, other: object) -> bool:
        return self._close(self.expected, other)

    def _close(self, expected: Any, got: Any) -> bool:
        if isinstance(expected, (list, tuple)):
            same = type(expected) is type(got) and len(expected) == len(got)
            return same and all(map(self._close, expected, got))
        if isinstance(expected, dict):
            same = isinstance(got, dict) and expected.keys() == got.keys()
            return same and all(self._close(expected[key], got[key]) for key in expected)
        if type(got) in (int, float) and type(expected) in (int, float):
            return math.isclose(expected, got, rel_tol=self.rel, abs_tol=self.abs)
        return bool(expected == got)


class _Raises:
    """pytest.raises as a context manager or a call."""

    def __init__(self, expected: Any, match: str | None = None) -> None:
        self.expected, self.value = expected, None

    def __enter__(self) -> "_Raises":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if kind is None:
            raise AssertionError(f"did not raise {self.expected}")
        self.value = error
        return issubclass(kind, self.expected)


def _raises(expected: Any, function: Any = None, *args: Any, **kwargs: Any) -> Any:
    context = _Raises(expected)
    if function is None:
        return context
    with context:
        function(*args, **kwargs)
    return context


def _parametrize(names: Any, rows: Any, **_: Any) -> Callable[[Any], Any]:
    fields = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

    def mark(function: Any) -> Any:
        values = [row if len(fields) > 1 else (row,) for row in rows]
        function.__verl_lite_rows__ = [dict(zip(fields, row, strict=True)) for row in values]
        return function

    return mark


def pytest_stand_in() -> types.ModuleType:
    """A module `pytest` with raises, approx and mark.parametrize; there is no pytest in here."""
    module = types.ModuleType("pytest")
    mark = types.SimpleNamespace(parametrize=_parametrize)
    module.__dict__.update(raises=_raises, approx=_Approx, mark=mark)
    return module


def _test_functions(namespace: dict[str, Any]) -> list[tuple[str, Callable[[], Any]]]:
    """The tests a file defines, in its order: functions, methods of plain classes, unittest cases."""
    found: list[tuple[str, Callable[[], Any]]] = []
    unittest = sys.modules.get("unittest")  # imported only where the tests did: it is slow to load
    test_case: Any = unittest.TestCase if unittest else ()
    for name, value in namespace.items():
        if isinstance(value, types.FunctionType) and name.startswith("test"):
            found += _each_row(name, value)
        elif isinstance(value, type) and unittest and issubclass(value, test_case):
            methods = unittest.defaultTestLoader.getTestCaseNames(value)
            found += [(f"{name}.{method}", value(method).debug) for method in methods]
        elif isinstance(value, type) and name.startswith("Test"):
            methods = [method for method in vars(value) if method.startswith("test")]
            for method in methods:
                found += _each_row(f"{name}.{method}", getattr(value(), method))
    return found


def _each_row(name: str, function: Any) -> list[tuple[str, Callable[[], Any]]]:
    rows = getattr(function, "__verl_lite_rows__", [{}])
    return [(name, functools.partial(function, **row)) for row in rows]


def _prepare(request: dict[str, Any], calls: Calls) -> dict[str, Any]:
    """The namespace the tests run in, with the program in it or stood in for."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    module_name = request["module"]
    if "pytest" in request["source"]:
        sys.modules["pytest"] = pytest_stand_in()
    if request["mode"] == "together":
        module = load_program(request)
        namespace.update({k: v for k, v in module.__dict__.items() if not k.startswith("__")})
        exec(compile(request["setup"], "<setup>", "exec"), namespace)
        return namespace
    for text in (request["prelude"], request["setup"]):
        exec(compile(text, "<setup>", "exec"), namespace)
    module = types.ModuleType(module_name)
    for name in request["names"]:
        setattr(module, name, calls.stand_in(name))
    for name in request["classes"]:
        setattr(module, name, _Methods(calls, name))
    sys.modules[module_name] = module
    namespace.update({name: getattr(module, name) for name in request["names"] + request["classes"]})
    return namespace


def _run_tests(request: dict[str, Any], namespace: dict[str, Any], calls: Calls) -> dict[str, Any]:
    tree = ast.parse(request["source"])
    if request["mode"] == "separate":
        tree = ast.fix_missing_locations(_SkipWhileMissing().visit(tree))
    namespace["verl_lite_missing_call"] = MissingCall
    steps: list[tuple[str, Callable[[], Any]]]
    code = compile(tree, "<tests>", "exec")
    steps = [("", lambda: exec(code, namespace))]
    ran = 0
    while steps:
        name, step = steps.pop(0)
        try:
            step()
        except MissingCall:
            pass
        except Exception as error:  # noqa: BLE001  a test may fail with anything
            if _lacks_module(request, error):
                return {"status": "not_ready", "message": f"the tests: {error}"}
            if not calls.missing or isinstance(error, AssertionError):
                return {"status": "failed", "message": _message(name, error)}
        if name == "" and request["collect"]:
            steps = _test_functions(namespace)
        ran += 1 if name or not request["collect"] else 0
    if calls.missing:
        return {"status": "calls", "calls": list(calls.missing.values())}
    return {"status": "passed", "ran": ran, "made": calls.made}


def _lacks_module(request: dict[str, Any], error: Exception) -> bool:
    """The tests import what is not there: no fault of a program that is not even here."""
    own = request["mode"] == "separate" and isinstance(error, ImportError)
    return own and not hasattr(error, "from_program")


def _message(name: str, error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (f"{name}: {text}" if name else text)[:500]


def main() -> None:
    request = read_request()
    random.seed(0)  # the tests run several times and must make the same calls each time
    calls = Calls(request["answers"], request["max_calls"], "inf" in request["source"])
    try:
        try:
            namespace = _prepare(request, calls)
        except Exception as error:  # noqa: BLE001  the program or the set-up may raise anything
            where = "the program" if request["mode"] == "together" else "the tests' set-up"
            send_reply({"status": "not_ready", "message": f"{where}: {_message('', error)}"})
        else:
            send_reply(_run_tests(request, namespace, calls))
    except Unsupported as error:
        send_reply({"status": "unsupported", "message": str(error)})
    os._exit(0)


if __name__ == "__main__":
    main()
