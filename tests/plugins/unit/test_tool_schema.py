"""Functions as JSON schemas, and what a model gives checked against them."""

import asyncio
import functools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from pydantic import BaseModel, Field

from verl_lite.errors import PluginError
from verl_lite.plugins import find_rewards
from verl_lite.plugins.environments import Environments, ToolConfig
from verl_lite.plugins.environments.binding import find_tool
from verl_lite.plugins.environments.callables import name_of
from verl_lite.plugins.environments.schema import BadArguments, signature_of
from verl_lite.plugins.local_files import import_file

T = TypeVar("T")


class Place(BaseModel):
    city: str
    zip: int = 0


def plan(
    place: Place,
    days: Annotated[int, Field(ge=1, description="how long")] = 3,
    *,
    mode: Literal["train", "bus"] = "train",
    stops: list[str] | None = None,
) -> str:
    """Plan a trip.

    By land only.

    Args:
        place: where
            to go
        mode (str): by what
        stops (list of str): on the way

    Returns:
        the plan
    """
    return f"{place.city} {days} {mode} {stops}"


async def sphinx(question: str) -> str:
    """Ask.

    :param question: the question
    """
    return question


def scale(x: float, y: float, by: int = 2) -> float:
    """Scale a vector.

    In the plane.

    Parameters
    ----------
    x, y : float
        The coordinates,
        both of them.
    by : int, optional
        The factor.

    Returns
    -------
    float
        The length.
    """
    return (x * x + y * y) ** 0.5 * by


def test_a_docstring_in_numpys_style() -> None:
    function = signature_of(scale, name="scale").schema["function"]
    assert function["description"] == "Scale a vector.\n\nIn the plane."
    properties: Any = function["parameters"]["properties"]
    assert {name: value["description"] for name, value in properties.items()} == {
        "x": "The coordinates, both of them.",
        "y": "The coordinates, both of them.",
        "by": "The factor.",
    }


def test_hints_and_docstring_become_the_schema() -> None:
    function = signature_of(plan, name="plan").schema["function"]
    assert (function["name"], function["description"]) == ("plan", "Plan a trip.\n\nBy land only.")
    properties: Any = function["parameters"]["properties"]
    assert properties["days"] == {
        "type": "integer", "minimum": 1, "default": 3, "description": "how long",
    }  # fmt: skip
    assert properties["mode"]["enum"] == ["train", "bus"]
    assert [properties[name].get("description") for name in ("place", "mode", "stops")] == [
        "where to go",
        "by what",
        "on the way",
    ]
    assert function["parameters"]["required"] == ["place"]
    asked: Any = signature_of(sphinx, name="ask").schema["function"]
    assert asked["parameters"]["properties"]["question"]["description"] == "the question"
    assert asked["description"] == "Ask."


