"""Generates parts of docs/builtin-rewards.md from the rewards themselves.

    python scripts/builtin_rewards_page.py           write the page
    python scripts/builtin_rewards_page.py --check   exit code 1 if it is stale

A generated part stands between `<!-- table -->`, `<!-- rubric -->` or `<!-- options: NAME -->` and the
next `<!-- end -->`.
"""

import inspect
import json
import re
import sys
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from verl_lite.lab import ScoringOptions
from verl_lite.lab.attack import attack_rewards
from verl_lite.plugins import RewardDefinition, find_rewards, load_rewards_config
from verl_lite.plugins.builtin import DEFAULT_RUBRIC

PAGE = Path(__file__).resolve().parent.parent / "docs" / "builtin-rewards.md"
OWN_PAGES = ("code", "math")  # described on pages of their own
MAX_DEFAULT_CHARS = 40
CATALOGUE = PAGE.parent.parent / "tests" / "plugins" / "golden" / "catalogue"


def main() -> int:
    text = PAGE.read_text()
    fresh = filled(text)
    if fresh == text:
        return 0
    if "--check" in sys.argv[1:]:
        print(f"{PAGE.name} is stale: run python scripts/builtin_rewards_page.py")
        return 1
    PAGE.write_text(fresh)
    return 0


def filled(page: str) -> str:
    """`page` with every part regenerated. Raises SystemExit if a reward has no part."""
    rewards = {
        name: definition
        for name, definition in find_rewards().rewards.items()
        if definition.distribution == "verl-lite" and name not in OWN_PAGES
    }
    shown = re.findall(r"<!-- options: (\S+) -->", page)
    if sorted(shown) != sorted(rewards):
        raise SystemExit(f"{PAGE.name} shows {sorted(shown)}, and the rewards are {sorted(rewards)}")

    def part(match: re.Match[str]) -> str:
        if match[1] == "rubric":
            what = f"```text\n{DEFAULT_RUBRIC}```"
        else:
            what = table(rewards) if match[1] == "table" else options(rewards[match[2]].options_model)
        return f"<!-- {match[1]} -->\n\n{what}\n\n<!-- end -->"

    return re.sub(r"<!-- (table|rubric|options: (\S+)) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def table(rewards: dict[str, RewardDefinition]) -> str:
    lines = ["| reward | value | runs | hacks that pay |", "|---|---|---|---|"]
    for name in sorted(rewards):
        definition = rewards[name]
        summary, paid = cell(definition.summary), exploits(definition)
        lines.append(f"| [`{name}`](#{name}) | {summary} | {where(definition)} | {paid} |")
    return "\n".join(lines)


def exploits(definition: RewardDefinition) -> str:
    """How many of the catalogue's attacks the reward pays for, measured now; "" without a file of them."""
    if definition.is_remote:
        return "the judge's own"
    attacks = CATALOGUE / f"{definition.name}.attacks.jsonl"
    if not attacks.exists():
        return ""
    config = load_rewards_config(CATALOGUE / f"{definition.name}.yaml")
    report = attack_rewards(config, attacks=attacks, scoring=ScoringOptions(debug_inline=True))
    return f"{len(report.exploits)} of {report.num_attacks}"


def where(definition: RewardDefinition) -> str:
    if definition.is_async:
        return f"event loop, {definition.timeout_s:g} s"
    if definition.isolate:
        return f"worker process, {definition.timeout_s:g} s"
    return "own thread, in batches" if definition.form == "batch" else "in place"


def options(model: type[BaseModel]) -> str:
    lines = [model_text(model), "", "| option | type | default | |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        lines.append(
            f"| `{name}` | {type_name(info.annotation)} | {default(info)} | {cell(info.description or '')} |"
        )
    return "\n".join(lines)


def model_text(model: type[BaseModel]) -> str:
    """The model's docstring; indented or aligned lists keep their layout."""
    first, _, rest = (inspect.getdoc(model) or "").partition("\n\n")
    return f"{first}\n\n```text\n{rest}\n```" if "  " in rest else "\n\n".join(filter(None, (first, rest)))


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    text = json.dumps(info.default)
    return f"`{text}`" if len(text) <= MAX_DEFAULT_CHARS else "see below"


def type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, UnionType):
        kinds = [type_name(argument) for argument in arguments if argument is not NoneType]
        return " or ".join([*kinds, "null"])
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, "mapping")


if __name__ == "__main__":
    raise SystemExit(main())
