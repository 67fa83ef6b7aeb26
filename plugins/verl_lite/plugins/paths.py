"""Look values up by a path such as `reward_model.ground_truth` or `choices.0.message.content`."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from verl_lite.plugins.rollout import Rollout, reference_text

MISSING: object = object()  # what `dig` returns where the path leads nowhere; None is a value


def dig(value: object, path: str) -> object:
    """The value at `path`: keys and list positions, separated by dots; MISSING where there is none.

    A key that contains dots itself is found too. Text on the way that holds a JSON or Python literal is
    read: data sets store nested columns as text.

    >>> dig({"reward_model": {"ground_truth": "4"}}, "reward_model.ground_truth")
    '4'
    >>> dig({"info": '{"answers": ["a", "b"]}'}, "info.answers.1")
    'b'
    """
    if isinstance(value, Mapping):
        if path in value:
            return value[path]
        at = path.find(".")
        while at > 0:
            if path[:at] in value:
                found = dig(value[path[:at]], path[at + 1 :])
                if found is not MISSING:
                    return found
            at = path.find(".", at + 1)
        return MISSING
    if isinstance(value, str):
        read = literal(value)
        return dig(read, path) if read is not None else MISSING
    if isinstance(value, Sequence) or hasattr(value, "tolist"):
        return _element(value if isinstance(value, Sequence) else value.tolist(), path)
    return MISSING


def map_rollout(rollout: Rollout, renames: Mapping[str, str]) -> Rollout:
    """`rollout` with new names (`new -> path`) for what its columns hold; `reference` is its own too."""
    found = {new: dig(rollout.columns, path) for new, path in renames.items()}
    values = {new: value for new, value in found.items() if value is not MISSING}
    if not values:
        return rollout
    reference = values.get("reference", rollout.reference)
    text = None if reference is None else reference_text(reference)
    return replace(rollout, reference=text, columns={**rollout.columns, **values})


def _element(items: Sequence[object], path: str) -> object:
    index, _, rest = path.partition(".")
    if not index.removeprefix("-").isdigit() or not -len(items) <= int(index) < len(items):
        return MISSING
    return dig(items[int(index)], rest) if rest else items[int(index)]


def literal(text: str) -> object:
    """The mapping or list written in `text`; None for any other text."""
    if text[:1] not in ("{", "["):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, (dict, list)) else None
    return None
