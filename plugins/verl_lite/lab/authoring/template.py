"""A new plugin package, rendered from the files beside this one; it comes with passing tests."""

import importlib.metadata
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from verl_lite.errors import ConfigError
from verl_lite.plugins.composite.gate import FUNCTIONS
from verl_lite.plugins.contract import API_VERSION

Kind = Literal["reward", "environment"]
_REWARD = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "gitignore.in": ".gitignore",
    "workflow.yml.in": ".github/workflows/test.yml",
    "init.py.in": "src/__PACKAGE__/__init__.py",
    "py.typed.in": "src/__PACKAGE__/py.typed",
    "reward.py.in": "src/__PACKAGE__/reward.py",
    "test_reward.py.in": "tests/test_reward.py",
    "rollouts.jsonl.in": "tests/golden/rollouts.jsonl",
    "rewards.yaml.in": "tests/golden/rewards.yaml",
    "golden.json.in": "tests/golden/__NAME__.golden.json",
}
_ENVIRONMENT = {  # in the place of a reward's
    "README.md.in": ("README_environment.md.in", "README.md"),
    "init.py.in": ("init_environment.py.in", "src/__PACKAGE__/__init__.py"),
    "reward.py.in": ("environment.py.in", "src/__PACKAGE__/environment.py"),
    "test_reward.py.in": ("test_environment.py.in", "tests/test_environment.py"),
    "rollouts.jsonl.in": ("trajectories.jsonl.in", "tests/golden/trajectories.jsonl"),
    "golden.json.in": ("golden_environment.json.in", "tests/golden/__NAME__.golden.json"),
}
_FILES: Mapping[Kind, Mapping[str, str]] = {
    "reward": _REWARD,
    "environment": dict(_ENVIRONMENT.get(source, (source, target)) for source, target in _REWARD.items()),
}


@dataclass(frozen=True, slots=True)
class PluginNames:
    """The names derived from the reward's. Raises ConfigError for a name that cannot be used.

    >>> names = PluginNames("cites-sources")
    >>> names.distribution, names.package, names.class_prefix
    ('verl-lite-cites-sources', 'verl_lite_cites_sources', 'CitesSources')
    """

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", self.name):
            raise ConfigError(
                f"plugins new {self.name}: expected small letters and digits, parts joined by - or _, "
                "such as 'cites_sources'"
            )

    @property
    def distribution(self) -> str:
        return "verl-lite-" + self.name.replace("_", "-")

    @property
    def package(self) -> str:
        return "verl_lite_" + self._identifier

    @property
    def function(self) -> str:
        """The function's name, which configs also use for the component."""
        taken = keyword.iskeyword(self._identifier) or self._identifier in (*FUNCTIONS, "reward")
        return self._identifier + "_reward" * taken

    @property
    def class_prefix(self) -> str:
        return "".join(part.capitalize() for part in self._identifier.split("_"))

    @property
    def _identifier(self) -> str:
        return self.name.replace("-", "_")


def write_plugin(name: str, folder: Path, kind: Kind = "reward") -> list[Path]:
    """Write a package with the reward or environment `name` to `folder`; returns its files in reading order.

    Raises ConfigError if the folder is not empty or the name cannot be used.
    """
    names = PluginNames(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"plugins new {name}: {folder} exists already: choose another with --dir")
    templates = files("verl_lite.lab.authoring") / "template"
    written = []
    for source, target in _FILES[kind].items():
        path = folder / _fill(target, names)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / source).read_text(encoding="utf-8").replace("__KIND__", kind)
        path.write_text(_fill(text, names), encoding="utf-8")
        written.append(path)
    return written


def _fill(text: str, names: PluginNames) -> str:
    values = {
        "__DISTRIBUTION__": names.distribution,
        "__PACKAGE__": names.package,
        "__CLASS__": names.class_prefix,
        "__FUNCTION__": names.function,
        "__API_VERSION__": str(API_VERSION),
        "__VERL_LITE_VERSION__": importlib.metadata.version("verl-lite"),
        "__NAME__": names.name,
    }
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
