"""Tool calls with the right names and arguments: `tool_calls`."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from pydantic import Field

from verl_lite.plugins.calls import Call, call_of, calls_in
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

# What BFCL leaves out of account in a text: case, blanks, and these.
_IGNORED = re.compile(r"[ ,./\-_*^]")
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("integer", "int"), (int,)),
    **dict.fromkeys(("number", "float", "double"), (int, float)),
    **dict.fromkeys(("string", "str"), (str,)),
    **dict.fromkeys(("boolean", "bool"), (bool,)),
    **dict.fromkeys(("array", "list", "tuple"), (list, tuple)),
    **dict.fromkeys(("object", "dict"), (dict,)),
}


class ToolCallOptions(ConfigModel):
    """Where the expected calls and the tools are, and what counts as the same value.

    Expected calls are a list of {name, arguments}, OpenAI's tool calls, or BFCL's {function: {argument:
    [accepted, values]}}, where "" among the values makes the argument optional. A list of such lists has
    several accepted answers; an empty list means that no tool may be called. All may be JSON.
    """

    column: str = Field(
        default="", description="the column with the expected calls; by default the row's reference"
    )
    tools_column: str = Field(
        default="tools",
        description="the column with the tools' JSON schemas: types are checked, and an argument may be "
        "given its default; rows may lack it",
    )
    texts: Literal["loose", "exact"] = Field(
        default="loose",
        description="loose: without case, blanks and ,./-_*^ (as BFCL compares); exact: as is",
    )
    ordered: bool = Field(default=False, description="the calls must come in the expected order")
    turns: Literal["all", "first"] = Field(
        default="all",
        description="of a trajectory: the calls of all turns, or of the first turn that makes any",
    )
    value: Literal["all", "fraction"] = Field(
        default="all",
        description="all: 1.0 when exactly the expected calls are made; fraction: the share of expected and "
        "superfluous calls that match",
    )


class Expected(Call):
    """A call whose arguments are lists of accepted values; `None` among them: may be left out."""


_ABSENT = object()
Schemas = Mapping[str, Mapping[str, object]]


@reward("tool_calls", options=ToolCallOptions, isolate=False, cache=False)
def tool_calls_reward(rollout: Rollout, options: ToolCallOptions) -> Score:
    """1.0 when exactly the expected tool calls are made, with right arguments, in any order; else 0.0."""
    value = rollout.columns.get(options.column or "reference", rollout.reference)
    if value is None:
        return Score.failed(ScoreOutcome.ABSTAIN, "the row has no expected calls")
    try:
        accepted = _accepted_answers(value)
        schemas = _schemas(rollout.columns.get(options.tools_column) or rollout.columns.get("function"))
    except ValueError as error:
        return Score.failed(ScoreOutcome.ERROR, f"bad row: {error}")
    try:
        calls = _calls_of(rollout, options, schemas)
    except ValueError as error:
        return Score(0.0, reason=f"malformed call: {error}"[:300])
    scores = [_answer_score(calls, expected, schemas, options) for expected in accepted]
    return max(scores, key=lambda score: score.value or 0.0)


def _answer_score(
    calls: Sequence[Call], expected: Sequence[Expected], schemas: Schemas, options: ToolCallOptions
) -> Score:
    fits = [[not _mismatch(call, one, schemas, options) for one in expected] for call in calls]
    matched = _in_order(fits) if options.ordered else _matching(fits, len(expected))
    most = max(len(calls), len(expected))
    share = matched / most if most else 1.0
    value = share if options.value == "fraction" else float(share == 1.0)
    details = {"calls": len(calls), "expected": len(expected), "matched": matched}
    return Score(
        value, reason="" if share == 1.0 else _why(calls, expected, schemas, options), details=details
    )


def _why(
    calls: Sequence[Call], expected: Sequence[Expected], schemas: Schemas, options: ToolCallOptions
) -> str:
    if len(calls) != len(expected):
        return f"{len(calls)} calls, expected {len(expected)}"
    problems = [_mismatch(call, one, schemas, options) for call, one in zip(calls, expected, strict=True)]
    return next((problem for problem in problems if problem), "the calls come in another order")[:300]


def _matching(fits: Sequence[Sequence[bool]], size: int) -> int:
    """The greatest number of calls that can be paired with different expected ones (augmenting paths)."""
    owner: list[int | None] = [None] * size

    def place(call: int, seen: set[int]) -> bool:
        for one in range(size):
            if fits[call][one] and one not in seen:
                seen.add(one)
                taken = owner[one]
                if taken is None or place(taken, seen):
                    owner[one] = call
                    return True
        return False

    return sum(place(call, set()) for call in range(len(fits)))


def _in_order(fits: Sequence[Sequence[bool]]) -> int:
    return sum(at < len(row) and row[at] for at, row in enumerate(fits))


def _mismatch(call: Call, expected: Expected, schemas: Schemas, options: ToolCallOptions) -> str:
    """Why the call is not the expected one; "" if it is."""
    if _name(call.name) != _name(expected.name):
        return f"{call.name} was called, expected {expected.name}"
    schema = schemas.get(_name(call.name), {})
    properties = cast(Mapping[str, Mapping[str, object]], schema.get("properties") or {})
    order = list(properties) or list(expected.arguments)
    if len(call.positional) > len(order):
        return f"{call.name} has {len(call.positional)} arguments without a name"
    given = dict(zip(order, call.positional, strict=False))
    twice = sorted(given.keys() & call.arguments.keys())
    given.update(call.arguments)
    if twice:
        return f"{call.name}: {twice[0]} is given twice"
    for name, values in expected.arguments.items():
        accepted = cast(Sequence[object], values)
        if name not in given:
            if _ABSENT not in accepted:
                return f"{call.name} lacks {name}"
        elif not any(_fits(given[name], one, properties.get(name, {}), options.texts) for one in accepted):
            return f"{call.name}: {name}={given[name]!r:.60}"
    for name, value in given.items():
        known = properties.get(name, {})
        is_default = "default" in known and _same(value, known["default"], "exact")
        if name not in expected.arguments and not is_default:
            return f"{call.name} has no argument {name}" if properties else f"{call.name}: unexpected {name}"
    return ""


def _name(name: str) -> str:
    return name.removeprefix("functions.").replace(".", "_")  # many formats allow no dots in names


def _fits(given: object, accepted: object, schema: Mapping[str, object], texts: str) -> bool:
    """Equal, and of the accepted value's own type or the schema's: 5.0 is no integer, 5 is a number."""
    return _same(given, accepted, texts) and (type(given) is type(accepted) or _has_type(given, schema))


def _has_type(value: object, schema: Mapping[str, object]) -> bool:
    kind = schema.get("type")
    types = _TYPES.get(kind) if isinstance(kind, str) else None
    if types is None:
        return True
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _same(given: object, expected: object, texts: str) -> bool:
    """Equal in value and kind: 5 and 5.0 are, 1 and True or "1" are not."""
    if isinstance(given, str) and isinstance(expected, str):
        return given == expected or (texts == "loose" and _loose(given) == _loose(expected))
    if isinstance(given, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(given) == len(expected) and all(
            _same(one, other, texts) for one, other in zip(given, expected, strict=True)
        )
    if isinstance(given, Mapping) and isinstance(expected, Mapping):
        return _same_mapping(given, expected, texts)
    if isinstance(given, bool) or isinstance(expected, bool) or given is None or expected is None:
        return given is expected
    numbers = isinstance(given, (int, float)) and isinstance(expected, (int, float))
    return numbers and given == expected


def _same_mapping(given: Mapping[str, object], expected: Mapping[str, object], texts: str) -> bool:
    """In BFCL's form each key has a list of accepted values, "" for one that may be missing."""
    if given.keys() == expected.keys() and all(_same(given[key], expected[key], texts) for key in given):
        return True
    if not expected or not all(isinstance(values, list) for values in expected.values()):
        return False
    accepted = cast(Mapping[str, list[object]], expected)
    return given.keys() <= accepted.keys() and all(
        any(_same(given[key], one, texts) for one in values) if key in given else "" in values
        for key, values in accepted.items()
    )


