"""Where a command may write: found out before it works, so that nothing is lost and nothing replaced."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from verl_lite.errors import DataError

BAD_ROWS = ".bad.jsonl"  # such files are not read with the others of a folder
_RECORDS = (".parquet", ".jsonl")


def check_output(
    path: Path,
    *,
    inputs: str | Path | Sequence[str | Path] = (),
    overwrite: bool = False,
    suffixes: Sequence[str] = _RECORDS,
) -> None:
    """Raise DataError unless `path` can be written, and replaces nothing or `overwrite` is set.

    Its folder is made if it is not there. `suffixes` are those that the output may have.
    """
    if suffixes and path.suffix not in suffixes:
        raise DataError(f"records go to a {' or '.join(suffixes)} file, not {path.name!r}")
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    named = [inputs] if isinstance(inputs, (str, Path)) else inputs
    if not overwrite and path.exists():
        if any(_is_same(path, Path(source)) for source in named):
            raise DataError(f"{path} is an input too: name another output, or replace it with --overwrite")
        if path.stat().st_size:
            raise DataError(f"{path} exists: name another output, or replace it with --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from None


def bad_rows_path(output: Path | None, inputs: Sequence[str]) -> Path:
    """Where the unreadable rows go: beside the output, or beside the only input, or here."""
    if output is not None:
        return output.parent / f"{output.stem}{BAD_ROWS}"
    first = Path(inputs[0])
    if len(inputs) == 1 and first.is_file() and os.access(first.parent, os.W_OK):
        return first.with_suffix(BAD_ROWS)
    return Path(f"{Path(inputs[0]).stem.strip('-*') or 'stdin'}{BAD_ROWS}")


def _is_same(path: Path, source: Path) -> bool:
    """Whether an input is `path`, or a folder with it in it."""
    try:
        return source.samefile(path) or (source.is_dir() and source.resolve() in path.resolve().parents)
    except OSError:  # a glob, a URL, standard input
        return False
