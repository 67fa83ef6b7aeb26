"""The differences between two runs: config.yaml and environment.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from verl_lite.errors import DataError


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; `first` or `second` is None if that run has no such key."""

    where: str
    key: str
    first: Any
    second: Any


def diff_runs(first: Path, second: Path) -> list[Difference]:
    """The differences between two runs, each given as a run folder or a config file.

    Raises DataError for a path that is neither.
    """
    found = _compare("config", _config(first), _config(second))
    environments = [path / "environment.json" for path in (first, second)]
    if all(path.is_file() for path in environments):
        found += _compare("environment", *(_read(path) for path in environments))
    return found


def _compare(where: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    one, two = dict(flat(first)), dict(flat(second))
    keys = [*one, *(key for key in two if key not in one)]
    return [
        Difference(where, key, one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)
    ]


def flat(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, plain value) of every leaf; a list of named items counts as a mapping by name."""
    if isinstance(tree, list) and tree and all(isinstance(item, Mapping) and "name" in item for item in tree):
        tree = {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in tree}
    if not isinstance(tree, Mapping):
        return [(prefix, tree)]
    return [leaf for key, value in tree.items() for leaf in flat(value, f"{prefix}.{key}" if prefix else key)]


def _config(path: Path) -> Mapping[str, Any]:
    return _read(path / "config.yaml" if path.is_dir() else path)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {error}; name a run folder or a config file") from None
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no settings; name a run folder or a config file")
    return content
