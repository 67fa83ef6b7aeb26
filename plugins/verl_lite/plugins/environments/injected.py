"""Parameters of a tool that the library it was written for fills, and no model: contexts and the like."""

import inspect
import re
import typing
from collections.abc import Iterator

from verl_lite.plugins.environments.callables import Anything

_LIBRARIES = re.compile(
    r"(agents|autogen_core|fastmcp|google\.adk|langchain|langchain_core|langgraph|llama_index|mcp|pydantic_ai"
    r"|semantic_kernel|strands|workflows)(\.|$)"
)
_FILLED = re.compile(r"Context|Runtime|RunnableConfig|Injected|CancellationToken|Depend")


def hints_of(function: Anything) -> dict[str, object]:
    """The type hints of `function` by parameter, {} where they cannot be read."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return {}


def filled_by(hint: object) -> str:
    """The class by which a library knows that a parameter or default is its own to fill; "" without one."""
    for kind in _classes(hint):
        for base in inspect.getmro(kind):
            if _FILLED.search(base.__name__) and _LIBRARIES.match(base.__module__):
                return f"{base.__module__.partition('.')[0]}.{base.__name__}"
    return ""


def _classes(hint: object) -> Iterator[type]:
    """The classes of a hint and of its `Annotated` marks; what is no class counts as its own."""
    marks, arguments = getattr(hint, "__metadata__", ()), typing.get_args(hint)
    origin = typing.get_origin(hint) or hint
    yield origin if inspect.isclass(origin) else type(origin)
    for part in (*marks, *arguments):
        yield from _classes(part)
