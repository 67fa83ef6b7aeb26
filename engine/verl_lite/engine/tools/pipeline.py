"""Stages one after another, each a command of its own whose folder the next one reads; resumable.

A stage is a process: what it held (a model, an inference engine) is gone before the next begins. One of
training that was interrupted goes on from its own checkpoint.
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

__all__ = ["PipelineConfig", "StageConfig", "run_pipeline"]

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # a stage has a folder, which is deleted when it runs anew
RESUMABLE = ("sft", "train", "dpo", "reward-model")  # those that know --resume
START = "import sys; from verl_lite.cli import main; sys.argv[0] = 'verl-lite'; main()"


class StageConfig(ConfigModel):
    """One command. `{folder}` in any text is the pipeline's folder, `{stage}` the stage's own in it.

    `config` is written to a file that comes first among the arguments, or where they say `{config}`.
    """

    command: str = Field(description="of verl-lite: sft, train, eval, preferences collect, ...")
    config: dict[str, Any] = Field(default_factory=dict)
    arguments: tuple[str, ...] = ()


class PipelineConfig(ConfigModel):
    """Stages in their order."""

    name: str = Field(default="pipeline", pattern=FOLDER_NAME)
    stages: dict[Annotated[str, Field(pattern=FOLDER_NAME)], StageConfig] = Field(min_length=1)


def run_pipeline(config: PipelineConfig, folder: Path, *, say: Callable[[str], None]) -> None:
    """Run every stage that is not done yet; `say` is told what happens.

    Raises ConfigError when a finished stage would now run with other settings, or the folder holds
    something else, and TrainingError when a stage fails.
    """
    marks = folder / ".stages"
    if folder.is_dir() and any(folder.iterdir()) and not marks.is_dir():
        raise ConfigError(f"{folder} holds files of something else: choose another folder")
    marks.mkdir(parents=True, exist_ok=True)
    again = False
    for number, (name, stage) in enumerate(config.stages.items(), start=1):
        mark = marks / f"{name}.json"
        wanted = json.dumps(stage.model_dump(mode="json"), sort_keys=True)
        if mark.exists() and not again:
            if mark.read_text(encoding="utf-8") != wanted:
                raise ConfigError(
                    f"stage {name} was run with other settings: delete {mark} to run it and those after it "
                    "again, or choose another folder"
                )
            say(f"stage {number}/{len(config.stages)} {name}: done before")
            continue
        begun = marks / f"{name}.begun"
        goes_on = not again and _can_go_on(stage, folder / name, begun, wanted)
        again = True  # what comes after a stage that runs now is out of date
        if not goes_on:
            shutil.rmtree(folder / name, ignore_errors=True)
        mark.unlink(missing_ok=True)
        begun.write_text(wanted, encoding="utf-8")
        command = [*_command(name, stage, folder), *(["--resume"] if goes_on else [])]
        say(f"stage {number}/{len(config.stages)} {name}: verl-lite {' '.join(command)}")
        code = subprocess.run([sys.executable, "-c", START, *command], check=False).returncode
        if code != 0:
            raise TrainingError(
                f"stage {name} ended with exit code {code}: put it right and run the pipeline again, which "
                "goes on here"
            )
        mark.write_text(wanted, encoding="utf-8")


def _can_go_on(stage: StageConfig, folder: Path, begun: Path, wanted: str) -> bool:
    """Whether the stage was interrupted, after a checkpoint and with these very settings."""
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
