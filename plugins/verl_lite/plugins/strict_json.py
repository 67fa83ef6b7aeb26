"""JSON as the standard has it: no NaN, no Infinity, no key twice."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import JsonValue


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


def without_doubles(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """A JSON object; raises ValueError where a key occurs twice: the later value would hide the earlier."""
    found = dict(pairs)
    if len(found) < len(pairs):
        double = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {double!r} occurs twice in one object")
    return found


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=without_doubles)


def strict_json(text: str) -> Any:
    """`text` as JSON; raises ValueError also for NaN, Infinity and duplicate keys."""
    return _DECODER.decode(text)


def strict_json_values(text: str, *, between: str) -> Iterator[object]:
    """The values of `text`, with the characters `between` or blanks between them. Raises ValueError.

    >>> list(strict_json_values('{"a": 1}; [2]', between=";"))
    [{'a': 1}, [2]]
    """
    text = text.strip()
    while text:
        value, end = _DECODER.raw_decode(text)
        yield value
        text = text[end:].lstrip(between + " \t\n\r")
