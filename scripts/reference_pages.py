"""Writes the pages of docs/ that are made from the code.

    python scripts/reference_pages.py           write the pages
    python scripts/reference_pages.py --check   exit code 1 if one is stale

configuration.md and config.schema.json come from the models of the config, cli.md from the commands' --help.
In builtin-rewards.md the parts between `<!-- table -->`, `<!-- rubric -->` or `<!-- options: NAME -->` and
the next `<!-- end -->` come from the rewards.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import typer.main
from pydantic import BaseModel

from verl_lite.cli.app import app
from verl_lite.engine.config import TrainConfig, json_schema
from verl_lite.lab import ScoringOptions
from verl_lite.lab.attack import attack_rewards
from verl_lite.plugins import RewardDefinition, find_rewards, load_rewards_config
from verl_lite.plugins.builtin import DEFAULT_RUBRIC
from verl_lite.plugins.settings import Section, Setting, sections_of, settings_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CATALOGUE = ROOT / "tests" / "plugins" / "golden" / "catalogue"
OWN_PAGES = ("code", "math")  # rewards described on pages of their own
CONFIGURATION = """# Configuration

Every setting of a training config, section by section. `verl-lite config show CONFIG --explain` prints a
config with these texts above its settings, and `verl-lite config schema` the JSON Schema that editors
complete and check with. On the command line a setting is given as `key.path=value`.
"""
COMMANDS = """# Commands

What `--help` prints. Exit codes: 0 fine; 1 a gate failed (a check, a comparison, a threshold); 2 the
input is wrong, with one message that says what to do; 130 stopped by Ctrl-C, with a checkpoint to
resume from.

On a terminal, long work shows a bar on stderr with what is done, of how much, and the time left; in a pipe
there is none, and stdout has the result alone. `NO_COLOR` and `COLUMNS` are respected.
"""


def main() -> int:
    pages = {
        "configuration.md": configuration(),
        "config.schema.json": json.dumps(json_schema(), indent=1) + "\n",
        "cli.md": commands(),
        "builtin-rewards.md": builtin_rewards(_text(DOCS / "builtin-rewards.md")),
    }
    stale = [name for name, text in pages.items() if _text(DOCS / name) != text]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/{name} is stale: run python scripts/reference_pages.py")
        return bool(stale)
    for name in stale:
        (DOCS / name).write_text(pages[name])
    return 0


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def configuration() -> str:
    return "\n".join(
        [CONFIGURATION, *(line for section in sections_of(TrainConfig) for line in _section(section))]
    )


def _section(section: Section) -> Iterator[str]:
    first, *others = section.paths
    yield f"## {f'`{first}`' if first else 'The whole config'}\n"
    if others:
        yield "Also at " + ", ".join(f"`{path}`" for path in dict.fromkeys(others)) + ".\n"
    yield (inspect.getdoc(section.model) or "").strip() + "\n"
    yield from _settings("setting", section.settings)
    yield ""


def _settings(head: str, settings: Sequence[Setting]) -> Iterator[str]:
    yield f"| {head} | takes | default | |"
    yield "|---|---|---|---|"
    for one in settings:
        default = "**required**" if one.is_required else f"`{one.default}`" if one.default else ""
        if "\\n" in default:  # a text of several lines stands on the page by itself
            default = "see below"
        yield _cells(f"`{one.name}`", one.values, default, one.description)


def _cells(*texts: str) -> str:
    """A row of a table; what looks like HTML is escaped outside of code."""
    return "| " + " | ".join(_plain(" ".join(text.split())).replace("|", "\\|") for text in texts) + " |"


def _plain(text: str) -> str:
    return "".join(
        part if at % 2 else part.replace("<", "&lt;") for at, part in enumerate(re.split("(`[^`]*`)", text))
    )


def commands() -> str:
    root = typer.main.get_command(app)
    return "\n".join([COMMANDS, *_command(root, ["verl-lite"])])


def _command(command: click.Command, path: list[str]) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(path))
    children = getattr(command, "commands", {})
    if not children:
        yield f"## {' '.join(path)}\n"
        yield inspect.cleandoc(command.help or "") + "\n"
        yield "| option | |"
        yield "|---|---|"
        for parameter in command.get_params(context):
            name, says = parameter.get_help_record(context) or (parameter.human_readable_name, "")
            yield _cells(f"`{name}`", says)
        yield ""
    for name, child in sorted(children.items()):
        yield from _command(child, [*path, name])


def builtin_rewards(page: str) -> str:
    """`page` with every part made anew. Raises SystemExit if a reward has no part."""
    rewards = {
        name: definition
        for name, definition in find_rewards().rewards.items()
        if definition.distribution == "verl-lite" and name not in OWN_PAGES
    }
    shown = re.findall(r"<!-- options: (\S+) -->", page)
    if sorted(shown) != sorted(rewards):
        raise SystemExit(f"builtin-rewards.md shows {sorted(shown)}, and the rewards are {sorted(rewards)}")

    def part(match: re.Match[str]) -> str:
        if match[1] == "rubric":
            what = f"```text\n{DEFAULT_RUBRIC}```"
        else:
            lines = _rewards(rewards) if match[1] == "table" else _options(rewards[match[2]].options_model)
            what = "\n".join(lines)
        return f"<!-- {match[1]} -->\n\n{what}\n\n<!-- end -->"

    return re.sub(r"<!-- (table|rubric|options: (\S+)) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def _rewards(rewards: Mapping[str, RewardDefinition]) -> Iterator[str]:
    yield "| reward | value | runs | hacks that pay |"
    yield "|---|---|---|---|"
    for name, definition in sorted(rewards.items()):
        yield _cells(f"[`{name}`](#{name})", definition.summary, _where(definition), _exploits(definition))


def _exploits(definition: RewardDefinition) -> str:
    """How many of the catalogue's attacks the reward pays for, measured now; "" without a file of them."""
    if definition.is_remote:
        return "the judge's own"
    attacks = CATALOGUE / f"{definition.name}.attacks.jsonl"
    if not attacks.exists():
        return ""
    config = load_rewards_config(CATALOGUE / f"{definition.name}.yaml")
    report = attack_rewards(config, attacks=attacks, scoring=ScoringOptions(debug_inline=True))
    return f"{len(report.exploits)} of {report.num_attacks}"


def _where(definition: RewardDefinition) -> str:
    if definition.is_async:
        return f"event loop, {definition.timeout_s:g} s"
    if definition.isolate:
        return f"worker process, {definition.timeout_s:g} s"
    return "own thread, in batches" if definition.form == "batch" else "in place"


def _options(model: type[BaseModel]) -> Iterator[str]:
    """The model's docstring, whose indented or aligned lists keep their layout, and its options."""
    first, _, rest = (inspect.getdoc(model) or "").partition("\n\n")
    yield f"{first}\n\n```text\n{rest}\n```" if "  " in rest else "\n\n".join(filter(None, (first, rest)))
    yield ""
    yield from _settings("option", settings_of(model))


if __name__ == "__main__":
    raise SystemExit(main())
