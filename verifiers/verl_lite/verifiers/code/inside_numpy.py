"""Runs inside the sandbox: what the checks of data sets use of numpy, where it is not installed."""

import math
import types
from typing import Any


class _Array:
    """numpy.ndarray: nothing is one here."""


def _flat(value: object) -> list[object]:
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _flat(part)]
    return [value]


def _shape(value: object) -> object:
    return [_shape(part) for part in value] if isinstance(value, (list, tuple)) else None


def _close(got: Any, wanted: Any, rtol: float, atol: float, equal_nan: bool) -> bool:
    """numpy's rule: |got - wanted| <= atol + rtol * |wanted|."""
    if got == wanted:
        return True
    if isinstance(got, str) or isinstance(wanted, str) or got is None or wanted is None:
        raise TypeError("isclose: expected numbers")
    if _is_nan(got) or _is_nan(wanted):
        return equal_nan and _is_nan(got) and _is_nan(wanted)
    if math.isinf(abs(got)) or math.isinf(abs(wanted)):
        return False
    return bool(abs(got - wanted) <= atol + rtol * abs(wanted))


def _is_nan(value: object) -> bool:
    return bool(value != value)


def _allclose(
    got: object, wanted: object, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    left, right = _flat(got), _flat(wanted)
    if _shape(got) != _shape(wanted):
        if len(left) == 1 and not isinstance(got, (list, tuple)):
            left = left * len(right)
        elif len(right) == 1 and not isinstance(wanted, (list, tuple)):
            right = right * len(left)
        else:
            raise ValueError("operands could not be broadcast together")
    return all(_close(a, b, rtol, atol, equal_nan) for a, b in zip(left, right, strict=True))


def _assert_allclose(got: object, wanted: object, rtol: float = 1e-7, atol: float = 0.0, **_: object) -> None:
    if not _allclose(got, wanted, rtol, atol, equal_nan=True):
        raise AssertionError("not equal to tolerance")


NAMES: dict[str, object] = {
    "ndarray": _Array, "float64": float, "float32": float, "float16": float, "int64": int, "int32": int,
    "number": (int, float, complex), "floating": float, "integer": int, "bool_": bool,
    "allclose": _allclose, "isclose": lambda a, b, rtol=1e-5, atol=1e-8: _allclose(a, b, rtol, atol),
    "isnan": _is_nan, "inf": math.inf, "nan": math.nan, "pi": math.pi,
}  # fmt: skip


class _Stub(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"numpy.{name}: numpy is not installed in the sandbox (read_only_paths)", name="numpy"
        )


def numpy_stub() -> types.ModuleType:
    module = _Stub("numpy")
    module.__dict__.update(NAMES)
    module.__dict__["testing"] = types.SimpleNamespace(assert_allclose=_assert_allclose)
    return module
