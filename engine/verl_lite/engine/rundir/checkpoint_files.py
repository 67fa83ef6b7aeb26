"""Checkpoint folders: atomic writes (aside, fsync, rename), integrity, retention.

manifest.json is written last and lists every other file with its size and SHA-256. A folder that lacks it or
does not match it is damaged, and no run resumes from it.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from verl_lite.engine.config.records import CheckpointConfig
from verl_lite.errors import CheckpointError, TrainingError

MANIFEST = "manifest.json"
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A checkpoint that a resumed run cannot use, and why."""

    path: Path
    reason: str


def write_manifest(folder: Path) -> None:
    """List every file under `folder` with size and SHA-256, and flush all of them to disk."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(aside: Path, final: Path) -> None:
    """Rename the finished folder; an older checkpoint of the same step is deleted first."""
    if final.exists():
        _remove(final)
    os.replace(aside, final)
    _sync_folder(final.parent)


def why_not_whole(folder: Path) -> str:
    """What is wrong with the checkpoint in `folder`; "" if it is intact. Reads every byte."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            _refuse_escape(name)
            size = (folder / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes, {MANIFEST} says {expected['bytes']}"
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    return f"the SHA-256 of {name} is not the one in {MANIFEST}"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} or a file it lists cannot be read: {error}"
    return ""


def _refuse_escape(name: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} leads out of the checkpoint")


def newest_whole(folder: Path, *, up_to_step: int | None = None) -> tuple[Path | None, list[PassedOver]]:
    """The newest intact checkpoint under `folder`, and newer damaged ones, newest first.

    With `up_to_step`, later steps are ignored.
    """
    passed: list[PassedOver] = []
    for path in reversed(_finished(folder)):
        if up_to_step is not None and _step(path) > up_to_step:
            continue
        reason = why_not_whole(path)
        if not reason:
            return path, passed
        passed.append(PassedOver(path, reason))
    return None, passed


def _finished(folder: Path) -> list[Path]:
    """All checkpoint folders, intact or damaged, oldest first."""
    return sorted((path for path in folder.glob("step_*") if path.is_dir()), key=_step)


def _step(path: Path) -> int:
    number = path.name.removeprefix("step_")
    return int(number) if number.isdigit() else -1


def remove_checkpoints_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of later steps."""
    for path in _finished(folder):
        if _step(path) > step:
            _remove(path)


def remove_leftovers(folder: Path) -> None:
    """Delete checkpoints that a killed process left half written or half deleted."""
    for path in folder.glob(".step_*"):
        shutil.rmtree(path)


def rename_damaged(passed: PassedOver) -> Path:
    """Rename the checkpoint to damaged_step_..., so that nothing takes it for an intact one."""
    aside = passed.path.with_name(f"damaged_{passed.path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(passed.path, aside)
    return aside


def apply_retention(folder: Path, rules: CheckpointConfig, *, is_over: bool = False) -> None:
    """Delete the checkpoints that no rule keeps; the best one is by the metrics saved with a checkpoint.

    Once a stage `is_over`, nothing resumes from it: the newest are deleted too.
    """
    found = _finished(folder)
    if not rules.keep:
        return
    stay = set() if is_over else set(found[-rules.keep :])
    if rules.keep_every_steps:
        stay |= {path for path in found if _step(path) % rules.keep_every_steps == 0}
    if rules.keep_best:
        stay |= _best(found, rules)
    for path in found:
        if path not in stay:
            _remove(path)
    if found and not any(folder.iterdir()):
        folder.rmdir()


def _best(found: list[Path], rules: CheckpointConfig) -> set[Path]:
    measured = {path: _numbers(path).get(rules.keep_best) for path in found}
    known = {path: value for path, value in measured.items() if isinstance(value, (int, float))}
    if not known:
        return set()
    choose = min if rules.keep_best_lowest else max
    return {choose(known, key=lambda path: known[path])}


def _numbers(path: Path) -> Mapping[str, Any]:
    try:
        metrics = json.loads((path / "trainer.json").read_text(encoding="utf-8")).get("metrics", {})
    except (OSError, ValueError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _remove(path: Path) -> None:
    """Delete a checkpoint; renamed first, so that a half-deleted one never has a checkpoint's name."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(path, old)
    shutil.rmtree(old)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def clear_write_errors(what: str) -> Iterator[None]:
    """Turn write errors (full disk, read-only folder, failing device) into a TrainingError."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors hides the error's number
        if isinstance(error, OSError) and error.errno not in WRITE_ERRORS:
            raise
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else error
        raise TrainingError(
            f"cannot write {what}: {reason}. Training has stopped; make room there "
            "(or make it writable) and continue with --resume"
        ) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"the checkpoint {path} is damaged: {error}; resume from an older one")
