"""Hooks of mkdocs.yml: the site's pages that are not files in docs/.

The README is the first page; the benchmarks' results, the examples and CONTRIBUTING.md are there because
pages link to them; api.md has every public name, read from the rooms' stubs.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
COPIED = ("*.md", "benchmarks/**/*.md", "examples/*.*", "examples/*/README.md")
ROOMS = {
    "Rewards": "plugins/verl_lite/plugins",
    "The lab": "plugins/verl_lite/lab/notebook",
    "Verifiers": "verifiers/verl_lite/verifiers",
    "Sandbox": "sandbox/verl_lite/sandbox",
    "Training": "engine/verl_lite/engine",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for path in sorted({path for pattern in COPIED for path in ROOT.glob(pattern)}):
        own = str(path.relative_to(ROOT))
        name = NAMES.get(own, own)
        files.append(File.generated(config, name, content=_moved(path.read_text(), name)))
    files.append(File.generated(config, "api.md", content=api()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to the site's own copies."""
    markdown = re.sub(r"\]\(\.\./(benchmarks|examples)/", r"](\1/", markdown)
    return markdown.replace("](../CONTRIBUTING.md", "](contributing.md").replace(
        "](../README.md", "](index.md"
    )


def _moved(text: str, name: str) -> str:
    """A file's links as seen from its place in the site: what was in docs/ is at the top."""
    text = re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", text)
    return text.replace("](CONTRIBUTING.md", "](contributing.md").replace("](CHANGELOG.md", "](changelog.md")


def api() -> str:
    """Markdown that documents every public name, room by room."""
    lines = ["# Python\n", "The names a program may import; the modules they are in are private.\n"]
    for title, room in ROOMS.items():
        package = ".".join(Path(room).parts[1:])
        lines += [f"## {title}\n", f"`from {package} import ...`\n"]
        lines += [f"::: {name}\n" for name in _public(ROOT / room, package)]
    return "\n".join(lines)


def _public(room: Path, package: str) -> Iterator[str]:
    """Where each name that the room's stub, or its __init__.py, imports is defined."""
    stub = room / "__init__.pyi"
    for node in ast.parse((stub if stub.is_file() else room / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"{package}.{node.module}" if node.level else node.module
            if module.startswith("verl_lite"):
                yield from (f"{module}.{alias.name}" for alias in node.names)


class Laid(griffe.Extension):
    """Docstrings keep their layout: doctests and aligned columns become code blocks."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(map(_fenced, obj.docstring.value.split("\n\n")))


def _fenced(paragraph: str) -> str:
    if paragraph.startswith(">>>"):
        return f"```pycon\n{paragraph}\n```"
    is_laid_out = any(re.search(r"\S  +\S", line) or line.startswith("  ") for line in paragraph.splitlines())
    return f"```text\n{paragraph}\n```" if is_laid_out else paragraph
