"""Models in a GGUF file, as other programs ship them, read by transformers like a folder or hub id."""

from pathlib import Path
from typing import Any

from verl_lite.engine.config.model import is_gguf


def from_pretrained(auto: Any, path: str | None, **options: Any) -> Any:
    """`auto.from_pretrained` (a model, tokenizer or configuration) of a folder, hub id or GGUF file.

    Raises OSError or ValueError with one line for a GGUF file that is missing, damaged, or of an architecture
    that transformers cannot read.
    """
    if not is_gguf(path):
        return auto.from_pretrained(path, **options)
    file = Path(str(path))
    _check_readable(file)
    try:
        return auto.from_pretrained(str(file.parent), gguf_file=file.name, **options)
    except (OSError, ValueError):
        raise
    except Exception as error:  # the reader trips over damaged bytes in its own ways
        raise ValueError(f"{file} is damaged or cut off ({type(error).__name__}: {error})") from error


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except FileNotFoundError:
        raise OSError(f"there is no file {file} (looked from {Path.cwd()})") from None
    if magic != b"GGUF":
        raise ValueError(f"{file} is not a GGUF file: it begins with {magic!r}")
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise OSError(f"{file}: reading GGUF files needs the package gguf; pip install gguf") from None
