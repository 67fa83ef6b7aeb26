"""Runs inside the sandbox: the tests' process, which looks up calls to the program in a table.

In "separate" mode the program is not in this process. Each of its functions is a stub that answers
from the table of calls already made; a call that is not in the table is recorded and its assert
skipped. The reply asks for the recorded calls; outside, each is made in a process of the program, and
this process is run again with the larger table, until no call is missing. So expected values and
program never share a process, while the tests stay plain Python.

In "together" mode the program is loaded into this process: the tests trust it.
"""

import ast
import builtins
import functools
import json
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from verl_lite.verifiers.code.inside_program import load_program, read_request, send_reply
from verl_lite.verifiers.code.inside_pytest import pytest_stub
from verl_lite.verifiers.code.wire import NotPlainData, decode, encode


class MissingCall(BaseException):
    """A call without an answer yet. A BaseException, so that no `except Exception` of a test catches it."""


class Unsupported(BaseException):
    """The tests do something that needs the program in their own process."""


# Unicode errors need five arguments; exceptions such as SystemExit would end the tests themselves.
_RAISED = {
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
}


class Calls:
    """The table of the program's answers, and the calls missing from it."""

    def __init__(self, answers: dict[str, Any], max_calls: int, allow_infinity: bool) -> None:
        self.answers = answers
        self.missing: dict[str, Any] = {}
        self.made = 0
        self.max_calls = max_calls
        self.allow_infinity = allow_infinity

    def stub(self, path: str) -> Callable[..., Any]:
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
    """Repeat what the program did: return, raise, or change an argument in place."""
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


class _ClassStub:
    """Stub of a class used as `Name().method(...)`, with a new object per call."""

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls, self._name = calls, name

    def __call__(self) -> "_ClassStub":
        return self

    def __getattr__(self, method: str) -> Any:
        return self._calls.stub(f"{self._name}.{method}")


class _SkipWhileMissing(ast.NodeTransformer):
    """Wraps each assert, so that a missing answer does not hide the calls of later asserts."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return self._wrap(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """`self.assertEqual(...)` and its relatives."""
        called = node.value.func if isinstance(node.value, ast.Call) else None
        is_assert = isinstance(called, ast.Attribute) and called.attr.startswith("assert")
        return self._wrap(node) if is_assert else node

    def _wrap(self, node: ast.stmt) -> ast.AST:
        skip = ast.ExceptHandler(
            type=ast.Name(id="verl_lite_missing_call", ctx=ast.Load()), name=None, body=[ast.Pass()]
        )
        return ast.Try(body=[node], handlers=[skip], orelse=[], finalbody=[])


def _test_functions(namespace: dict[str, Any]) -> list[tuple[str, Callable[[], Any]]]:
    """The tests that a file defines, in order: functions, methods of plain classes, unittest cases."""
    found: list[tuple[str, Callable[[], Any]]] = []
    unittest = sys.modules.get("unittest")  # only if the tests imported it: it is slow to load
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
    """The namespace the tests run in, with the program or with its stubs."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    module_name = request["module"]
    if "pytest" in request["source"]:
        sys.modules["pytest"] = pytest_stub()
    if request["mode"] == "together":
        module = load_program(request)
        namespace.update({k: v for k, v in module.__dict__.items() if not k.startswith("__")})
        exec(compile(request["setup"], "<setup>", "exec"), namespace)
        return namespace
    for text in (request["prelude"], request["setup"]):
        exec(compile(text, "<setup>", "exec"), namespace)
    module = types.ModuleType(module_name)
    for name in request["names"]:
        setattr(module, name, calls.stub(name))
    for name in request["classes"]:
        setattr(module, name, _ClassStub(calls, name))
    sys.modules[module_name] = module
    namespace.update({name: getattr(module, name) for name in request["names"] + request["classes"]})
    return namespace


def _run_tests(request: dict[str, Any], namespace: dict[str, Any], calls: Calls) -> dict[str, Any]:
    tree = ast.parse(request["source"])
    if request["mode"] == "separate":
        tree = ast.fix_missing_locations(_SkipWhileMissing().visit(tree))
    namespace["verl_lite_missing_call"] = MissingCall
    code = compile(tree, "<tests>", "exec")
    steps: list[tuple[str, Callable[[], Any]]] = [("", lambda: exec(code, namespace))]
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
    """Whether the tests import a missing module: in separate mode, not the program's fault."""
    own = request["mode"] == "separate" and isinstance(error, ImportError)
    return own and not hasattr(error, "from_program")


def _message(name: str, error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (f"{name}: {text}" if name else text)[:500]


def main() -> None:
    request = read_request()
    random.seed(0)  # the tests run several times and must repeat their calls
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
