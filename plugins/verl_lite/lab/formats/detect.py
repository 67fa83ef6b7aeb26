"""Detect which trainer wrote a file from the keys of its first row."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.formats import open_instruct, openrlhf, trl, verifiers, verl
from verl_lite.plugins.records import Convert, own_records
from verl_lite.plugins.records.reader import first_row

AUTO = "auto"
OWN = "verl-lite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of file. `convert` is a module-level function, so it can be pickled."""

    name: str
    keys: str  # the keys that identify it, for messages
    matches: Callable[[Mapping[str, Any]], bool]
    convert: Convert


def _is_own(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("completion"), str)


FORMATS = {
    found.name: found
    for found in (
        Format(name=OWN, keys="completion (text)", matches=_is_own, convert=own_records),
        Format(name="verl", keys=verl.KEYS, matches=verl.matches, convert=verl.convert),
        Format(name="trl", keys=trl.KEYS, matches=trl.matches, convert=trl.convert),
        Format(name="verifiers", keys=verifiers.KEYS, matches=verifiers.matches, convert=verifiers.convert),
        Format(name="openrlhf", keys=openrlhf.KEYS, matches=openrlhf.matches, convert=openrlhf.convert),
        Format(
            name="open-instruct",
            keys=open_instruct.KEYS,
            matches=open_instruct.matches,
            convert=open_instruct.convert,
        ),
    )
}


def converter_for(path: str | Path, name: str = AUTO) -> Convert:
    """The function that turns the rows of `path` into records, by format name or by the first row.

    Raises ConfigError for an unknown name, DataError for a file whose format cannot be detected.
    """
    if name == AUTO:
        return FORMATS[detect_format(path)].convert
    if name not in FORMATS:
        raise ConfigError(f"--format {name}: the formats are {', '.join([AUTO, *FORMATS])}")
    return FORMATS[name].convert


def detect_format(path: str | Path) -> str:
    """The name of the format of `path`. An unreadable first row is left to the reader to report."""
    row = first_row(path)
    if isinstance(row, str):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError):
            row = None
    if not isinstance(row, dict) or "schema_version" in row or "columns_json" in row:
        return OWN
    fitting = [name for name, found in FORMATS.items() if found.matches(row)]
    if OWN in fitting and len(fitting) > 1:
        fitting.remove(OWN)  # the least specific: a trainer's own keys say more
    if len(fitting) == 1:
        return fitting[0]
    keys = ", ".join(map(str, row))
    if fitting:
        raise DataError(
            f"{path}: the first row fits {' and '.join(fitting)}; choose one with --format. Its keys: {keys}"
        )
    known = "; ".join(f"{name}: {found.keys}" for name, found in FORMATS.items())
    raise DataError(
        f"{path}: no format fits the first row, whose keys are: {keys}. Known are: {known}. Rename the "
        "keys, or choose one with --format"
    )
