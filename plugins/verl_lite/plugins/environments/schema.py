"""A function's signature as a tool's JSON schema, and a model's arguments checked against it (pydantic)."""

import functools
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic_core
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from verl_lite.errors import PluginError
from verl_lite.plugins.environments.callables import Anything, fixed_by_partial, layers
from verl_lite.plugins.environments.contract import ToolSchema
from verl_lite.plugins.environments.injected import filled_by, hints_of

_SECTION = re.compile(r"^(?:Args|Arguments|Parameters):\n(?P<lines>(?:[ \t]+.*\n?|\n)*)", re.M)
_NUMPY = re.compile(r"^Parameters\n-{3,}\n(?P<lines>(?:.*\n?)*?)(?=^\w[\w ]*\n-{3,}$|\Z)", re.M)
_ENTRY = re.compile(r"^(?P<indent>[ \t]+)\*{0,2}(?P<name>\w+)(?: *\([^)]*\))?: *(?P<text>.*)$")
_FIELD = re.compile(r"^:param (?:[\w\[\], |]+ )?(?P<name>\w+): *(?P<text>.*)$", re.M)
MAX_SHOWN = 5  # mistakes of one call that the model is told


class BadArguments(ValueError):
    """The model's arguments do not fit; the message is for the model."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a tool takes. `schema` is what the model is shown."""

    schema: ToolSchema
    _adapter: TypeAdapter[Any]

    def read(self, arguments: str) -> dict[str, object]:
        """The keyword arguments in the JSON text `arguments`. Raises BadArguments."""
        try:
            given = pydantic_core.from_json(arguments or "{}")
        except ValueError as error:
            raise BadArguments(f"the arguments are not valid JSON: {error}") from None
        if not isinstance(given, dict):
            raise BadArguments(f"the arguments must be a JSON object, got {_shown(given)}")
        try:
            _, keywords = self._adapter.validate_python(pydantic_core.ArgsKwargs((), given))
        except ValidationError as error:
            raise BadArguments("; ".join(_mistakes(error))) from None
        return dict(keywords)


def signature_of(call: Anything, *, name: str) -> Signature:
    """The schema of `call`: a function, a method, an object or a class with `__call__`, a partial of one.

    The docstring's first part is the description; parameters are described by `Annotated[int, Field(
    description="...")]`, an `Args:` section, NumPy's `Parameters` or `:param name:`. Raises PluginError for
    a signature that is no set of named JSON values.
    """
    try:
        function = list(layers(call))[-1]
        adapter = TypeAdapter[Any](_capture(function, _parameters(call, name)))
        parameters = adapter.json_schema()
    except (PydanticUserError, PydanticInvalidForJsonSchema, NameError, TypeError) as error:
        why = " ".join(str(error).split("\n\n")[0].split())
        raise PluginError(f"tool {name!r}: its type hints are not types of JSON values: {why}") from None
    summary, described = _documented(inspect.getdoc(function) or "")
    _describe(parameters, described)
    schema: ToolSchema = {
        "type": "function",
        "function": {"name": name, "description": _of_class(call) or summary, "parameters": parameters},
    }
    return Signature(schema, adapter)


def _of_class(call: Anything) -> str:
    """What the class of a tool with `__call__` says of it."""
    if inspect.isroutine(call) or hasattr(call, "__wrapped__") or isinstance(call, functools.partial):
        return ""
    text = (call if inspect.isclass(call) else type(call)).__doc__
    return inspect.cleandoc(text or "").split("\n\n")[0]


