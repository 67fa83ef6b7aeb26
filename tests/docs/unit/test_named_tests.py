"""The tests, fixtures and corpora that pages name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("tests/*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("benchmarks/**/*.md"),
]
OF_A_PLUGIN = ("tests/golden/", "tests/test_")  # in the project of someone who writes one


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"(?<![\w/])tests/[\w/.-]*\w", page.read_text(encoding="utf-8"))
    ours = [name for name in named if not name.startswith(OF_A_PLUGIN) and "NAME" not in name]
    missing = [name for name in ours if not (ROOT / name).exists()]
    assert missing == []


def test_the_pages_are_found_and_name_some() -> None:
    assert sum("tests/" in page.read_text(encoding="utf-8") for page in PAGES) > 5
