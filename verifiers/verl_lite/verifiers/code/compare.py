"""Compares a program's results with the expected ones, outside the sandbox.

Results are hostile: they are never decoded into objects larger than the expected value, and numbers
have their own grammar (`float()` also accepts "nan", "infinity", "1_0" and non-ASCII digits).
"""

import decimal
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from verl_lite.verifiers.code.types import Comparison, ValueRules
from verl_lite.verifiers.code.wire import NotPlainData, decode, encode

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_MAX_DIGITS = 400  # longer numbers are compared as text


def matches_text(output: str, expected: str, how: Comparison, tolerance: float = 1e-6) -> bool:
    """Whether `output` is correct by the rule `how` (see StdinTest; "checker" is decided elsewhere).

    >>> matches_text("3  4\\n", "3\\n4", "tokens"), matches_text("3  4\\n", "3\\n4", "lines")
    (True, False)
    >>> matches_text("1\\n2 3", "1 2\\n3", "tokens"), matches_text("1\\n2 3", "1 2\\n3", "floats")
    (False, True)
    >>> matches_text("0.3333333333", "0.33333333", "tokens"), matches_text("nan", "0.5", "floats")
    (True, False)
    """
    if how == "exact":
        return output == expected
    if how == "lines":
        return _lines(output) == _lines(expected)
    if how == "floats":
        return _same_tokens(output.split(), expected.split(), tolerance, _token_close)
    return _same_layout(output, expected) and _same_tokens(
        output.split(), expected.split(), tolerance, _token_equal
    )


def _same_tokens(got: list[str], wanted: list[str], tolerance: float, same: Callable[..., bool]) -> bool:
    return len(got) == len(wanted) and all(same(a, b, tolerance) for a, b in zip(got, wanted, strict=True))


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_layout(output: str, expected: str) -> bool:
    """Whether line breaks and indentation agree where they mean something.

    Line breaks mean nothing in a plain list of tokens: one line, or one token per line. Indentation
    means something in a drawing: several lines, not only of numbers, of which some are indented.
    """
    got, wanted = ([line for line in _lines(text) if line] for text in (output, expected))
    if _is_drawing(wanted):
        return got == wanted
    if [len(line.split()) for line in got] == [len(line.split()) for line in wanted]:
        return True
    return _is_list(got) and _is_list(wanted)


def _is_list(lines: list[str]) -> bool:
    return len(lines) <= 1 or all(len(line.split()) == 1 for line in lines)


def _is_drawing(lines: list[str]) -> bool:
    indents = {len(line) - len(line.lstrip()) for line in lines}
    return len(indents) > 1 and not all(_NUMBER.fullmatch(t) for line in lines for t in line.split())


def _token_equal(got: str, wanted: str, tolerance: float) -> bool:
    """The same text, or numbers within `tolerance`; two integers only as text.

    An integer is met by `6.0` or `5.9999999`: within `tolerance` of it, not relative to its size.
    """
    if got == wanted:
        return True
    if tolerance == 0 or not _are_numbers(got, wanted) or _are_integers(got, wanted):
        return False
    if _INTEGER.fullmatch(wanted):
        return abs(decimal.Decimal(got) - decimal.Decimal(wanted)) <= decimal.Decimal(tolerance)
    return _close(float(got), float(wanted), tolerance)


def _token_close(got: str, wanted: str, tolerance: float) -> bool:
    if got == wanted:
        return True
    if not _are_numbers(got, wanted):
        return False
    if _are_integers(got, wanted):
        return int(got) == int(wanted)
    return _close(float(got), float(wanted), tolerance)


def _are_numbers(*tokens: str) -> bool:
    return all(len(token) <= _MAX_DIGITS and _NUMBER.fullmatch(token) for token in tokens)


def _are_integers(*tokens: str) -> bool:
    return all(_INTEGER.fullmatch(token) for token in tokens)


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


def _number(data: Any) -> Any:
    tag, content = _parts(data)
    if tag in ("int", "float", "bool"):
        return content
    if tag == "i" and type(content) is str and re.fullmatch(r"-?0x[0-9a-f]+", content):
        return int(content, 16)
    if tag == "inf":
        return math.inf if content is True else -math.inf
    if tag in ("dec", "fr", "c"):
        return _exact_number(data)
    return None


def _exact_number(data: Any) -> Any:
    """A Decimal, a Fraction or a complex number; None if it is malformed or not finite."""
    try:
        value = decode(data)
        infinite = isinstance(value, decimal.Decimal) and value.is_infinite()
        return None if infinite or value != value else value
    except (NotPlainData, ValueError, TypeError, ArithmeticError):
        return None


def _same_json(data: Any, expected: Any, tolerance: float) -> bool:
    tag, content = _parts(data)
    kind = type(expected)
    if kind in (list, tuple):
        return tag in ("l", "t", "it") and _same_items(
            content, expected, lambda got, wanted: _same_json(got, wanted, tolerance)
        )
    if kind is dict:
        return tag == "d" and _same_mapping(content, expected, tolerance)
    if kind in (int, float):
        number = _number(data)
        if number is None or tag == "bool":
            return False
        if kind is int or not math.isfinite(expected):
            return bool(number == expected)
        try:
            return _close(float(number), expected, tolerance)
        except (OverflowError, TypeError):  # too large, or complex
            return False
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
    if kind in (bool, int, float, complex):
        number = _number(data)
        return number is not None and bool(number == expected)
    if kind in (list, tuple):
        return tag == ("l" if kind is list else "t") and _same_items(content, expected, _same_python)
    if kind in (set, frozenset):  # the items are distinct, so the same texts are the same set
        same_size = tag in ("s", "fs") and type(content) is list and len(content) == len(expected)
        return same_size and _canonical(["s", content]) == _canonical(["s", list(map(encode, expected))])
    if kind is dict:
        pairs = _pairs(content, len(expected)) if tag == "d" else None
        return pairs is not None and _canonical(["d", pairs]) == _canonical(encode(expected))
    if kind is str or expected is None:
        return type(data) is kind and bool(data == expected)
    return bool(data == encode(expected))  # bytes


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
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a value with a very large integer"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def show_data(data: Any, limit: int = 80) -> str:
    """Wire data for a message; large data is not decoded."""
    try:
        if len(json.dumps(data)) <= 10 * limit:
            return show(decode(data), limit)
    except (NotPlainData, ValueError, TypeError, KeyError, IndexError, RecursionError):
        pass
    return f"{str(data)[: limit - 3]}..."
