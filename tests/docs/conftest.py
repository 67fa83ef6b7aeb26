"""Run a page of docs/: write its files, run its commands, compare what they print with the page.

A fenced block after a line that ends with `` `path`: `` is that file. In a ```console block every line
that starts with "$ " is a command, and the lines up to the next one are its output. Times and rates
are not compared, nor how many blanks stand between two words; everything else is.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(r"(?:^(?P<lead>[^\n]*)\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_FILE = re.compile(r"`(?P<path>[\w./-]+\.\w+)`[^`]*:$")
_MEASURED = re.compile(r"\b\d[\d.,]*(e-?\d+)?(?=( ?(s|ms|us)|/s)\b)")


@dataclass(frozen=True)
class Block:
    """`path` is the file it is, "" for other blocks; `line` is where it stands in the page."""

    language: str
    text: str
    path: str
    line: int


class Page:
    def __init__(self, name: str) -> None:
        self.name = name
        self.blocks = list(_blocks((DOCS / name).read_text(encoding="utf-8")))

    def run(self, folder: Path, variables: Mapping[str, str]) -> None:
        """Go through the page from top to bottom, in `folder`; `cd` lasts until the next one."""
        here = folder
        for block in self.blocks:
            if block.path:
                path = here / block.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.language == "console":
                here = self._run_console(block, here, folder, variables)

    def _run_console(self, block: Block, here: Path, folder: Path, variables: Mapping[str, str]) -> Path:
        for command, expected in _commands(block.text):
            where = folder / ".where"
            script = f"{command}\nstatus=$?\npwd > '{where}'\nexit $status"
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=here,
                env=dict(variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
            place = f"docs/{self.name}, line {block.line}: $ {command}"
            assert done.returncode == 0, f"{place}\nended with {done.returncode}:\n{done.stdout}"
            assert _comparable(done.stdout) == _comparable(expected), f"{place}\nprinted:\n{done.stdout}"
            here = Path(where.read_text().strip())
        return here


def _blocks(text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        named = _FILE.search(match["lead"] or "")
        yield Block(
            language=match["language"],
            text=match["text"],
            path=named["path"] if named and match["language"] != "console" else "",
            line=text.count("\n", 0, match.start("language")) + 1,
        )


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command with what it should print; a command goes on after a backslash at a line's end."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        lines = part.splitlines()
        length = next(i for i, line in enumerate(lines) if not line.endswith("\\")) + 1
        yield "\n".join(lines[:length]), "\n".join(lines[length:])


def _comparable(output: str) -> list[str]:
    lines = []
    under_times = False  # in a table whose last column is in ms
    for line in output.splitlines():
        words = line.split()
        under_times = bool(words) and (under_times or words[-2:] == ["p50", "ms"])
        if under_times and words[-1] != "ms":
            words[-1] = "#"
        lines.append(_MEASURED.sub("#", " ".join(words)))
    return [line for line in lines if line]


@pytest.fixture
def page() -> type[Page]:
    return Page
