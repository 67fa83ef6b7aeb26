"""The pages of docs/ that are commands and files from top to bottom do what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow  # its commands, each: tests/authoring
def test_write_a_plugin(page: Callable[[str], Any], environment: Any, tmp_path: Path) -> None:
    tutorial = page("write-a-plugin.md")
    unused = [block for block in tutorial.blocks if not block.path and block.language != "console"]
    assert unused == [], "every block is a file or commands"
    assert sum(block.language == "console" for block in tutorial.blocks) >= 8
    work = tmp_path / "work"
    work.mkdir()
    tutorial.run(work, environment.variables)


@pytest.mark.slow  # each trains the tiny model for two steps
@pytest.mark.parametrize(("name", "num_files"), [("first-run.md", 5), ("first-environment.md", 4)])
def test_first_steps(
    page: Callable[[str], Any], environment: Any, tmp_path: Path, name: str, num_files: int
) -> None:
    tutorial = page(name)
    unused = {block.language for block in tutorial.blocks if not block.path and block.language != "console"}
    assert unused <= {"bash"}, "every block is a file or commands; bash is for a GPU"
    assert sum(bool(block.path) for block in tutorial.blocks) == num_files
    tutorial.run(tmp_path, environment.variables)


def test_the_runner_finds_a_page_that_lies(
    page: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "`a.txt`:\n\n```text\nhello\n```\n\n```console\n$ mkdir b && cd b\n$ cat \\\n  ../a.txt\n%s\n```\n"
    monkeypatch.setitem(page.__init__.__globals__, "DOCS", tmp_path)  # type: ignore[misc]
    (tmp_path / "page.md").write_text(text % "hello")
    page("page.md").run(tmp_path, {"PATH": "/usr/bin:/bin"})
    (tmp_path / "page.md").write_text((text % "goodbye").replace("mkdir b && ", ""))
    with pytest.raises(AssertionError, match=r"docs/page.md, line 7: \$ cat"):
        page("page.md").run(tmp_path, {"PATH": "/usr/bin:/bin"})
