"""Encodes values as data: arguments into the sandbox, results out of it.

Only builtin types and some of the standard library's are encoded. An instance of a subclass, which
could have its own `__eq__`, becomes the builtin value under it. The sources that run inside the sandbox
start with this file, so it imports only the standard library.

A value is JSON: null, true, strings and finite floats as themselves, small integers as themselves,
everything else as a tagged list: ["l", [items]], ["t", [items]], ["d", [[key, value], ...]], ...
"""

import collections
import decimal
import fractions
import importlib
import math
import sys
import types
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100  # of nested values
_MAX_ITEMS = 1_000_000
_SMALL = 1 << 53
# A value a test can keep and see changed: it keeps its identity within a call.
_CONTAINERS = (list, dict, set, bytearray, collections.deque)
_LISTS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "fs"}
_LAZY: tuple[type, ...] = (
    map, filter, zip, enumerate, reversed, types.GeneratorType,
    *(type(iter(kind())) for kind in (list, tuple, str, dict, set)), type(iter(range(0))), type(reversed([])),
)  # fmt: skip
_VIEWS: dict[type, str] = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}
_MAKERS: dict[str, Any] = {"t": tuple, "s": set, "fs": frozenset, "it": iter}
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda value: int.__index__(value) + 0),
    (float, float.__float__),
    (complex, complex.__complex__),
    (str, str.__str__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (bytearray, lambda value: bytearray.__getitem__(value, slice(None))),
    (list, lambda value: list.__getitem__(value, slice(None))),
    (tuple, lambda value: tuple.__getitem__(value, slice(None))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)


def _moment(value: Any) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, value.tzinfo]


def _date(value: Any) -> list[Any]:
    return [value.year, value.month, value.day]


# Types of the standard library, by name: importing them takes time. The constructor's arguments.
_KNOWN: dict[str, Callable[[Any], list[Any]]] = {
    "builtins.range": lambda value: [value.start, value.stop, value.step],
    "builtins.slice": lambda value: [value.start, value.stop, value.step],
    "collections.Counter": lambda value: [dict(dict.items(value))],
    "collections.OrderedDict": lambda value: [dict(dict.items(value))],
    "datetime.date": _date,
    "datetime.datetime": lambda value: [*_date(value), *_moment(value)],
    "datetime.time": _moment,
    "datetime.timedelta": lambda value: [value.days, value.seconds, value.microseconds],
    "datetime.timezone": lambda value: [value.utcoffset(None), value.tzname(None)],
    "zoneinfo.ZoneInfo": lambda value: [value.key],
    "uuid.UUID": lambda value: [value.hex],
    "pathlib.PosixPath": lambda value: [str(value)],
    "pathlib.PurePosixPath": lambda value: [str(value)],
    "array.array": lambda value: [value.typecode, value.tolist()],
    "ipaddress.IPv4Address": lambda value: [str(value)],
    "ipaddress.IPv6Address": lambda value: [str(value)],
    "ipaddress.IPv4Network": lambda value: [str(value)],
    "ipaddress.IPv6Network": lambda value: [str(value)],
    "time.struct_time": lambda value: [list(tuple.__iter__(value))],
}
_BUILTIN_TYPES = {
    kind.__name__: kind
    for kind in (int, float, str, bytes, list, tuple, dict, set, frozenset, bool, complex, bytearray, object)
} | {"NoneType": type(None)}


_FACTORIES = (int, float, str, list, dict, set, tuple, bool)


class NotPlainData(TypeError):
    """A value that cannot be encoded; the message says what it is."""


class NotFinite(AssertionError):
    """A nan or an infinite number where the tests name none: it would pass many a comparison."""


