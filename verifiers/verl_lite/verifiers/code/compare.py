"""Compares a program's results with the expected ones, outside the sandbox.

Results are hostile: they are never decoded into objects larger than the expected value, and numbers
have their own grammar (`float()` also accepts "nan", "infinity", "1_0" and non-ASCII digits).
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from verl_lite.verifiers.code.types import Comparison, ValueRules
from verl_lite.verifiers.code.wire import NotPlainData, decode, encode

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_MAX_DIGITS = 400  # longer numbers are compared as text


def matches_text(output: str, expected: str, how: Comparison, tolerance: float = 1e-6) -> bool:
    """Whether `output` is correct by the rule `how` (see StdinTest; "checker" is decided elsewhere).

    >>> matches_text("3  4\\n", "3\\n4", "tokens"), matches_text("3  4\\n", "3\\n4", "lines")
    (True, False)
    >>> matches_text("0.3333333333", "0.33333333", "floats"), matches_text("nan", "0.5", "floats")
    (True, False)
    """
    if how == "exact":
        return output == expected
    if how == "lines":
        return _lines(output) == _lines(expected)
    got, wanted = output.split(), expected.split()
    if how == "floats":
        if len(got) != len(wanted):
            return False
        return all(_token_close(a, b, tolerance) for a, b in zip(got, wanted, strict=True))
    return got == wanted


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _token_close(got: str, wanted: str, tolerance: float) -> bool:
    if got == wanted:
        return True
    for token in (got, wanted):
        if len(token) > _MAX_DIGITS or not _NUMBER.fullmatch(token):
            return False
    if not ({".", "e", "E"} & set(wanted)) and not ({".", "e", "E"} & set(got)):
        return int(got) == int(wanted)
    return _close(float(got), float(wanted), tolerance)


def _close(got: float, wanted: float, tolerance: float) -> bool:
    if not (math.isfinite(got) and math.isfinite(wanted)):
        return False
    return math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)


def matches_value(data: Any, expected: Any, *, rules: ValueRules, tolerance: float = 1e-6) -> bool:
    """Whether `data`, a value as wire.encode writes it, is `expected` by `rules` (see CallTest).

    >>> matches_value(encode((1, 2)), [1, 2], rules="json")
    True
    >>> matches_value(encode((1, 2)), [1, 2], rules="python")
    False
    """
    try:
        return _same_json(data, expected, tolerance) if rules == "json" else _same_python(data, expected)
    except RecursionError:  # only hostile data is nested this deep
        return False


def _parts(data: Any) -> tuple[str, Any]:
    """The tag and content of wire data; the tag of an untagged value is its type's name."""
    if type(data) is list and len(data) == 2 and type(data[0]) is str:
        return data[0], data[1]
    if type(data) is list:
        return (data[0], data[1:]) if len(data) == 3 and data[0] in ("c", "fr") else ("malformed", None)
    return type(data).__name__, data


def _number(data: Any) -> int | float | None:
    tag, content = _parts(data)
    if tag in ("int", "float", "bool"):
        return content  # type: ignore[no-any-return]
    if tag == "i" and type(content) is str and re.fullmatch(r"-?0x[0-9a-f]+", content):
        return int(content, 16)
    if tag == "inf":
        return math.inf if content is True else -math.inf
    return None


def _same_json(data: Any, expected: Any, tolerance: float) -> bool:
    tag, content = _parts(data)
    kind = type(expected)
    if kind in (list, tuple):
        return tag in ("l", "t") and _same_items(
            content, expected, lambda got, wanted: _same_json(got, wanted, tolerance)
        )
    if kind is dict:
        return tag == "d" and _same_mapping(content, expected, tolerance)
    if kind in (int, float):
        number = _number(data)
        if number is None or tag == "bool":
            return False
        if kind is float and math.isfinite(expected):
            try:
                return _close(float(number), expected, tolerance)
            except OverflowError:
                return False
        return bool(number == expected)
    return type(data) is kind and bool(data == expected)  # None, bool, str


