"""What a configuration's settings are: names, values allowed, defaults, descriptions.

Read from the pydantic models themselves, for `config show --explain`, `plugins show`, error messages and
the pages of the documentation.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as limits
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    dict: "mapping",
    Mapping: "mapping",
    NoneType: "`null`",
    Any: "any value",
}
_LIMITS = {limits.Ge: "at least", limits.Gt: "above", limits.Le: "at most", limits.Lt: "below"}
_LISTS = (list, tuple, set, frozenset, Sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a section.

    values   what it takes, in words: "number above 0", "`a` or `b`"
    default  as YAML, "" for a setting that must be given or is a section
    section  the models of its value, if that is a section or holds some
    """

    name: str
    values: str
    default: str
    is_required: bool
    description: str
    section: tuple[type[BaseModel], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A model of the configuration and every path at which it is met ("sft.validation")."""

    model: type[BaseModel]
    paths: tuple[str, ...]
    settings: tuple[Setting, ...]


def settings_of(model: type[BaseModel]) -> tuple[Setting, ...]:
    """The settings of `model`, in its order."""
    return tuple(_setting(field.alias or name, field) for name, field in model.model_fields.items())


def sections_of(model: type[BaseModel]) -> list[Section]:
    """`model` (path "") and every section below it, each once, parents before children."""
    paths: dict[type[BaseModel], list[str]] = {model: [""]}
    waiting = [model]
    for current in waiting:
        for setting in settings_of(current):
            for child in setting.section:
                path = f"{paths[current][0]}.{setting.name}".lstrip(".")
                if child not in paths:
                    paths[child] = []
                    waiting.append(child)
                paths[child].append(path)
    return [
        Section(model=each, paths=tuple(where), settings=settings_of(each)) for each, where in paths.items()
    ]


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Every pydantic model that a value of this type may be or hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, dict, Mapping, *_LISTS):
        for argument in get_args(annotation):
            yield from models_in(argument)


def _setting(name: str, field: FieldInfo) -> Setting:
    section = tuple(dict.fromkeys(models_in(field.annotation)))
    return Setting(
        name=name,
        values=_values(field.annotation, field.metadata),
        default="" if field.is_required() else _default(field),
        is_required=field.is_required(),
        description=field.description or "",
        section=section,
    )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if isinstance(value, BaseModel) else as_yaml(value)


def as_yaml(value: object) -> str:
    """A value on one line of YAML.

    >>> as_yaml(0.5), as_yaml(None), as_yaml(("a", 1))
    ('0.5', 'null', '[a, 1]')
    """
    ordered = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
    plain = to_jsonable_python(ordered, bytes_mode="base64", fallback=repr)
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _values(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """What a setting of this type takes, in words.

    >>> _values(Annotated[int, limits.Ge(1)] | None), _values(Literal["a", "b"])
    ('whole number, at least 1, or `null`', '`a` or `b`')
    >>> _values(tuple[float, ...]), _values(dict[str, int])
    ('list (number)', 'mapping of names to whole number')
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, UnionType):
        return _either([_values(one, () if one is NoneType else metadata) for one in arguments])
    if origin is Literal:
        return _either([f"`{as_yaml(one)}`" for one in arguments])
    if origin in (dict, Mapping) and arguments:
        return "mapping of names to " + _values(arguments[1])
    if origin in _LISTS and arguments:
        return f"list ({_either([_values(one) for one in arguments if one is not Ellipsis])})"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _either([f"`{as_yaml(one)}`" for one in annotation])
    kind = origin or annotation
    word = _WORDS.get(kind) or ("list" if kind in _LISTS else getattr(kind, "__name__", "value").lower())
    return ", ".join([word, *_bounds(metadata)])


def _bounds(metadata: list[object] | tuple[object, ...]) -> list[str]:
    found = []
    for item in metadata:
        nested = getattr(item, "metadata", None)  # a FieldInfo inside Annotated
        if isinstance(nested, list):
            found += _bounds(nested)
        for kind, words in _LIMITS.items():
            if isinstance(item, kind):
                found.append(f"{words} {as_yaml(getattr(item, kind.__name__.lower()))}")
    return found


def _either(choices: list[str]) -> str:
    *first, last = dict.fromkeys(choices)
    comma = ", or " if any("," in choice for choice in choices) else " or "
    return ", ".join(first) + comma + last if first else last


def explain(config: BaseModel, *, indent: str = "") -> Iterator[str]:
    """The lines of `config` as YAML, each setting below a comment that says what it does and takes."""
    for setting in settings_of(type(config)):
        value = getattr(config, setting.name)
        yield from _comment(setting, indent)
        if isinstance(value, BaseModel):
            yield f"{indent}{setting.name}:"
            yield from explain(value, indent=indent + "  ")
            continue
        plain = config.model_dump(mode="json", include={setting.name})
        for line in yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).splitlines():
            yield indent + line


def _comment(setting: Setting, indent: str) -> Iterator[str]:
    is_section = setting.values == "section"
    takes = "" if is_section else f" ({setting.values}; default {setting.default or 'none: must be given'})"
    text = f"{setting.description}{takes}".replace("`", "")
    yield from textwrap.wrap(text, 78, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
