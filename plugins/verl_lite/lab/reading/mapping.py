"""`--map new=old.path`: columns by other names, also inside nested ones."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from verl_lite.errors import ConfigError
from verl_lite.plugins import Rollout
from verl_lite.plugins.paths import MISSING, dig
from verl_lite.plugins.records import Record, to_record

_OF_ROLLOUT = frozenset(field.name for field in fields(Rollout)) - {"columns"}
_OF_RECORD = frozenset({"step", "reward", "advantage"})


def parse_map(texts: Sequence[str]) -> dict[str, str]:
    """`["reference=answer"]` -> {"reference": "answer"}. Raises ConfigError for anything else."""
    found: dict[str, str] = {}
    for text in texts:
        new, _, old = (part.strip() for part in text.partition("="))
        if not new or not old:
            raise ConfigError(f"--map {text}: expected NEW=OLD, as in reference=reward_model.ground_truth")
        found[new] = old
    return found


def map_row(row: Mapping[str, Any], renames: Mapping[str, str]) -> dict[str, Any]:
    """`row` with every new name that has a value at its path; a missing path changes nothing."""
    found = {new: dig(row, path) for new, path in renames.items()}
    return {**row, **{new: value for new, value in found.items() if value is not MISSING}}


def map_record(record: Record, row: Mapping[str, Any], renames: Mapping[str, str]) -> Record:
    """`record` of another trainer's format with the mapped values in its fields and columns.

    A path is looked up in the record's own columns first (a row may hold several records), then in `row`.
    """
    own = record.rollout.columns
    found = {new: dig(row if dig(own, path) is MISSING else own, path) for new, path in renames.items()}
    values = {new: value for new, value in found.items() if value is not MISSING}
    if not values:
        return record
    read = to_record({"completion": record.rollout.completion, **values}, record.row)
    changed = {name: getattr(read.rollout, name) for name in values if name in _OF_ROLLOUT}
    if "prompt" in values and record.rollout.group.startswith("prompt-"):
        changed.setdefault("group", read.rollout.group)
    columns = {**own, **values}
    mine = {name: getattr(read, name) for name in values if name in _OF_RECORD}
    return replace(record, rollout=replace(record.rollout, columns=columns, **changed), **mine)