def test_arguments_become_what_the_hints_say() -> None:
    given = signature_of(plan, name="plan").read('{"place": {"city": "Rome", "zip": "7"}, "days": "2"}')
    assert given == {"place": Place(city="Rome", zip=7), "days": 2, "mode": "train", "stops": None}
    assert plan(**given) == "Rome 2 train None"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{", "not valid JSON"),
        ("", "place: Missing required argument"),
        ("null", "must be a JSON object, got null"),
        ('"Rome"', 'must be a JSON object, got "Rome"'),
        ('{"place": {"city": "Rome"}, "days": 0}', "days: Input should be greater than or equal to 1, got 0"),
        ('{"place": {"city": "Rome"}, "speed": 9}', "speed: Unexpected keyword argument"),
        ('{"place": "Rome"}', "place: Input should be a valid dictionary"),
        ("[" * 5000, "not valid JSON"),
        ('{"place": {"city": "R"}, "mode": "' + "x" * 1000 + '"}', "..."),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(arguments: str, message: str) -> None:
    with pytest.raises(BadArguments) as found:
        signature_of(plan, name="plan").read(arguments)
    assert message in str(found.value)
    assert len(str(found.value)) < 300


def no_hint(x): ...  # type: ignore[no-untyped-def]


def many(*values: int) -> None: ...


def anything(**values: int) -> None: ...


def position(x: int, /) -> None: ...


def odd(x: Callable[[int], int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_hint, "the parameter 'x' has no type hint"),
        (many, "is variadic positional, so it has no name that the model could give"),
        (anything, "is variadic keyword, so it has no name"),
        (position, "is positional-only, so it has no name"),
        (odd, "not types of JSON values"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused(function: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        signature_of(function, name="f")


ODD = Path(__file__).parents[1] / "fixtures" / "odd_tools.py"
RICH = (
    '{"p": {"x": 1}, "m": {"a": 2}, "td": {"k": "v"}, "c": "red", "when": "2026-01-01", "ps": [{"x": 1}], '
    '"nt": [1]}'
)


@pytest.mark.parametrize(
    ("path", "arguments", "answer", "given"),
    [
        ("named", '{"query": "q"}', "q K 3", "query limit"),
        ("named", '{"query": "q", "key": "x"}', "Error: key: Unexpected keyword argument", "query limit"),
        ("positional", '{"key": "k"}', "fixed k 3", "key limit"),
        ("nested", '{"query": "q"}', "q K 9", "query"),
        ("of_box", "{}", "40", ""),
        ("async_partial", '{"n": 1}', "6", "n"),
        ("box", '{"n": 2}', "20", "n"),
        ("bound", '{"n": 2}', "12", "n"),
        ("of_class", '{"n": 2}', "Box2", "n"),
        ("Box.of_class", '{"n": 2}', "Box2", "n"),
        ("Box.static", '{"n": 2}', "static2", "n"),
        ("box.add", '{"n": 2}', "12", "n"),
        ("async_call", '{"n": 2}', "4", "n"),
        ("Inherits", '{"n": 2}', "4", "n"),
        ("cached", '{"n": 2}', "3", "n"),
        ("decorated", '{"a": 1}', "1x", "a b"),
        ("optional", '{"a": "7", "d": "5"}', "7 None '5'", "a b d"),
        ("literal", '{"mode": 1}', "1", "mode"),
        ("literal", '{"mode": "z"}', "Error: mode: Input should be 'x' or 1, got \"z\"", "mode"),
        ("rich", RICH, "Point Model dict Color date Point Pair", "p m td c when ps nt"),
        ("annotated", '{"a": 1}', "Error: a: Input should be greater than or equal to 3, got 1", "a"),
        ("generator", '{"n": 3}', "[0,1,2]", "n"),
        ("async_generator", '{"n": 3}', "[0,1,2]", "n"),
        ("unknown_return", "{}", "fine", ""),
        ("names_of_pydantic", '{"schema": 1, "json": "x"}', "1x", "schema json"),
        ("not_utf8", "{}", "Error: PydanticSerializationError", ""),
        ("object_of_peer.func", '{"n": 2}', "4", "n"),
        ("callable_of_peer.forward", '{"n": 2}', "4", "n"),
    ],
)  # fmt: skip
def test_callables_of_every_kind_are_tools(path: str, arguments: str, answer: str, given: str) -> None:
    call: Any = {"id": "1", "type": "function", "function": {"name": "odd", "arguments": arguments}}

    async def called() -> tuple[Any, Any]:
        await session.reset()
        step = await session.step({"role": "assistant", "content": "", "tool_calls": [call]})
        return session.tools[0], step.messages[0]["content"]

    tools = [ToolConfig(use=f"{ODD}:{path}", name="odd")]
    with Environments(tools=tools, debug_inline=True) as host:
        session = host.open({"prompt": "?"}, seed=0)
        schema, content = asyncio.run(called())
    assert content.startswith(answer)
    assert " ".join(schema["function"]["parameters"]["properties"]) == given


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (f"{ODD}:Box.add", "the parameter 'self' has no type hint: name the method of an object"),
        (f"{ODD}:NoOptions", r"the class must take its options: def __init__\(self, options\)"),
        (f"{ODD}:NoCall", "the class NoCall has no __call__"),
        (f"{ODD}:unknown_hint", "its type hints are not types of JSON values: name 'Missing' is not defined"),
        (f"{ODD}:object_of_peer", "it holds one: use .*odd_tools.py:object_of_peer.func$"),
        (f"{ODD}:callable_of_peer", "and no function; it holds one: use .*callable_of_peer.forward$"),
        (f"{ODD}:box.lid", "has no 'box.lid'"),
        ("math:gcd", "the parameter '\\*integers' is variadic positional"),
        ("operator:add", "the parameter 'a' is positional-only"),
        ("builtins:max", "does not say what it takes: write a function with type hints"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_in_one_message(use: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Environments(tools=[ToolConfig(use=use)])


def test_a_tool_by_a_path_has_the_name_of_its_function() -> None:
    catalog = find_rewards()
    names = {
        path: find_tool(f"{ODD}:{path}", catalog).name for path in ("object_of_peer.func", "bound", "named")
    }
    assert names == {"object_of_peer.func": "add_two", "bound": "bound", "named": "named"}
    odd = import_file(ODD)
    assert [name_of(one) for one in (odd.named, odd.box, odd.bound)] == ["find", "Box", "add"]


def of_library(name: str, module: str, *bases: Any) -> Any:
    """A class as a library has it, which the tests do not install."""
    return types.new_class(name, bases, exec_body=lambda body: body.update(__module__=module))


RunContextWrapper = of_library("RunContextWrapper", "agents.run_context", Generic[T])
RunContext = of_library("RunContext", "pydantic_ai._run_context", Generic[T])
InjectedToolArg = of_library("InjectedToolArg", "langchain_core.tools.base")
InjectedState = of_library("InjectedState", "langgraph.prebuilt.tool_node", InjectedToolArg)
ToolRuntime = of_library("ToolRuntime", "langgraph.prebuilt.tool_node")
Context = of_library("Context", "mcp.server.mcpserver.context")
CurrentContext = of_library("_CurrentContext", "fastmcp.server.dependencies")
FILLED = [
    (RunContextWrapper[dict], "agents.RunContextWrapper"),
    (RunContext[int], "pydantic_ai.RunContext"),
    (Annotated[str, InjectedToolArg], "langchain_core.InjectedToolArg"),
    (Annotated[dict, InjectedState()], "langgraph.InjectedState"),
    (ToolRuntime, "langgraph.ToolRuntime"),
    (Context | None, "mcp.Context"),
    ("Context", "mcp.Context"),
]


def asking(hint: Any, *default: Any) -> Callable[..., str]:
    """A tool with a parameter `ctx` of this hint."""

    def ask(query: str, ctx: Any = None) -> str:
        return f"{query} {ctx}"

    if not default:
        ask.__defaults__ = None
    else:
        ask.__defaults__ = default
    ask.__annotations__["ctx"] = hint
    return ask


@pytest.mark.parametrize(("hint", "kind"), FILLED)
def test_what_a_library_fills_is_refused_without_a_value_and_hidden_with_one(hint: Any, kind: str) -> None:
    with pytest.raises(PluginError) as caught:
        signature_of(asking(hint), name="ask")
    assert str(caught.value) == (
        f"tool 'ask': the parameter 'ctx' ({kind}) is filled by its library, which does not run here: give "
        "it a default, or name a functools.partial(ask, ctx=...)"
    )
    for call in (asking(hint, None), functools.partial(asking(hint), ctx=None)):
        signature = signature_of(call, name="ask")
        assert list(signature.schema["function"]["parameters"]["properties"]) == ["query"]  # type: ignore[call-overload]
        assert call(**signature.read('{"query": "a"}')) == "a None"
        with pytest.raises(BadArguments, match="ctx"):
            signature.read('{"query": "a", "ctx": {}}')


def test_a_default_that_only_a_library_understands_is_no_value() -> None:
    with pytest.raises(PluginError, match=r"the parameter 'ctx' \(fastmcp\._CurrentContext\)"):
        signature_of(asking(Any, CurrentContext()), name="ask")


def test_a_class_of_the_author_s_own_is_the_model_s_to_give() -> None:
    class SearchContext(BaseModel):
        city: str

    signature = signature_of(asking(SearchContext), name="ask")
    assert signature.read('{"query": "a", "ctx": {"city": "Rome"}}')["ctx"] == SearchContext(city="Rome")


def test_hints_that_cannot_be_evaluated_are_one_message() -> None:
    with pytest.raises(PluginError, match="its type hints are not types of JSON values"):
        signature_of(asking("RunContextWrapper[int, int]"), name="ask")
