"""Runs inside the sandbox: the part of pytest that test files of data sets use."""

import contextlib
import io
import math
import os
import re
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any


class Skipped(BaseException):
    """A test that says it does not apply."""


class _Approx:
    """pytest.approx for numbers and for sequences and mappings of them."""

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None

    def __init__(
        self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False
    ) -> None:
        self.expected, self.nan_ok = expected, nan_ok
        self.rel = (1e-6 if abs is None else 0.0) if rel is None else rel
        self.abs = 1e-12 if abs is None else abs

    def __eq__(self, other: object) -> bool:
        return self._close(self.expected, other)

    def _close(self, expected: Any, got: Any) -> bool:
        if hasattr(expected, "tolist"):
            expected, got = expected.tolist(), getattr(got, "tolist", lambda: got)()
        if isinstance(expected, (list, tuple)):
            same = isinstance(got, (list, tuple)) and len(expected) == len(got)
            return same and all(map(self._close, expected, got))
        if isinstance(expected, dict):
            same = isinstance(got, dict) and expected.keys() == got.keys()
            return same and all(self._close(expected[key], got[key]) for key in expected)
        if expected == got:
            return True
        try:
            if self.nan_ok and math.isnan(expected) and math.isnan(got):
                return True
            return bool(abs(expected - got) <= max(self.rel * abs(expected), self.abs))
        except (TypeError, OverflowError, ArithmeticError):
            return False

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"


class _Raises:
    """pytest.raises and, with `warned`, pytest.warns."""

    def __init__(self, expected: Any, match: str | None = None) -> None:
        self.expected, self.match_pattern = expected, match
        self.value: Any = None
        self.type: Any = None

    def __enter__(self) -> "_Raises":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if kind is None:
            raise AssertionError(f"did not raise {self.expected}")
        self.value, self.type = error, kind
        if not issubclass(kind, self.expected):
            return False
        if self.match_pattern is not None:
            self.match(self.match_pattern)
        return True

    def match(self, pattern: str) -> bool:
        if not re.search(pattern, str(self.value)):
            raise AssertionError(f"the message {str(self.value)!r} does not match {pattern!r}")
        return True


def _raises(expected: Any, *args: Any, match: str | None = None, **kwargs: Any) -> Any:
    context = _Raises(expected, match)
    if not args:
        return context
    with context:
        args[0](*args[1:], **kwargs)
    return context


@contextlib.contextmanager
def _warns(expected: Any = Warning, match: str | None = None) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    fitting = [w for w in caught if issubclass(w.category, expected)]
    if not any(match is None or re.search(match, str(w.message)) for w in fitting):
        raise AssertionError(f"did not warn {expected}")


def _fail(reason: str = "", **_: Any) -> None:
    raise AssertionError(reason)


def _skip(reason: str = "", **_: Any) -> None:
    raise Skipped(reason)


def _import_or_skip(name: str, *_: Any, **__: Any) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise Skipped(f"no module {name}") from None


class _Param:
    """pytest.param: one row of a parametrised test."""

    def __init__(self, *values: Any, marks: Any = (), id: Any = None) -> None:
        self.values = values
        self.marks = marks if isinstance(marks, (list, tuple)) else [marks]


