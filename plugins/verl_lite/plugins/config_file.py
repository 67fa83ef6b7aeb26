"""Read a YAML file into a frozen pydantic tree: overrides, suggestions, one message per mistake."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from verl_lite.errors import ConfigError
from verl_lite.plugins.settings import models_in

ModelT = TypeVar("ModelT", bound=BaseModel)
TYPO = 0.87  # of 1, how alike a name of the same section must be to be meant before names from elsewhere
MOST_NAMES = 12


class ConfigModel(BaseModel):
    """Base of every configuration section: frozen; refuses unknown keys, nan and inf.

    The docstring below a setting is its description: in the JSON Schema, in messages, in the docs.
    `other_names` of a whole tree are names that people know from elsewhere, with the settings they are here;
    `section.name` is what a name means inside of a section.
    """

    other_names: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def load_config(model: type[ModelT], path: str | Path, overrides: Sequence[str] = ()) -> ModelT:
    """The validated configuration in `path` with `key.path=value` overrides applied.

    Raises ConfigError for a missing file, broken YAML, an unknown key (suggesting the nearest name) or a
    value that does not fit.
    """
    return validate(model, apply_overrides(read_yaml(path), overrides), source=str(path))


def read_yaml(path: str | Path) -> dict[str, object]:
    """The mapping in a YAML file. Raises ConfigError for a missing or broken file and duplicate keys."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader: it makes plain data only
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, got {type(data).__name__}")
    return data


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses duplicate keys in a mapping, of which YAML's own loader silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                problem = f"the key {key!r} occurs twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with each `key.path=value` set; values are read as YAML scalars, lists or mappings.

    >>> apply_overrides({"a": {"b": 1}}, ["a.b=2", "a.c=[3]"])
    {'a': {'b': 2, 'c': [3]}}
    """
    try:
        result: dict[str, Any] = _copy(data)
    except RecursionError:
        raise ConfigError("the config is nested too deeply, or an alias in it refers to itself") from None
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r}: expected key.path=value")
        try:
            value = yaml.safe_load(text) if text else None
        except yaml.YAMLError:
            raise ConfigError(f"override {override!r}: the value is not valid YAML") from None
        *parents, last = key.split(".")
        node = result
        for depth, parent in enumerate(parents):
            child = node.get(parent)
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                where = ".".join(parents[: depth + 1])
                raise ConfigError(f"override {override!r}: {where} is {child!r}, not a section")
            node = child
        node[last] = value
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return value


def validate(model: type[ModelT], data: Mapping[str, object], *, source: str) -> ModelT:
    """`data` as `model`; raises ConfigError with one line per mistake, naming the key and `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(item, model, data) for item in error.errors()]
        raise ConfigError(f"{source}: " + "\n".join(lines)) from None


def validate_options(model: type[ModelT], given: Mapping[str, object], *, source: str) -> ModelT:
    """A plugin's options; unknown keys are refused even if its model would ignore them."""
    fields = {info.alias or name for name, info in model.model_fields.items()} | set(model.model_fields)
    for key in given:
        if key not in fields and model.model_config.get("extra") != "allow":
            near = difflib.get_close_matches(str(key), sorted(fields), n=1)
            hint = (
                f"did you mean '{near[0]}'?" if near else f"it takes: {', '.join(sorted(fields)) or 'none'}"
            )
            raise ConfigError(f"{source}: unknown option '{key}': {hint}")
    return validate(model, given, source=source)


def _explain(item: Any, model: type[BaseModel], data: Any) -> str:
    path = _path_in(data, item["loc"], is_missing=item["type"] == "missing")
    where = ".".join(path)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{where}': {_hint(model, path, item.get('input'))}"
    if item["type"] == "missing":
        return f"'{where}' is missing"
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
        return f"{where}: {message}" if where else message
    got = item.get("input")
    meaning = _description_at(model, path)
    return f"{where}: {item['msg'].lower()}, got {got!r:.80}" + (f"\n  {where}: {meaning}" if meaning else "")


def _hint(model: type[BaseModel], path: Sequence[str], value: object) -> str:
    """What an unknown key may have been meant to be: a name of its section, or one from elsewhere."""
    known = sorted(_keys_at(model, path[:-1]))
    if typo := difflib.get_close_matches(path[-1], known, n=1, cutoff=TYPO):
        return f"did you mean '{typo[0]}'?"
    others: Mapping[str, str] = getattr(model, "other_names", {})
    name = path[-1].lower().replace("-", "_")
    ours = others.get(f"{path[0]}.{name}", others.get(name))  # first the names of the section
    if meant := [ours] if ours else _elsewhere(model, name):
        return f"did you mean {' or '.join(map(repr, meant))}?"
    theirs = {key: others[key] for key in _keys_within(value) if key in others}
    if theirs:
        pairs = [f"{key} is {ours!r} here" for key, ours in list(theirs.items())[:MOST_NAMES]]
        return f"a section of another trainer? {', '.join(pairs)}"
    near = difflib.get_close_matches(path[-1], known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"


def _keys_within(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inside in value.items():
            yield str(key)
            yield from _keys_within(inside)


def _elsewhere(model: type[BaseModel], name: str, under: str = "") -> list[str]:
    """The paths of the settings with this name; not in lists, nor in sections that a user names."""
    found = []
    for field, info in model.model_fields.items():
        path = f"{under}{field}"
        found += [path] if field == name else []
        is_union = get_origin(info.annotation) in (Union, UnionType)
        for each in get_args(info.annotation) if is_union else (info.annotation,):
            if isinstance(each, type) and issubclass(each, BaseModel):
                found += _elsewhere(each, name, f"{path}.")
    return found


def _path_in(data: object, loc: Sequence[int | str], *, is_missing: bool) -> list[str]:
    """The parts of pydantic's `loc` that are keys of `data`, and a missing last key.

    The other parts are tags of unions ("rewards.math.component.use"), which are not in the file.
    """
    path: list[str] = []
    here: object = data
    for position, part in enumerate(loc):
        if isinstance(here, (Mapping, list)) and _has(here, part):
            here = here[part]  # type: ignore[index]
        elif not (is_missing and position == len(loc) - 1):
            continue
        path.append(str(part))
    return path


def _has(data: Mapping[object, object] | list[object], part: int | str) -> bool:
    return part in data if isinstance(data, Mapping) else isinstance(part, int) and part < len(data)


def _keys_at(model: type[BaseModel], path: Sequence[str]) -> set[str]:
    """The field names that exist under `path`."""
    return {
        info.alias or name for each in _models_at(model, path) for name, info in each.model_fields.items()
    }


def _description_at(model: type[BaseModel], path: Sequence[str]) -> str:
    """What the setting at `path` does, or "" if nothing says so."""
    named = [at for at, part in enumerate(path) if not part.isdigit()]
    if not named:
        return ""
    name = path[named[-1]]
    fields = [each.model_fields.get(name) for each in _models_at(model, path[: named[-1]])]
    return next((info.description for info in fields if info is not None and info.description), "")


def _models_at(model: type[BaseModel], path: Sequence[str]) -> set[type[BaseModel]]:
    """The models whose fields may stand under `path`, through nested models, unions and dict values."""
    models = {model}
    for part in path:
        fields = [each.model_fields.get(part) for each in models]
        following = {found for info in fields if info is not None for found in models_in(info.annotation)}
        # a dict key, a list index or a union's tag stays at the same models
        models = following or models
    return models
