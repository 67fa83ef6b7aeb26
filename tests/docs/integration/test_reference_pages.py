"""Pages made from the code are fresh; settings and public names are explained; examples name their schema."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.evals import EvalConfig
from verl_lite.engine.preference import PreferenceConfig
from verl_lite.engine.tools import PipelineConfig
from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.settings import sections_of

ROOT = Path(__file__).parents[3]


def test_the_reference_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference_pages.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "model",
    [TrainConfig, RewardsConfig, EvalConfig, PreferenceConfig, PipelineConfig],
    ids=lambda m: m.__name__,
)
def test_every_setting_is_explained(model: type[BaseModel]) -> None:
    bare = [
        f"{section.model.__name__}.{setting.name}"
        for section in sections_of(model)
        for setting in section.settings
        if not setting.description
    ]
    assert bare == []


def test_the_examples_name_their_schema() -> None:
    configs = [path for path in (ROOT / "examples").glob("*.yaml") if "\nsteps:" in path.read_text()]
    assert len(configs) > 5
    assert [path.name for path in configs if SCHEMA_LINE not in path.read_text()] == []


SCHEMA_LINE = "# yaml-language-server: $schema=../docs/config.schema.json\n"
ROOMS = ("plugins", "lab.notebook", "verifiers", "sandbox", "engine")


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_a_docstring(room: str) -> None:
    module = importlib.import_module(f"verl_lite.{room}")
    names = [name for name in dir(module) if not name.startswith("_")]
    assert names
    found = {name: getattr(module, name) for name in names}
    parts = {
        name: value for name, value in found.items() if inspect.isclass(value) or inspect.isfunction(value)
    }
    bare = [name for name, value in parts.items() if not _own_docstring(value)]
    for name, value in parts.items():
        if inspect.isclass(value):
            bare += [f"{name}.{method}" for method in _bare_methods(value)]
    assert bare == []


def _own_docstring(value: object) -> str:
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    generated = f"{getattr(value, '__name__', '')}("  # what dataclass writes
    return "" if not text or text.startswith(generated) else text


def _bare_methods(value: type) -> list[str]:
    methods = {
        name: member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        for name, member in vars(value).items()
        if not name.startswith("_")
    }
    return [name for name, method in methods.items() if inspect.isfunction(method) and not method.__doc__]