def _parameters(call: Anything, name: str) -> list[inspect.Parameter]:
    """The parameters that the model gives. Raises PluginError for one that it cannot."""
    kinds, fixed, found = inspect.Parameter, fixed_by_partial(call), []
    callee = next(layer for layer in layers(call) if not inspect.isclass(layer))
    try:
        found = [one for one in inspect.signature(callee).parameters.values() if one.name not in fixed]
    except (TypeError, ValueError):
        raise PluginError(
            f"tool {name!r}: {callee!r:.80} does not say what it takes: write a function with type hints"
        ) from None
    hints = hints_of(list(layers(call))[-1])
    found = [one for one in found if not _is_filled(one, hints.get(one.name, one.annotation), name)]
    for parameter in found:
        if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            raise PluginError(
                f"tool {name!r}: the parameter {str(parameter)!r} is {parameter.kind.description}, so it has "
                "no name that the model could give: expected named parameters alone"
            )
        if parameter.annotation is kinds.empty:
            is_self = ": name the method of an object" if parameter.name in ("self", "cls") else ""
            raise PluginError(f"tool {name!r}: the parameter {parameter.name!r} has no type hint{is_self}")
    return found


def _is_filled(parameter: inspect.Parameter, hint: object, name: str) -> bool:
    """Whether the parameter is no model's but a library's, and its default stands. Raises PluginError."""
    kind = filled_by(hint) or filled_by(parameter.default)
    if kind and (parameter.default is inspect.Parameter.empty or filled_by(parameter.default)):
        raise PluginError(
            f"tool {name!r}: the parameter {parameter.name!r} ({kind}) is filled by its library, which does "
            f"not run here: give it a default, or name a functools.partial({name}, {parameter.name}=...)"
        )
    return bool(kind)


def _capture(function: Anything, parameters: list[inspect.Parameter]) -> Any:
    """Returns what it is called with; takes what `parameters` say, with hints of the module of `function`."""

    def captured(*args: object, **keywords: object) -> tuple[tuple[object, ...], dict[str, object]]:
        return args, keywords

    captured.__module__ = function.__module__
    captured.__annotations__ = {one.name: one.annotation for one in parameters}
    captured.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return captured


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """A docstring's description, and what it says of each parameter.

    >>> _documented("Add.\\n\\nArgs:\\n    a (int): the first\\n        of two\\n    b: the second\\n")
    ('Add.', {'a': 'the first of two', 'b': 'the second'})
    """
    described = {match["name"]: match["text"].strip() for match in _FIELD.finditer(text)}
    section = _SECTION.search(text + "\n")
    if section is not None:
        described |= _entries(section["lines"].splitlines())
    numpy = _NUMPY.search(text)
    if numpy is not None:
        described |= _numpy_entries(numpy["lines"].splitlines())
    summary = re.split(r"^(?:\w+:|:\w+.*:.*|\w[\w ]*\n-{3,})$", text, maxsplit=1, flags=re.M)[0]
    return summary.strip(), described


def _entries(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    indent, last = "", ""
    for line in lines:
        entry = _ENTRY.match(line)
        if entry is not None and (not indent or entry["indent"] == indent):
            indent, last = entry["indent"], entry["name"]
            found[last] = entry["text"].strip()
        elif last and line.strip():
            found[last] = f"{found[last]} {line.strip()}".strip()
    return found


def _numpy_entries(lines: list[str]) -> dict[str, str]:
    """`a, b : int` at the margin, what they are indented below."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line.strip() and not line[0].isspace():
            names = [name.strip(" *") for name in line.partition(":")[0].split(",")]
        for name in names if line[:1].isspace() else ():
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _describe(parameters: dict[str, Any], described: Mapping[str, str]) -> None:
    """Add what the docstring says; leave out the titles that pydantic makes of the names."""
    parameters.setdefault("properties", {})
    for name, value in parameters["properties"].items():
        value.pop("title", None)
        if name in described:
            value.setdefault("description", described[name])


def _mistakes(error: ValidationError) -> list[str]:
    found = []
    for item in error.errors(include_url=False)[:MAX_SHOWN]:
        where = ".".join(map(str, item["loc"]))
        got = "" if "missing" in item["type"] else f", got {_shown(item['input'])}"
        found.append(f"{where}: {item['msg']}{got}")
    return found


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
