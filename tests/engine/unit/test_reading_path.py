"""docs/architecture.md names the files to read for the algorithm: they exist, and stay short."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
MAX_LINES = 1500
STAGES = ["config", "the step", "rollout", "scoring", "advantages", "loss", "update", "sync"]


def test_the_reading_path_is_short_and_its_lines_are_true() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("### The reading path")[2].partition("\n#")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| `(engine|plugins)/(\S+)` \| (\d+) \|$", section, re.MULTILINE)
    assert list(dict.fromkeys(stage for stage, *_ in rows)) == STAGES
    lines = {
        f"{room}/{path}": len((ROOT / room / "verl_lite" / room / path).read_text("utf-8").splitlines())
        for _, room, path, _ in rows
    }
    wrong = {
        name: f"{lines[name]} lines, the page says {told}"
        for name, told in ((f"{room}/{path}", int(told)) for _, room, path, told in rows)
        if abs(lines[name] - told) > 15
    }
    assert not wrong
    assert sum(lines.values()) <= MAX_LINES, lines
