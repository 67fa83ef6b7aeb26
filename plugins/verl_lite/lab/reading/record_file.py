"""One JSONL or Parquet file as records: by its format, with the user's `--map`, several files kept apart."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from verl_lite.lab.formats import FORMATS, OWN, format_of
from verl_lite.lab.groups import GroupKey, group_key
from verl_lite.lab.reading.mapping import map_record, map_row
from verl_lite.plugins.records import BadRow, Record, Span, read_records, read_rows, to_json
from verl_lite.plugins.records.reader import BAD_ROW, parsed
from verl_lite.plugins.records.rows import own_key

_FIRST_ROWS = 20  # one of them must be readable for its keys to be seen


@dataclass(frozen=True, kw_only=True)
class RecordFile:
    """`path` is JSONL or Parquet. Picklable: pool processes read the same file.

    origin   the file that it was made of; itself, if it is read in place
    name     what the user calls it
    format   a name in FORMATS
    renames  `--map`: new name -> path in the row
    prefix   with several files: put before the ids that we make up, so that they differ
    step     that of rows without one, where the format has it in the file's name
    clashes  digests of the groups' keys that another file has for another prompt -> that of this prompt
    """

    path: Path
    origin: Path
    name: str
    format: str = OWN
    renames: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    step: int | None = None
    clashes: Mapping[int, int] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        """Whether a row's own `step`, `group` and `prompt` say which group it is in."""
        return self.format == OWN and not self.renames

    def records(
        self, span: Span | None = None, on_bad_row: Callable[[BadRow], None] | None = None
    ) -> Iterator[Record]:
        """The records in file order; bad rows as in `read_records`."""
        return read_records(self.path, on_bad_row=on_bad_row, span=span, convert=self.convert, name=self.name)

    def convert(self, row: Any, number: int) -> Iterable[Record]:
        """The records of one row. Raises as `converted` expects for a bad one."""
        convert = FORMATS[self.format].convert
        if not (self.renames or self.prefix or self.step is not None):
            return convert(row, number)
        mapped = map_row(row, self.renames) if self.renames else row
        records = convert(mapped, number)
        if self.renames and self.format != OWN:
            records = (map_record(record, mapped, self.renames) for record in records)
        if self.step is not None:
            records = (r if r.step is not None else replace(r, step=self.step) for r in records)
        return [self._apart(record, number) for record in records] if self.prefix else records

    def keys(self, row: object, number: int, with_openings: bool) -> Sequence[tuple[GroupKey, int]]:
        """(key, digest of the first messages) of the row's records; none for an unreadable row."""
        try:
            value = parsed(row)
            if self.is_own and not with_openings:
                return ((own_key(value, number), 0),)
            return [
                (group_key(record), _opening(record) if with_openings else 0)
                for record in self.convert(value, number)
            ]
        except BAD_ROW:
            return ()

    def _apart(self, record: Record, number: int) -> Record:
        """`record` with an id and a group that no other file has, unless they are meant to be the same."""
        rollout, made_up = record.rollout, f"row-{number}"
        changed: dict[str, Any] = {}
        if rollout.id == made_up or rollout.id.startswith(f"{made_up}/"):
            changed["id"] = f"{self.prefix}:{rollout.id}"
        if rollout.group in (rollout.id, made_up) and rollout.group.startswith(made_up):
            changed["group"] = f"{self.prefix}:{rollout.group}"
        if self.clashes and (opening := self.clashes.get(key_digest(group_key(record)))) is not None:
            changed["group"] = f"{rollout.group} ({opening:016x})"
        return replace(record, rollout=replace(rollout, **changed)) if changed else record


def key_digest(key: GroupKey) -> int:
    return _digest(repr(key))


def _opening(record: Record) -> int:
    """A digest of the prompt up to the first reply in it: what all samples of a prompt share."""
    first = takewhile(lambda message: message.get("role") != "assistant", record.rollout.prompt)
    return _digest(to_json([[message.get("role"), message.get("content")] for message in first]))


def _digest(text: str) -> int:
    hashed = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(hashed, "little")


def detect(path: Path, *, name: str, format: str, renames: Mapping[str, str]) -> str:
    """The name of the format of `path`: the given one, or what fits its first readable row.

    Raises ConfigError for an unknown name, DataError for rows that no format fits, or more than one.
    """
    row = next(_readable(path), None)
    return format_of(map_row(row, renames) if row is not None else None, name=name, format=format)


def step_in_name(format: str, name: str) -> int | None:
    """The step that a file's name says, in formats whose rows do not."""
    found = re.search(FORMATS[format].step, name) if FORMATS[format].step else None
    return int(found[1]) if found else None


def _readable(path: Path) -> Iterator[dict[str, Any]]:
    for _, row in islice(read_rows(path), _FIRST_ROWS):
        try:
            value = parsed(row)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value
