"""Runs inside the sandbox: finds the tests of a file and runs them with their fixtures."""

import contextlib
import inspect
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from verl_lite.verifiers.code.inside_pytest import BROUGHT, Fixture, Skipped

Step = tuple[str, Callable[[], Any]]


def test_steps(namespace: dict[str, Any]) -> list[Step]:
    """The tests that a file defines, in order: functions, methods of plain classes, unittest cases."""
    unittest = sys.modules.get("unittest.case")  # only if the tests imported it: it is slow to load
    test_case: Any = unittest.TestCase if unittest else ()
    runner = _Runner(namespace)
    found: list[Step] = []
    for name, value in list(namespace.items()):
        if isinstance(value, types.FunctionType) and name.startswith("test"):
            found += runner.steps(name, value, None)
        elif isinstance(value, type) and unittest and issubclass(value, test_case):
            if value.__module__ == "tests":
                found += _case_steps(name, value)
        elif isinstance(value, type) and name.startswith("Test") and value.__module__ == "tests":
            for method, function in inspect.getmembers(value, inspect.isfunction):
                if method.startswith("test"):
                    found += runner.steps(f"{name}.{method}", function, value)
    return [*found, ("the tests' end", runner.close)] if found else []


test_steps.__test__ = False  # type: ignore[attr-defined]


def _case_steps(name: str, kind: Any) -> list[Step]:
    """A unittest case: one step per method, the class's set-up and the module's before the first."""
    import unittest

    methods = unittest.defaultTestLoader.getTestCaseNames(kind)

    def run() -> None:
        suite = unittest.TestSuite(kind(method) for method in methods)
        result = _new_result()
        suite.run(result)
        if result.error is not None:
            raise result.error
        if result.count == 0:
            raise Skipped

    return [(name, run)] if methods else []


def _new_result() -> Any:
    import unittest

    class Result(unittest.TestResult):
        """Keeps the first exception itself, which the base class has only as text."""

        error: BaseException | None = None
        count = 0

        def startTest(self, test: Any) -> None:
            super().startTest(test)
            self.count += 1

        def _keep(self, test: Any, error: Any) -> None:
            if self.error is None:
                self.error = error[1]
                self.error.__verl_lite_name__ = getattr(test, "_testMethodName", "")  # type: ignore[union-attr]
            self.stop()

        addError = addFailure = _keep  # type: ignore[assignment]

        def addSubTest(self, test: Any, subtest: Any, error: Any) -> None:
            if error is not None:
                self._keep(test, error)

        def addSkip(self, test: Any, reason: str) -> None:
            self.count -= 1

        def addUnexpectedSuccess(self, test: Any) -> None:
            self._keep(test, (None, AssertionError("passed, but is expected to fail"), None))

    return Result()


class _Request:
    """The `request` of a fixture."""

    def __init__(self, runner: "_Runner", values: dict[str, Any], param: Any) -> None:
        self._runner, self._values, self.param = runner, values, param

    def getfixturevalue(self, name: str) -> Any:
        return self._runner.value(name, self._values)

    def addfinalizer(self, function: Callable[[], Any]) -> None:
        self._runner.ends.callback(function)