class _Mark:
    """One mark, with or without arguments; all but a few have no meaning here."""

    def __init__(self, name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs or {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            marked: Any = args[0]
            marked.__verl_lite_marks__ = [self, *getattr(marked, "__verl_lite_marks__", ())]
            return marked
        return _Mark(self.name, args, kwargs)

    @property
    def skips(self) -> bool:
        return self.name == "skip" or (self.name == "skipif" and bool(self.args and self.args[0]))

    def rows(self) -> list[tuple[dict[str, Any], bool]]:
        """The arguments of each row of a parametrize mark, and whether the row is skipped."""
        names = self.kwargs.get("argnames", self.args[0] if self.args else "")
        values = self.kwargs.get("argvalues", self.args[1] if len(self.args) > 1 else ())
        fields = [n.strip() for n in names.split(",") if n.strip()] if isinstance(names, str) else list(names)
        found = []
        for value in values:
            row = value.values if isinstance(value, _Param) else value if len(fields) > 1 else (value,)
            skipped = isinstance(value, _Param) and any(mark.skips for mark in value.marks)
            found.append((dict(zip(fields, row, strict=True)), skipped))
        return found


class _Marks:
    def __getattr__(self, name: str) -> _Mark:
        return _Mark(name)


class Fixture:
    """A fixture function with what pytest.fixture was told."""

    def __init__(self, function: Any, scope: str, params: Any, autouse: bool, name: str | None) -> None:
        self.function, self.scope, self.autouse = function, scope, autouse
        self.params = None if params is None else list(params)
        self.name = name or function.__name__


def _fixture(
    function: Any = None, *, scope: str = "function", params: Any = None, autouse: bool = False,
    name: str | None = None, ids: Any = None,
) -> Any:  # fmt: skip
    def make(function: Any) -> Fixture:
        return Fixture(function, scope, params, autouse, name)

    return make if function is None else make(function)


class _Captured(tuple[str, str]):
    out = property(lambda self: self[0])
    err = property(lambda self: self[1])


class _Capture:
    """capsys: what is printed goes to memory."""

    def __init__(self) -> None:
        self._kept = sys.stdout, sys.stderr
        self._open()

    def _open(self) -> None:
        self._streams = io.StringIO(), io.StringIO()
        sys.stdout, sys.stderr = self._streams

    def readouterr(self) -> _Captured:
        captured = _Captured(stream.getvalue() for stream in self._streams)
        self._open()
        return captured

    def close(self) -> None:
        sys.stdout, sys.stderr = self._kept


class _MonkeyPatch:
    """monkeypatch: changes that are undone after the test."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def setattr(self, target: Any, name: Any, value: Any = ..., raising: bool = True) -> None:
        if value is ...:  # setattr("module.name", value)
            target, value = target, name
            path, _, name = target.rpartition(".")
            target = __import__(path, fromlist=["_"])
        had = hasattr(target, name)
        before = getattr(target, name, None)
        setattr(target, name, value)
        self._undo.append(lambda: setattr(target, name, before) if had else delattr(target, name))

    def delattr(self, target: Any, name: str, raising: bool = True) -> None:
        before = getattr(target, name)
        delattr(target, name)
        self._undo.append(lambda: setattr(target, name, before))

    def setitem(self, mapping: Any, key: Any, value: Any) -> None:
        before = dict(mapping)
        mapping[key] = value
        self._undo.append(lambda: (mapping.clear(), mapping.update(before)))

    def delitem(self, mapping: Any, key: Any, raising: bool = True) -> None:
        before = dict(mapping)
        mapping.pop(key, None)
        self._undo.append(lambda: (mapping.clear(), mapping.update(before)))

    def setenv(self, name: str, value: Any, prepend: Any = None) -> None:
        self.setitem(os.environ, name, str(value))

    def delenv(self, name: str, raising: bool = True) -> None:
        self.delitem(os.environ, name)

    def chdir(self, path: Any) -> None:
        before = os.getcwd()
        os.chdir(path)
        self._undo.append(lambda: os.chdir(before))

    def syspath_prepend(self, path: Any) -> None:
        """The program's folders are not this process's."""

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()

    close = undo


class _LogCapture:
    """caplog: what is logged, here and by the program."""

    def __init__(self) -> None:
        import logging

        self._logging = logging
        self.records: list[Any] = []
        self.handler = logging.Handler()
        self.handler.emit = self.records.append  # type: ignore[method-assign,assignment]
        self._level = logging.root.level
        logging.root.addHandler(self.handler)

    messages = property(lambda self: [record.getMessage() for record in self.records])
    text = property(lambda self: "\n".join(f"{r.levelname} {r.name}: {r.getMessage()}" for r in self.records))

    @property
    def record_tuples(self) -> list[Any]:
        return [(r.name, r.levelno, r.getMessage()) for r in self.records]

    def set_level(self, level: Any, logger: str | None = None) -> None:
        self._logging.getLogger(logger).setLevel(level)

    @contextlib.contextmanager
    def at_level(self, level: Any, logger: str | None = None) -> Any:
        before = self._logging.getLogger(logger).level
        self.set_level(level, logger)
        yield
        self.set_level(before, logger)

    def clear(self) -> None:
        self.records.clear()

    def close(self) -> None:
        self._logging.root.removeHandler(self.handler)
        self._logging.root.setLevel(self._level)


class _Mocker:
    """mocker of pytest-mock: patches that end with the test."""

    def __init__(self) -> None:
        from unittest import mock

        self._mock, self._started = mock, []  # type: ignore[var-annotated]
        self.patch = types.SimpleNamespace(
            object=self._starter(mock.patch.object), dict=self._starter(mock.patch.dict)
        )
        self.Mock, self.MagicMock, self.call = mock.Mock, mock.MagicMock, mock.call

    def _starter(self, make: Any) -> Any:
        def start(*args: Any, **kwargs: Any) -> Any:
            patcher = make(*args, **kwargs)
            self._started.append(patcher)
            return patcher.start()

        return start

    def close(self) -> None:
        while self._started:
            self._started.pop().stop()


def _temporary_folder() -> Any:
    import tempfile  # slow to load, and few tests need them
    from pathlib import Path

    return Path(tempfile.mkdtemp())


BROUGHT: dict[str, Callable[[], Any]] = {
    "capsys": _Capture,
    "capfd": _Capture,
    "caplog": _LogCapture,
    "monkeypatch": _MonkeyPatch,
    "mocker": _Mocker,
    "tmp_path": _temporary_folder,
    "tmpdir": _temporary_folder,
}


def pytest_stub() -> types.ModuleType:
    module = types.ModuleType("pytest")
    module.__dict__.update(
        raises=_raises, warns=_warns, approx=_Approx, mark=_Marks(), fixture=_fixture, param=_Param,
        fail=_fail, skip=_skip, importorskip=_import_or_skip, MonkeyPatch=_MonkeyPatch,
        CaptureFixture=_Capture, main=lambda *_, **__: 0, xfail=_skip,
    )  # fmt: skip
    return module