def _same_items(content: Any, expected: Any, same: Callable[[Any, Any], bool]) -> bool:
    if type(content) is not list or len(content) != len(expected):
        return False
    return all(same(got, wanted) for got, wanted in zip(content, expected, strict=True))


def _same_mapping(content: Any, expected: Mapping[Any, Any], tolerance: float) -> bool:
    pairs = _pairs(content, len(expected))
    if pairs is None:
        return False
    got = {_json_key(key): value for key, value in pairs}
    wanted = {_json_key(encode(key)): value for key, value in expected.items()}
    if len(got) != len(wanted) or got.keys() != wanted.keys():
        return False
    return all(_same_json(got[key], value, tolerance) for key, value in wanted.items())


def _pairs(content: Any, count: int) -> list[list[Any]] | None:
    if type(content) is not list or len(content) != count:
        return None
    return content if all(type(pair) is list and len(pair) == 2 for pair in content) else None


def _json_key(key: Any) -> str:
    return key if type(key) is str else json.dumps(key)


def _same_python(data: Any, expected: Any) -> bool:
    """`==` of plain data: container types must match, 1 == 1.0 == True, sets have no order."""
    tag, content = _parts(data)
    kind = type(expected)
    if kind in (bool, int, float):
        number = _number(data)
        return number is not None and bool(number == expected)
    if kind in (list, tuple):
        return tag == ("l" if kind is list else "t") and _same_items(content, expected, _same_python)
    if kind in (set, frozenset):
        return tag in ("s", "fs") and _same_unordered(content, [encode(item) for item in expected])
    if kind is dict:
        pairs = _pairs(content, len(expected)) if tag == "d" else None
        wanted = [[encode(key), encode(value)] for key, value in expected.items()]
        return pairs is not None and sorted(map(_canonical_pair, pairs)) == sorted(
            map(_canonical_pair, wanted)
        )
    if kind is str or expected is None:
        return type(data) is kind and bool(data == expected)
    return bool(data == encode(expected))  # bytes, complex


def _same_unordered(got: Any, wanted: list[Any]) -> bool:
    """Equality of multisets of canonical texts; items of a set are distinct, so this is set equality."""
    if type(got) is not list or len(got) != len(wanted):
        return False
    return sorted(map(_canonical, got)) == sorted(map(_canonical, wanted))


def _canonical(data: Any) -> str:
    """The same text for data that Python considers equal: numbers by value, sets without order."""
    number = _number(data)
    if number is not None:
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        return f"n{hex(number) if isinstance(number, int) else repr(number)}"
    tag, content = _parts(data)
    if tag in ("l", "t") and type(content) is list:
        return f"{tag}[{','.join(map(_canonical, content))}]"
    if tag in ("s", "fs") and type(content) is list:
        return f"s[{','.join(sorted(map(_canonical, content)))}]"
    if tag == "d" and type(content) is list:
        return f"d[{','.join(sorted(map(_canonical_pair, content)))}]"
    return json.dumps(data, sort_keys=True)


def _canonical_pair(pair: Any) -> str:
    if type(pair) is not list or len(pair) != 2:
        return json.dumps(pair)
    return f"{_canonical(pair[0])}:{_canonical(pair[1])}"


def show(value: Any, limit: int = 80) -> str:
    """`value` for a message, cut to `limit` characters."""
    if isinstance(value, str) and len(value) > 4 * limit:
        value = value[: 4 * limit]
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def show_data(data: Any, limit: int = 80) -> str:
    """Wire data for a message; large data is not decoded."""
    try:
        if len(json.dumps(data)) <= 10 * limit:
            return show(decode(data), limit)
    except (NotPlainData, ValueError, TypeError, KeyError, IndexError, RecursionError):
        pass
    return f"{str(data)[: limit - 3]}..."
