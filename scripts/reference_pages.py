"""Writes docs/configuration.md and docs/config.schema.json from the models of the config, and docs/cli.md
from the commands' --help.

python scripts/reference_pages.py           write the pages
python scripts/reference_pages.py --check   exit code 1 if one is stale
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import typer.main

from verl_lite.cli.app import app
from verl_lite.engine.config import TrainConfig, json_schema
from verl_lite.plugins.settings import Section, Setting, sections_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
CONFIGURATION = """# Configuration

Every setting of a training config, section by section. `verl-lite config show CONFIG --explain` prints a
config with these texts above its settings, and `verl-lite config schema` the JSON Schema that editors
complete and check with. On the command line a setting is given as `key.path=value`.
"""
COMMANDS = """# Commands

What `--help` prints. Exit codes: 0 fine; 1 a gate failed (a check, a comparison, a threshold); 2 the
input is wrong, with one message that says what to do; 130 stopped by Ctrl-C, with a checkpoint to
resume from.
"""


def main() -> int:
    pages = {
        "configuration.md": configuration(),
        "config.schema.json": json.dumps(json_schema(), indent=1) + "\n",
        "cli.md": commands(),
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
    yield "| setting | takes | default | |"
    yield "|---|---|---|---|"
    yield from map(_row, section.settings)
    yield ""


def _row(setting: Setting) -> str:
    default = "**required**" if setting.is_required else f"`{setting.default}`" if setting.default else ""
    return _cells(f"`{setting.name}`", setting.values, default, setting.description)


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


if __name__ == "__main__":
    raise SystemExit(main())
