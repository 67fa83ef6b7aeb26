"""Encodes values as data: arguments into the sandbox, results out of it.

Only exact builtin types are encoded, and a few standard-library types, converted to builtins. An
instance of a subclass, which could have its own `__eq__`, is refused. The sources that run inside the
sandbox start with this file, so it imports only the standard library.

A value is JSON: null, true, strings and finite floats as themselves, small integers as themselves,
everything else as a tagged list: ["l", [items]], ["t", [items]], ["d", [[key, value], ...]], ...
"""

import collections
import decimal
import fractions
import math
from typing import Any

MAX_DEPTH = 100  # of nested values
_MAX_ITEMS = 1_000_000
_SMALL = 1 << 53

_LISTS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "fs", collections.deque: "l"}
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_LAZY: tuple[type, ...] = (
    range,
    map,
    filter,
    zip,
    enumerate,
    reversed,
    type(iter([])),
    type(iter(())),
    type(reversed([])),
    type(iter("")),
    type(iter(range(0))),
    type({}.keys()),
    type({}.values()),
    type({}.items()),
    type(_ for _ in ()),
)

_MAKERS: dict[str, Any] = {"t": tuple, "s": set, "fs": frozenset, "it": iter}


class NotPlainData(TypeError):
    """A value that cannot be encoded; the message says what it is."""


def encode(value: Any, depth: int = 0) -> Any:
    """`value` as JSON-serialisable data. Raises NotPlainData for anything that is not plain data."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else ["i", hex(value)]
    if kind is float:
        if math.isfinite(value):
            return value
        if math.isnan(value):
            raise NotPlainData("nan")
        return ["inf", value > 0]
    if depth >= MAX_DEPTH:
        raise NotPlainData(f"a value nested deeper than {MAX_DEPTH}")
    return _encode_compound(value, kind, depth + 1)


def _encode_compound(value: Any, kind: type, depth: int) -> Any:
    if kind in _LISTS:
        return [_LISTS[kind], [encode(item, depth) for item in value]]
    if kind in _MAPPINGS:
        return ["d", [[encode(key, depth), encode(item, depth)] for key, item in dict.items(value)]]
    if kind in _LAZY:
        return ["it", [encode(item, depth) for item in _bounded(value)]]
    if kind is bytes or kind is bytearray:
        return ["b", bytes(value).hex()]
    if kind is complex:
        return ["c", encode(value.real), encode(value.imag)]
    if kind is decimal.Decimal and value.is_finite():
        return ["dec", str(value)]
    if kind is fractions.Fraction:
        return ["fr", hex(value.numerator), hex(value.denominator)]
    if tuple in kind.__mro__ and hasattr(kind, "_fields"):  # a named tuple
        return ["t", [encode(item, depth) for item in tuple.__iter__(value)]]
    raise NotPlainData(_describe(value, kind))


def _bounded(values: Any) -> Any:
    for count, item in enumerate(values):
        if count >= _MAX_ITEMS:
            raise NotPlainData(f"an iterator of more than {_MAX_ITEMS} items")
        yield item


def _describe(value: Any, kind: type) -> str:
    bases = [base.__name__ for base in kind.__mro__[1:] if base.__module__ == "builtins"]
    if bases and bases[0] != "object":
        return f"an instance of {kind.__name__}, a subclass of {bases[0]}"
    return f"an instance of {kind.__name__}"


def decode(data: Any, depth: int = 0) -> Any:
    """The inverse of `encode`. Raises NotPlainData or ValueError for malformed data."""
    if data is None or type(data) in (bool, str, int, float):
        return data
    if type(data) is not list or len(data) < 2 or type(data[0]) is not str or depth > MAX_DEPTH:
        raise NotPlainData("a malformed value")
    tag, items = data[0], data[1]
    if tag in ("l", "t", "s", "fs", "it"):
        decoded = [decode(item, depth + 1) for item in items]
        if tag == "l":
            return decoded
        return _MAKERS[tag](decoded)
    if tag == "d":
        return {decode(key, depth + 1): decode(item, depth + 1) for key, item in items}
    return _decode_atom(tag, data)


def _decode_atom(tag: str, data: list[Any]) -> Any:
    if tag == "i":
        return int(data[1], 16)
    if tag == "inf":
        return math.inf if data[1] else -math.inf
    if tag == "b":
        return bytes.fromhex(data[1])
    if tag == "c":
        return complex(decode(data[1]), decode(data[2]))
    if tag == "dec":
        return decimal.Decimal(data[1])
    if tag == "fr":
        return fractions.Fraction(int(data[1], 16), int(data[2], 16))
    raise NotPlainData("a malformed value")
