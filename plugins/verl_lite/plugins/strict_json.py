"""JSON as the standard has it: no NaN, no Infinity, no key twice."""

import json
from collections.abc import Iterator
from typing import Any


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)


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
