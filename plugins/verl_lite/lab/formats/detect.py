"""Detect which trainer wrote a file from the keys of its first row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.formats import open_instruct, openrlhf, trl, verifiers, verl
from verl_lite.plugins.records import Convert, own_records

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


class UnknownFormatError(DataError):
    """No format fits the rows of a file."""


def format_of(row: Mapping[str, Any] | None, *, name: str, format: str = AUTO) -> str:
    """The name of the format of a file `name` whose first readable row is `row`, or `format` unless "auto".

    A file without a readable row is left to the reader to report. Raises ConfigError for an unknown name,
    UnknownFormatError for a row that no format fits, DataError for one that fits several.
    """
    if format != AUTO:
        if format not in FORMATS:
            raise ConfigError(f"--format {format}: the formats are {', '.join([AUTO, *FORMATS])}")
        return format
    if row is None or "schema_version" in row or "columns_json" in row:
        return OWN
    fitting = [known for known, found in FORMATS.items() if found.matches(row)]
    if OWN in fitting and len(fitting) > 1:
        fitting.remove(OWN)  # the least specific: a trainer's own keys say more
    if len(fitting) == 1:
        return fitting[0]
    keys = ", ".join(map(str, row))
    if fitting:
        raise DataError(
            f"{name}: the first row fits {' and '.join(fitting)}; choose one with --format. Its keys: {keys}"
        )
    known = "; ".join(f"{known}: {found.keys}" for known, found in FORMATS.items())
    raise UnknownFormatError(
        f"{name}: no format fits the first row, whose keys are: {keys}. Known are: {known}. Rename the "
        "keys with --map, or choose a format with --format"
    )