def _loose(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')


def _calls_of(rollout: Rollout, options: ToolCallOptions, schemas: Schemas) -> list[Call]:
    made = [turn.tool_calls for turn in rollout.turns if turn.role == "assistant" and turn.tool_calls]
    if not rollout.turns or (not made and len(rollout.turns) == 1):
        return calls_in(rollout.completion, schemas)
    made = made[:1] if options.turns == "first" else made
    return [call_of(call) for calls in made for call in calls]


def _accepted_answers(value: object) -> list[list[Expected]]:
    """The accepted answers, each a list of expected calls. Raises ValueError."""
    value = _plain(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list of tool calls, got {value!r:.80}")
    items = [_plain(item) for item in value]
    if items and all(isinstance(item, (list, tuple)) for item in items):
        return [[_expected(_plain(call)) for call in cast(list[object], item)] for item in items]
    return [[_expected(item) for item in items]]


def _plain(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(f"the expected calls are no JSON: {value[:80]!r}") from None


def _expected(item: object) -> Expected:
    if isinstance(item, Mapping) and len(item) == 1 and not {"function", "name"} & set(item):
        [(name, arguments)] = item.items()
        if isinstance(arguments, Mapping) and all(isinstance(one, list) for one in arguments.values()):
            values = {
                key: [_ABSENT if one == "" else one for one in given] for key, given in arguments.items()
            }
            for key, given in arguments.items():
                if "" in given:
                    values[key].append("")
            return Expected(name, values)
    call = call_of(item)
    return Expected(call.name, {key: [value] for key, value in call.arguments.items()})


def _schemas(tools: object) -> Schemas:
    """Each tool's parameters by its name. Raises ValueError."""
    tools = _plain(tools) if tools else []
    found: dict[str, Mapping[str, object]] = {}
    for tool in cast(Sequence[object], [tools] if isinstance(tools, Mapping) else tools):
        tool = _plain(tool)
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise ValueError(f"expected the JSON schema of a tool, got {tool!r:.80}")
        found[_name(inner["name"])] = inner.get("parameters") or inner.get("input_schema") or {}
    return found