class Encoder:
    """Encodes values of one message.

    `refer` encodes what is no data, as a reference; without it such values raise NotPlainData, and
    iterators become their items. `known` are the containers met so far, in order: one met again is
    ["same", index].
    """

    def __init__(
        self, refer: Callable[[object], object] | None = None, known: list[object] | None = None
    ) -> None:
        self._refer = refer
        self.known = [] if known is None else known
        self._indices = {id(value): index for index, value in enumerate(self.known)}

    def encode(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else ["i", hex(value)]
        if kind is float:
            if math.isfinite(value):
                return value
            return ["nan", 0] if math.isnan(value) else ["inf", value > 0]
        if depth >= MAX_DEPTH:
            raise NotPlainData(f"a value nested deeper than {MAX_DEPTH}")
        if self._refer is not None and isinstance(value, _CONTAINERS):
            if id(value) in self._indices:
                return ["same", self._indices[id(value)]]
            if kind in _CONTAINERS or kind.__module__ == "collections":
                self._indices[id(value)] = len(self.known)
                self.known.append(value)
        return self._compound(value, kind, depth + 1)

    def items(self, value: Any, depth: int = 0) -> list[Any]:
        """The contents of a list, set or dict."""
        if isinstance(value, dict):
            pairs = dict.items(value)
            return [[self.encode(key, depth), self.encode(item, depth)] for key, item in pairs]
        return [self.encode(item, depth) for item in value]

    def _compound(self, value: Any, kind: type, depth: int) -> Any:
        if kind in _LISTS:
            return [_LISTS[kind], self.items(value, depth)]
        if kind is dict:
            return ["d", self.items(value, depth)]
        if kind is bytes:
            return ["b", value.hex()]
        if kind is complex:
            return ["c", self.encode(value.real), self.encode(value.imag)]
        if kind is decimal.Decimal:
            return ["dec", str(value)]
        if kind is fractions.Fraction:
            return ["fr", hex(value.numerator), hex(value.denominator)]
        if self._refer is None:
            return self._as_data(value, kind, depth)
        return self._by_kind(value, kind, depth)

    def _as_data(self, value: Any, kind: type, depth: int) -> Any:
        """For a comparison with plain data: iterators as their items, what holds items as those."""
        if kind in _LAZY or kind is range or kind in _VIEWS:
            return ["it", [self.encode(item, depth) for item in _bounded(value)]]
        if kind is collections.deque:
            return ["l", self.items(value, depth)]
        if isinstance(value, dict):
            return ["d", self.items(value, depth)]
        base = _plain_base(value, kind)
        if base is not None:
            data = self.encode(base, depth)
            return ["it", data[1]] if type(base) is list and not isinstance(value, list) else data  # an array
        raise NotPlainData(_describe(value, kind))

    def _by_kind(self, value: Any, kind: type, depth: int) -> Any:
        """For tests that may ask for more than the items: the type as well, or a reference."""
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind is bytearray:
            return ["ba", value.hex()]
        if kind is collections.deque:
            return ["dq", value.maxlen, self.items(value, depth)]
        if name in _KNOWN:
            return ["x", name, [self.encode(item, depth) for item in _KNOWN[name](value)]]
        if kind is collections.defaultdict:
            factory = getattr(value.default_factory, "__name__", "")
            return ["dd", factory if value.default_factory in _FACTORIES else "", self.items(value, depth)]
        if kind in _VIEWS:
            return ["view", _VIEWS[kind], self.items(dict(value.mapping), depth)]
        numpy = sys.modules.get("numpy")
        if numpy is not None and kind is numpy.ndarray and value.dtype.kind in "biufcUS":
            return ["np", value.dtype.str, self.encode(value.tolist(), depth)]
        if kind is type and value in _BUILTIN_TYPES.values():
            return ["type", value.__name__]
        if tuple in kind.__mro__ and hasattr(kind, "_fields"):
            fields = [str(field) for field in kind._fields]
            return ["nt", kind.__name__, fields, [self.encode(item, depth) for item in tuple.__iter__(value)]]
        base = _plain_base(value, kind)
        if base is not None and not _has_own_methods(kind):
            return self.encode(base, depth)
        assert self._refer is not None
        return self._refer(value)


def encode(value: Any) -> Any:
    """`value` as JSON-serialisable data. Raises NotPlainData for anything that is not plain data."""
    return Encoder().encode(value)


def _plain_base(value: object, kind: type) -> object:
    """The builtin value under an instance of a subclass; numbers and arrays of numpy as Python's own."""
    for base, convert in _BASES:
        if issubclass(kind, base):
            return convert(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return value.tolist()
    return None


def _has_own_methods(kind: type) -> bool:
    """Whether tests may ask an instance for more than its plain value has: only for containers."""
    if not issubclass(kind, (list, tuple, dict, set)):
        return False
    own: set[str] = set()
    for part in kind.__mro__:
        if part.__module__ not in ("builtins", "collections"):
            own |= {name for name in vars(part) if not name.startswith("_")}
    return bool(own)


def _bounded(values: Any) -> Any:
    for count, item in enumerate(values):
        if count >= _MAX_ITEMS:
            raise NotPlainData(f"an iterator of more than {_MAX_ITEMS} items")
        yield item


def _describe(value: object, kind: type) -> str:
    bases = [base.__name__ for base in kind.__mro__[1:] if base.__module__ == "builtins"]
    if bases and bases[0] != "object":
        return f"an instance of {kind.__name__}, a subclass of {bases[0]}"
    return f"an instance of {kind.__name__}"


class Decoder:
    """The inverse of Encoder. `resolve` turns a reference into an object.

    Raises NotFinite for a nan or an infinity that `not_finite` does not name.
    """

    def __init__(
        self,
        resolve: Callable[[list[object]], object] | None = None,
        known: list[object] | None = None,
        not_finite: frozenset[str] = frozenset({"nan", "inf"}),
    ) -> None:
        self._resolve = resolve
        self._not_finite = not_finite
        self.known = [] if known is None else known

    def decode(self, data: Any, depth: int = 0) -> Any:
        if data is None or type(data) in (bool, str, int, float):
            return data
        if type(data) is not list or len(data) < 2 or type(data[0]) is not str or depth > MAX_DEPTH:
            raise NotPlainData("a malformed value")
        tag, items = data[0], data[1]
        if tag in ("l", "d", "dd", "s", "ba", "dq"):
            return self._container(tag, data, depth + 1)
        if tag in _MAKERS:
            return _MAKERS[tag]([self.decode(item, depth + 1) for item in items])
        if tag in ("x", "nt", "view", "np"):
            return self._instance(tag, data, depth + 1)
        if tag == "same":
            return self.known[items]
        if tag in ("ref", "own") and self._resolve is not None:
            return self._resolve(data)
        if tag == "c":
            return complex(self.decode(items, depth + 1), self.decode(data[2], depth + 1))
        found = _decode_atom(tag, data)
        kind = tag if tag != "dec" or found.is_finite() else "nan" if found.is_nan() else "inf"
        if kind in ("nan", "inf") and kind not in self._not_finite:
            raise NotFinite(f"the program gave {'nan' if kind == 'nan' else 'an infinite number'}")
        return found

    def fill(self, container: Any, items: Any, depth: int = 0) -> None:
        """Put the decoded `items` into an empty list, set, deque or dict."""
        if isinstance(container, dict):
            container.update((self.decode(key, depth), self.decode(item, depth)) for key, item in items)
        elif isinstance(container, set):
            container.update(self.decode(item, depth) for item in items)
        else:
            container.extend(self.decode(item, depth) for item in items)

    def _container(self, tag: str, data: list[Any], depth: int) -> Any:
        if tag == "ba":
            made: Any = bytearray.fromhex(data[1])
        elif tag == "dd":
            made = collections.defaultdict(_BUILTIN_TYPES.get(data[1]))
        elif tag == "dq":
            made = collections.deque(maxlen=data[1])
        else:
            made = {"l": list, "d": dict, "s": set}[tag]()
        self.known.append(made)  # before its items: one of them may be this container again
        if tag != "ba":
            self.fill(made, data[-1], depth)
        return made

    def _instance(self, tag: str, data: list[Any], depth: int) -> Any:
        if tag == "view":
            mapping: dict[Any, Any] = {}
            self.fill(mapping, data[2], depth)
            return getattr(mapping, data[1])()
        if tag == "nt":
            kind = collections.namedtuple(data[1], data[2])  # type: ignore[misc]
            return kind(*[self.decode(item, depth) for item in data[3]])
        if tag == "np":
            values = self.decode(data[2], depth)
            numpy: Any = sys.modules.get("numpy")
            return numpy.array(values, data[1]) if hasattr(numpy, "array") else values
        if data[1] not in _KNOWN:
            raise NotPlainData(f"an instance of {data[1]}")
        module, _, name = data[1].rpartition(".")
        mutable = module == "collections"
        if mutable:
            at = len(self.known)
            self.known.append(None)
        made = getattr(importlib.import_module(module), name)(*[self.decode(item, depth) for item in data[2]])
        if mutable:
            self.known[at] = made
        return made


def decode(data: Any) -> Any:
    """The inverse of `encode`. Raises NotPlainData or ValueError for malformed data."""
    return Decoder().decode(data)


def _decode_atom(tag: str, data: list[Any]) -> Any:
    if tag == "i":
        return int(data[1], 16)
    if tag == "inf":
        return math.inf if data[1] else -math.inf
    if tag == "nan":
        return math.nan
    if tag == "b":
        return bytes.fromhex(data[1])
    if tag == "dec":
        return decimal.Decimal(data[1])
    if tag == "fr":
        return fractions.Fraction(int(data[1], 16), int(data[2], 16))
    if tag == "type" and data[1] in _BUILTIN_TYPES:
        return _BUILTIN_TYPES[data[1]]
    raise NotPlainData("a malformed value")
