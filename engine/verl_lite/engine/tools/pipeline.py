"""A pipeline: stages run in sequence, each a command whose folder later stages read.

Every stage is a process, so its model and engine are gone before the next starts. An interrupted training
stage continues from its checkpoint.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from verl_lite.errors import ConfigError, TrainingError
from verl_lite.plugins.config_file import ConfigModel

# a stage's folder is deleted when the stage runs again, so its name may not lead elsewhere
FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
RESUMABLE = ("sft", "train", "dpo", "reward-model")  # the commands with --resume
START = "import sys; from verl_lite.cli import main; sys.argv[0] = 'verl-lite'; main()"


class StageConfig(ConfigModel):
    """One command. In all texts `{folder}` is the pipeline's folder, `{stage}` the stage's.

    `config` is written to a file, which is the first argument or replaces `{config}` in the arguments.
    """

    command: str = Field(description="a command of verl-lite: sft, train, eval, preferences collect, ...")
    """The command of verl-lite that the stage runs: sft, train, eval, preferences collect, ..."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The command's config; it is written to a file that becomes the first argument, or replaces {config} in
    the arguments."""
    arguments: tuple[str, ...] = ()
    """The command's arguments. {folder} is the pipeline's folder, {stage} the stage's."""


class PipelineConfig(ConfigModel):
    """The stages, in order."""

    name: str = Field(default="pipeline", pattern=FOLDER_NAME)
    """The pipeline's name: its folder is runs/<name>."""
    stages: dict[Annotated[str, Field(pattern=FOLDER_NAME)], StageConfig] = Field(min_length=1)
    """The stages by name, run in this order."""


def run_pipeline(config: PipelineConfig, folder: Path, *, say: Callable[[str], None]) -> None:
    """Run every stage that is not done yet; `say` gets a line per stage.

    Raises ConfigError if a finished stage has new settings or the folder holds other files, TrainingError if
    a stage fails.
    """
    marks = folder / ".stages"
    if folder.is_dir() and any(folder.iterdir()) and not marks.is_dir():
        raise ConfigError(f"{folder} holds other files: choose another folder")
    marks.mkdir(parents=True, exist_ok=True)
    again = False
    for number, (name, stage) in enumerate(config.stages.items(), start=1):
        mark = marks / f"{name}.json"
        wanted = json.dumps(stage.model_dump(mode="json"), sort_keys=True)
        if mark.exists() and not again:
            if mark.read_text(encoding="utf-8") != wanted:
                raise ConfigError(
                    f"stage {name} was run with other settings: delete {mark} to run it and the later stages "
                    "again, or choose another folder"
                )
            say(f"stage {number}/{len(config.stages)} {name}: done before")
            continue
        begun = marks / f"{name}.begun"
        resumes = not again and _can_resume(stage, folder / name, begun, wanted)
        again = True  # the results of later stages are out of date
        if not resumes:
            shutil.rmtree(folder / name, ignore_errors=True)
        mark.unlink(missing_ok=True)
        begun.write_text(wanted, encoding="utf-8")
        command = [*_command(name, stage, folder), *(["--resume"] if resumes else [])]
        say(f"stage {number}/{len(config.stages)} {name}: verl-lite {' '.join(command)}")
        code = subprocess.run([sys.executable, "-c", START, *command], check=False).returncode
        if code != 0:
            raise TrainingError(
                f"stage {name} ended with exit code {code}: fix the cause and run the pipeline again; it "
                "continues with this stage"
            )
        mark.write_text(wanted, encoding="utf-8")


def _can_resume(stage: StageConfig, folder: Path, begun: Path, wanted: str) -> bool:
    """Whether the stage was interrupted after a checkpoint and has the same settings."""
    if stage.command not in RESUMABLE or (folder / "summary.json").exists():
        return False
    is_same = begun.is_file() and begun.read_text(encoding="utf-8") == wanted
    return is_same and any(folder.glob("*checkpoints/step_*"))


def _command(name: str, stage: StageConfig, folder: Path) -> list[str]:
    places = {
        "{folder}": str(folder),
        "{stage}": str(folder / name),
        "{config}": str(folder / f"{name}.yaml"),
    }
    arguments = [_filled(argument, places) for argument in stage.arguments]
    if stage.config:
        import yaml

        text = yaml.safe_dump(_filled(stage.config, places), sort_keys=False)
        Path(places["{config}"]).write_text(text, encoding="utf-8")
        if not any("{config}" in argument for argument in stage.arguments):
            arguments = [places["{config}"], *arguments]
    return [*stage.command.split(), *arguments]


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for place, path in places.items():
            value = value.replace(place, path)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(item, places) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(item, places) for item in value]
    return value