class _Runner:
    """Runs tests with the fixtures of a file; those of a wider scope than a test are made once."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._fixtures = {v.name: v for v in namespace.values() if isinstance(v, Fixture)}
        self._namespace = namespace
        self._shared: dict[str, Any] = {}
        self._shared_ends = contextlib.ExitStack()
        self.ends = contextlib.ExitStack()
        self._instance: Any = None
        self._set_up: set[Any] = set()

    def close(self) -> None:
        self._shared_ends.close()
        self._hook(self._namespace, "teardown_module")

    def steps(self, name: str, function: Any, owner: type | None) -> list[Step]:
        """One step per row of the marks and of the fixtures' parameters."""
        marks = [*getattr(owner, "__verl_lite_marks__", ()), *getattr(function, "__verl_lite_marks__", ())]
        if any(mark.skips for mark in marks):
            return []
        fixtures = {**self._fixtures, **self._of_class(owner)}
        used = [name for mark in marks if mark.name == "usefixtures" for name in mark.args]
        used += [fixture.name for fixture in fixtures.values() if fixture.autouse]
        choices = [mark.rows() for mark in reversed(marks) if mark.name == "parametrize"]
        rows = [
            {key: value for row, _ in chosen for key, value in row.items()}
            for chosen in itertools.product(*choices)
            if not any(skipped for _, skipped in chosen)
        ]
        found: list[Step] = []
        for row in rows:
            for params in self._params(function, used, fixtures, row):
                found.append((name, self._step(function, owner, fixtures, used, row, params)))
        return found

    def _of_class(self, owner: type | None) -> dict[str, Fixture]:
        members = [vars(part) for part in reversed(owner.__mro__)] if owner else []
        return {v.name: v for part in members for v in part.values() if isinstance(v, Fixture)}

    def _params(
        self, function: Any, used: list[str], fixtures: dict[str, Fixture], row: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Every combination of the parameters of the fixtures that a test uses, directly or not."""
        waiting, seen = [*used, *_arguments(function)], {}
        while waiting:
            name = waiting.pop()
            if name in fixtures and name not in seen and name not in row:
                seen[name] = fixtures[name].params
                waiting += _arguments(fixtures[name].function)
        names = [name for name, params in seen.items() if params is not None]
        for chosen in itertools.product(*(seen[name] or () for name in names)):
            values = [v.values[0] if hasattr(v, "marks") else v for v in chosen]
            yield dict(zip(names, values, strict=True))

    def _step(
        self, function: Any, owner: type | None, fixtures: dict[str, Fixture], used: list[str],
        row: dict[str, Any], params: dict[str, Any],
    ) -> Callable[[], Any]:  # fmt: skip
        def run() -> None:
            self._current = fixtures, params
            self._instance = owner() if owner else None
            self._once(owner)
            with contextlib.ExitStack() as self.ends:
                for hooks, before, after in (
                    (self._namespace if owner is None else {}, "setup_function", "teardown_function"),
                    (_bound(self._instance), "setup_method", "teardown_method"),
                    (_bound(self._instance), "setup", "teardown"),
                ):
                    self._hook(hooks, before, function)
                    self.ends.callback(self._hook, hooks, after, function)
                params.update({name: value for name, value in row.items() if name in fixtures})
                values = {name: value for name, value in row.items() if name not in fixtures}
                for name in used:
                    self.value(name, values)
                given = {name: self.value(name, values) for name in _arguments(function)}
                bound = function if self._instance is None else function.__get__(self._instance)
                answer = bound(**given)
                if inspect.iscoroutine(answer):
                    _run_to_end(answer)

        return run

    def _once(self, owner: type | None) -> None:
        for key, hooks, name in (
            (None, self._namespace, "setup_module"),
            (owner, _bound(owner), "setup_class"),
        ):
            if key not in self._set_up:
                self._set_up.add(key)
                self._hook(hooks, name)

    @staticmethod
    def _hook(hooks: Any, name: str, *args: Any) -> None:
        hook = hooks.get(name)
        if callable(hook):
            hook(*args) if len(inspect.signature(hook).parameters) else hook()

    def value(self, name: str, values: dict[str, Any]) -> Any:
        """The value of the fixture or parameter `name` for the test that runs."""
        if name in values:
            return values[name]
        if name in self._shared:
            return self._shared[name]
        fixtures, params = self._current
        if name == "request":
            return _Request(self, values, params.get(name))
        if name not in fixtures:
            if name not in BROUGHT:
                raise LookupError(f"no fixture {name!r}")
            values[name] = BROUGHT[name]()
            if hasattr(values[name], "close"):
                self.ends.callback(values[name].close)
            return values[name]
        fixture = fixtures[name]
        wide = fixture.scope != "function" and fixture.params is None
        made = self._make(fixture, values, self._shared_ends if wide else self.ends)
        (self._shared if wide else values)[name] = made
        return made

    def _make(self, fixture: Fixture, values: dict[str, Any], ends: contextlib.ExitStack) -> Any:
        request = _Request(self, values, self._current[1].get(fixture.name))
        given = {
            name: request if name == "request" else self.value(name, values)
            for name in _arguments(fixture.function)
        }
        needs_self = next(iter(inspect.signature(fixture.function).parameters), "") == "self"
        bound = fixture.function.__get__(self._instance) if needs_self else fixture.function
        made = bound(**given)
        if inspect.iscoroutine(made):
            return _run_to_end(made)
        if inspect.isgenerator(made):
            value = next(made)
            ends.callback(next, made, None)
            return value
        return made


def _run_to_end(coroutine: Any) -> Any:
    import asyncio  # slow to load, and few tests need it

    return asyncio.run(coroutine)


def _arguments(function: Any) -> list[str]:
    """The names of the arguments that fixtures or rows give: those without a default.

    `mock.patch` as a decorator gives the first ones itself.
    """
    parameters = inspect.signature(function).parameters.values()
    wanted = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [p.name for p in parameters if p.kind in wanted and p.default is p.empty]
    patched = [p for p in getattr(function, "patchings", ()) if repr(p.new) == "sentinel.DEFAULT"]
    return [name for name in names if name not in ("self", "cls")][len(patched) :]


def _bound(owner: Any) -> dict[str, Any]:
    return {name: getattr(owner, name) for name in dir(owner) if name.startswith(("setup", "teardown"))}
