"""A cache of whole results: the same file scored again with the same rewards is only copied.

One folder per result, named by a digest of everything the result depends on: the bytes of the file,
the code, version and options of every reward, the config, and verl-lite itself. The most recently used
ones are kept.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from verl_lite.lab.cache import digest
from verl_lite.lab.reading import RecordFile
from verl_lite.lab.summary import ScoreSummary
from verl_lite.plugins import RewardsConfig, Scorer
from verl_lite.plugins.records import SCHEMA_VERSION, BadRow

_NUM_KEPT = 20
_SUMMARY_FORMAT = 3  # of `to_text`: results in another one are computed again


@dataclass(frozen=True, slots=True)
class KeptResult:
    """What a scoring pass returns besides its records."""

    summary: ScoreSummary
    bad_rows: list[BadRow]

    def to_text(self) -> str:
        """Everything as JSON text, exactly; `from_text` reads it back."""
        return json.dumps(TypeAdapter(KeptResult).dump_python(self), default=list)

    @classmethod
    def from_text(cls, text: str) -> "KeptResult":
        return TypeAdapter(cls).validate_python(json.loads(text))


class ResultStore:
    """Results below `folder` for some files and one set of rewards."""

    def __init__(
        self, folder: Path, files: Sequence[RecordFile], config: RewardsConfig, scorer: Scorer
    ) -> None:
        self._parent = folder
        self._identity = [
            version("verl-lite"),
            SCHEMA_VERSION,
            _SUMMARY_FORMAT,
            [_identity(file) for file in files],
            config.model_dump(mode="json"),
            scorer.environment(),
        ]

    def fetch(self, output: Path | None) -> KeptResult | None:
        """The cached result, with its records copied to `output`; None where there is none."""
        folder = self._folder(output)
        summary = folder / "summary.json"
        if not summary.is_file():
            return None
        result = KeptResult.from_text(summary.read_text(encoding="utf-8"))
        if output is not None:
            aside = output.with_name(f".{output.name}.{os.getpid()}.part")
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / "records", aside)
            os.replace(aside, output)
        os.utime(folder)  # marks it as recently used
        return result

    def keep(self, output: Path | None, result: KeptResult) -> None:
        """Store a result, unless it holds failures: those may not happen again."""
        failed = sum(c.outcomes["error"] + c.outcomes["timeout"] for c in result.summary.components.values())
        if failed:
            return
        self._parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=self._parent, prefix=".part-"))
        if output is not None:
            shutil.copyfile(output, aside / "records")
        (aside / "summary.json").write_text(result.to_text(), encoding="utf-8")
        try:
            aside.rename(self._folder(output))
        except OSError:  # another process kept the same result meanwhile
            shutil.rmtree(aside, ignore_errors=True)
        self._prune()

    def _folder(self, output: Path | None) -> Path:
        return self._parent / digest(*self._identity, output.suffix if output else "").hex()

    def _prune(self) -> None:
        kept = sorted(self._parent.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in kept[_NUM_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)


def _identity(file: RecordFile) -> list[object]:
    """Everything that the file's records depend on."""
    suffixes = "".join(Path(file.name).suffixes[-2:])
    return [_file_digest(file.origin), suffixes, file.format, dict(file.renames), file.prefix]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
