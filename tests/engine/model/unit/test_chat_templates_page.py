"""The table of chat templates in docs/data.md is what the templates do today."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[4]


def test_the_table_is_fresh(chat_families: Any, load_script: Callable[[str], ModuleType]) -> None:
    script = load_script("scripts/chat_templates_page.py")
    (shown,) = script.PART.findall((ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert shown == script.table(chat_families), "stale: run python scripts/chat_templates_page.py"
    assert len(shown.splitlines()) == 2 + len(chat_families)
