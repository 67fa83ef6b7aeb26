"""Every metric is in exactly one table of the docs, and every metric there is one that the code reports."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import MONITORS, read_metrics
from verl_lite.plugins import validate

ROOT = Path(__file__).parents[4]
FAMILIES = (
    *("reward", "rollout", "canary", "data", "time", "evaluation", "loss", "policy", "learner"),
    *("critic", "monitor", "sft", "train", "held_out", "warning", "distillation"),
)
NAME = re.compile(rf"({'|'.join(FAMILIES)})(/[a-z_0-9<>]+)+")
# names made of parts, and the family of written-out names that each stands for in the docs
MADE_OF_PARTS = {
    "time/<>_s": "time/",
    "reward/<>/<>_fraction": "reward/",
    "<>/<>": ("train/", "held_out/"),
    "held_out/<>": "held_out/",
    "warning/<>": "warning/",
}


def written_names() -> Iterator[str]:
    """Metric names as the code writes them, `<>` for a part that is computed."""
    for room in ("engine", "plugins"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        str(part.value) if isinstance(part, ast.Constant) else "<>" for part in node.values
                    ]
                    text = "".join(parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                else:
                    continue
                text = re.sub(r"<\w+>", "<>", text)
                if NAME.fullmatch(text) or text in MADE_OF_PARTS:
                    yield text


def documented_names(page: str = "*.md") -> list[str]:
    """The names in the first cells of the docs' tables, `<>` for a `<name>`."""
    names = []
    for path in (ROOT / "docs").glob(page):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("| `"):
                cells = re.findall(r"`([^`]+)`", line.split("|")[1])
                names += [re.sub(r"<\w+>", "<>", name) for name in cells]
    return [name for name in names if NAME.fullmatch(name)]


def test_every_metric_is_documented_exactly_once() -> None:
    times = Counter(documented_names())
    written = set(written_names())
    assert len(written) > 60, "the scan no longer sees the code"
    assert written >= MADE_OF_PARTS.keys()
    assert sorted(name for name in written - MADE_OF_PARTS.keys() if times[name] == 0) == []
    assert [name for name, count in times.items() if count > 1] == []


def test_no_page_has_a_metric_that_nothing_reports() -> None:
    written = set(written_names())
    unknown = [name for name in documented_names() if name not in written]
    assert [name for name in unknown if not name.startswith(tuple(flat(MADE_OF_PARTS.values())))] == []


def flat(families: Iterable[str | tuple[str, ...]]) -> Iterator[str]:
    for family in families:
        yield from (family,) if isinstance(family, str) else family


def test_the_loop_s_metrics_are_those_of_the_page(small_run: dict[str, Any], tmp_path: Path) -> None:
    small_run["steps"] = 2
    small_run["data"]["held_out"] = {"task": "arithmetic", "split": "held_out", "num_rows": 6}
    small_run["evaluation"] = {"every_steps": 1, "right_at": 0.5}
    small_run["checkpoints"] = {"every_steps": 2}
    small_run["data"]["curriculum"] = {"replay": {}}
    small_run["algorithm"] = {"importance": {"mode": "truncate"}}
    config = validate(TrainConfig, small_run, source="test")
    train(config, run_dir=tmp_path / "run", debug_inline=True)
    emitted = {name for row in read_metrics(tmp_path / "run" / "metrics.jsonl") for name in row}
    ours = ("rollout/", "canary/", "data/", "time/", "evaluation/")
    assert {name for name in emitted if name.startswith(ours)} == {
        name for name in documented_names(page="training.md") if name.startswith(ours)
    }
    rest = {
        re.sub("^warning/.*", "warning/<>", name)
        for name in emitted
        if not name.startswith(("reward/", *ours))
    }
    assert rest - {"step", "time"} <= {*documented_names(), "warning/<>"}


def test_every_warning_is_explained_on_the_page_of_the_monitors() -> None:
    page = (ROOT / "docs" / "monitors.md").read_text(encoding="utf-8")
    assert [name for name in MONITORS if f"\n## {name}\n" not in page] == []
