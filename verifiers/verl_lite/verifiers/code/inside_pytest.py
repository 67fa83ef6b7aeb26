"""Runs inside the sandbox: the part of pytest that test files of data sets use."""

import math
import types
from collections.abc import Callable
from typing import Any


class _Approx:
    """pytest.approx for numbers and for sequences and mappings of them."""

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


def pytest_stub() -> types.ModuleType:
    module = types.ModuleType("pytest")
    mark = types.SimpleNamespace(parametrize=_parametrize)
    module.__dict__.update(raises=_raises, approx=_Approx, mark=mark)
    return module
