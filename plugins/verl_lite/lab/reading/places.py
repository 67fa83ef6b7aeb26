"""From what the user names to files on this disk: files, folders, globs, run folders, stdin, remote paths."""

import glob
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.outputs import BAD_ROWS
from verl_lite.lab.reading.run_folders import run_records

STDIN = "-"
_SUFFIXES = frozenset(".parquet .jsonl .ndjson .json .arrow .feather .csv .tsv .eval .pt".split())
COMPRESSIONS = frozenset(".gz .zst .xz .bz2 .lz4".split())
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"  # what `datasets` writes with save_to_disk
_NOT_ROWS = frozenset({_SAVED, _SAVED_SPLITS, "dataset_info.json", "dataset_infos.json"})
_EXPECTED = (
    f"a file ({', '.join(sorted(_SUFFIXES))}; text also compressed), a folder of such files, a folder "
    "saved by `datasets`, or a glob"
)
_SPLITS = {
    **{name: name for name in ("train", "test", "validation", "held_out")},
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file on this disk and what the user calls it. `is_found`: in a folder, not named itself.

    `split` is that of a saved data set, which says it.
    """

    path: Path
    name: str
    is_found: bool = False
    split: str = ""


def find_places(sources: Sequence[str | Path], folder: Path) -> list[Place]:
    """The files behind `sources`, in their order; streams and remote files are copied to `folder`.

    Raises DataError for what does not exist or cannot be fetched, ConfigError where fsspec is missing.
    """
    places = [place for source in sources for place in _find(source, folder)]
    unique = {place.path.resolve(): place for place in reversed(places)}
    return [place for place in places if unique.get(place.path.resolve()) is place]


def of_split(places: Sequence[Place], split: str, *, source: str) -> Sequence[Place]:
    """Of several files of a source whose names say splits (train-00000.parquet), those of `split`.

    Raises DataError where there are none.
    """
    named = {place: place.split or _split_of(place.path) for place in places}
    if not any(named.values()) or (len(set(named.values())) == 1 and not places[0].split):
        return places
    chosen = [place for place in places if named[place] in (split, _SPLITS.get(split))]
    if not chosen:
        splits = ", ".join(sorted({name for name in named.values() if name}))
        raise DataError(f"{source}: no file is of the split {split!r}; their names say {splits}: set split")
    return chosen


def _split_of(path: Path) -> str:
    """The split in the file's name (train-00000-of-00002.parquet), or that of its folder; "" for none."""
    for text in (path.name, path.parent.name):
        words = re.split(r"[^a-z_]|_(?!out)", text.lower())
        if found := [_SPLITS[word] for word in words if word in _SPLITS]:
            return found[0]
    return ""


def is_remote(source: str | Path) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*::?//", str(source), re.IGNORECASE) is not None


def _find(source: str | Path, folder: Path) -> Iterator[Place]:
    text = str(source)
    if text == STDIN:
        yield _stdin(folder)
    elif is_remote(source):
        yield from _remote(text, folder)
    else:
        yield from _local(text, folder)


def _local(name: str, folder: Path) -> Iterator[Place]:
    path = Path(name).expanduser()
    if path.is_dir():
        found = list(_in_folder(path))
        problem = f"{path} holds no file of rows"
    elif path.exists():
        found = [_file(path, folder, name=name)]
    else:
        found = list(_fitting(str(path), folder))
        what = "file of rows fits" if glob.has_magic(name) else "file at"
        problem = f"no {what} {name} (looked from {Path.cwd()})"
    if not found:
        raise DataError(f"{problem}: expected {_EXPECTED}")
    yield from found


def _fitting(pattern: str, folder: Path) -> Iterator[Place]:
    """The files that a pattern fits, and those in the folders that it fits."""
    for path in map(Path, sorted(glob.glob(pattern, recursive=True), key=_natural)):
        if path.is_dir():
            yield from _in_folder(path)
        elif not path.name.startswith("_") or _has_known_suffix(path):  # Spark's _SUCCESS has no rows
            yield _file(path, folder)


def _file(path: Path, folder: Path, *, name: str = "") -> Place:
    if not path.is_fifo():
        return Place(path=path, name=name or str(path))
    with path.open("rb") as stream:
        return _copied(stream, folder, name=name or str(path))


def _in_folder(folder: Path) -> Iterator[Place]:
    """A run's rollouts (all its steps), an evaluation's samples, or every readable file below."""
    if (folder / _SAVED_SPLITS).is_file():
        for split in json.loads((folder / _SAVED_SPLITS).read_text(encoding="utf-8"))["splits"]:
            yield from (replace(place, split=split) for place in _in_folder(folder / split))
        return
    files = _saved(folder) or run_records(folder)
    if files is None:
        below = (path for path in folder.rglob("*") if _is_candidate(path, folder))
        files = sorted(below, key=lambda path: _natural(str(path)))
    yield from (Place(path=path, name=str(path), is_found=True) for path in files)


def _saved(folder: Path) -> list[Path]:
    """The shards of a data set that `datasets` saved, in their order."""
    if not (folder / _SAVED).is_file():
        return []
    state = json.loads((folder / _SAVED).read_text(encoding="utf-8"))
    return [folder / shard["filename"] for shard in state["_data_files"]]


def _is_candidate(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    return _has_known_suffix(path) and not hidden and path.name not in _NOT_ROWS and path.is_file()


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 2.jsonl before 10.jsonl."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _stdin(folder: Path) -> Place:
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("-: standard input is a terminal; pipe rollouts into the command, or name a file")
    return _copied(sys.stdin.buffer, folder, name="stdin")


def _copied(stream: Any, folder: Path, *, name: str) -> Place:
    """A copy of a stream, so that it can be read twice: its groups may be in any order."""
    target = _target(name, folder)
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return Place(path=target, name=name)


def _target(name: str, folder: Path) -> Path:
    """A path in `folder` of which no other file there has the name."""
    return folder / f"{len(list(folder.iterdir()))}-{Path(name).name}"


def _remote(url: str, folder: Path) -> Iterator[Place]:
    system, path = _filesystem(url)
    try:
        is_folder = not glob.has_magic(path) and system.isdir(path)
        found = system.find(path) if is_folder else system.glob(path) if glob.has_magic(path) else [path]
        names = sorted(found, key=_natural)
        if is_folder:
            names = [name for name in names if _has_known_suffix(Path(name))]
        if not names:
            raise DataError(f"{url} holds no file of rows: expected {_EXPECTED}")
        for name in names:
            target = _target(name, folder)
            system.get_file(name, str(target))
            yield Place(path=target, name=str(system.unstrip_protocol(name)), is_found=is_folder)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{url} cannot be fetched: {reason}") from None


def plain_suffix(name: str) -> str:
    """The suffix that says what is in the file, without that of a compression."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def _has_known_suffix(path: Path) -> bool:
    return plain_suffix(path.name) in _SUFFIXES and not path.name.endswith(BAD_ROWS)


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for `url`, and the path in it."""
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            f"{url}: remote files are read with fsspec, which is not installed: pip install fsspec, and "
            "what the protocol needs (hf: huggingface_hub, s3: s3fs, gs: gcsfs, http: aiohttp); "
            "or download the file"
        ) from None
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url}: {error}") from None
    return system, path
