"""From what the user names to files on this disk: files, folders, globs, run folders, stdin, remote paths."""

import glob
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.outputs import BAD_ROWS
from verl_lite.lab.reading.run_folders import run_records

STDIN = "-"
_SUFFIXES = frozenset(".parquet .jsonl .ndjson .json .arrow .feather .csv .tsv .eval .pt".split())
COMPRESSIONS = frozenset(".gz .zst .xz .bz2 .lz4".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file on this disk and what the user calls it. `is_found`: in a folder, not named itself."""

    path: Path
    name: str
    is_found: bool = False


def find_places(sources: Sequence[str | Path], folder: Path) -> list[Place]:
    """The files behind `sources`, in their order; streams and remote files are copied to `folder`.

    Raises DataError for what does not exist or cannot be fetched, ConfigError where fsspec is missing.
    """
    places = [place for source in sources for place in _find(source, folder)]
    unique = {place.path.resolve(): place for place in reversed(places)}
    return [place for place in places if unique.get(place.path.resolve()) is place]


def is_remote(source: str | Path) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*::?//", str(source), re.IGNORECASE) is not None


def _find(source: str | Path, folder: Path) -> Iterator[Place]:
    text = str(source)
    if text == STDIN:
        yield _stdin(folder)
    elif is_remote(source):
        yield from _remote(text, folder)
    elif Path(source).is_dir():
        yield from _in_folder(Path(source))
    elif not Path(source).exists() and glob.has_magic(text):
        found = sorted(glob.glob(text, recursive=True), key=_natural)
        if not found:
            raise DataError(f"no file fits {text}")
        for name in found:
            yield from _find(Path(name), folder)
    elif not Path(source).is_file() and not Path(source).is_fifo():
        raise DataError(f"no rollout file at {source}")
    elif Path(source).is_fifo():
        with Path(source).open("rb") as stream:
            yield _copied(stream, folder, name=text)
    else:
        yield Place(path=Path(source), name=text)


def _in_folder(folder: Path) -> Iterator[Place]:
    """A run's rollouts (all its steps), an evaluation's samples, or every readable file below."""
    files = run_records(folder)
    if files is None:
        below = (path for path in folder.rglob("*") if _is_candidate(path, folder))
        files = sorted(below, key=lambda path: _natural(str(path)))
    if not files:
        raise DataError(f"{folder} holds no file of rollouts ({', '.join(sorted(_SUFFIXES))})")
    yield from (Place(path=path, name=str(path), is_found=True) for path in files)


def _is_candidate(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return _has_known_suffix(path) and not hidden and path.is_file()


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 2.jsonl before 10.jsonl."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _stdin(folder: Path) -> Place:
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("-: standard input is a terminal; pipe rollouts into the command, or name a file")
    return _copied(sys.stdin.buffer, folder, name="stdin")


def _copied(stream: Any, folder: Path, *, name: str) -> Place:
    """A copy of a stream, so that it can be read twice: its groups may be in any order."""
    target = folder / f"{len(list(folder.iterdir()))}-{Path(name).name}"
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return Place(path=target, name=name)


def _remote(url: str, folder: Path) -> Iterator[Place]:
    system, path = _filesystem(url)
    try:
        is_folder = not glob.has_magic(path) and system.isdir(path)
        found = system.find(path) if is_folder else system.glob(path) if glob.has_magic(path) else [path]
        names = sorted(found, key=_natural)
        if is_folder:
            names = [name for name in names if _has_known_suffix(Path(name))]
        if not names:
            raise DataError(f"{url} holds no file of rollouts")
        for name in names:
            target = folder / f"{len(list(folder.iterdir()))}-{Path(name).name}"
            system.get_file(name, str(target))
            yield Place(path=target, name=str(system.unstrip_protocol(name)), is_found=is_folder)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{url} cannot be fetched: {reason}") from None


def _has_known_suffix(path: Path) -> bool:
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return plain.suffix in _SUFFIXES and not path.name.endswith(BAD_ROWS)


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
