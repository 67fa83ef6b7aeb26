"""The table of chat templates in docs/data.md is what the templates do today."""

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]


def test_the_table_is_fresh(chat_families: Any) -> None:
    path = ROOT / "scripts" / "chat_templates_page.py"
    spec = importlib.util.spec_from_file_location("chat_templates_page", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (shown,) = script.PART.findall((ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert shown == script.table(chat_families), "stale: run python scripts/chat_templates_page.py"
    assert len(shown.splitlines()) == 2 + len(chat_families)
