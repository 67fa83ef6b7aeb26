"""The built-in rewards together on a few rollouts: every value is pinned in golden/."""

from pathlib import Path

from verl_lite.lab import compare_golden, read_golden

GOLDEN = Path(__file__).parent / "builtin-rewards.golden.json"


def test_every_component_gives_what_is_pinned() -> None:
    assert compare_golden(GOLDEN) == []


def test_what_is_pinned_is_what_the_rows_deserve() -> None:
    """Counted by hand: 22 words of at most 12 to 24; 18 of 19 pairs of words are repeats; 1 of 2 steps."""
    rows = {
        row.id: {name: score.value for name, score in row.components.items()}
        for row in read_golden(GOLDEN).rows
    }
    assert rows["right"]["brevity"] == (24 - 22) / 12
    assert rows["loop"]["loops"] == -18 / 19
    assert rows["wrong-step"]["steps"] == 0.5
    assert [rows[name]["choice"] for name in ("right", "text", "stuffed", "no-reference")] == [1, 1, 0, None]
    assert [rows[name]["honest"] for name in ("right", "no-reasoning", "stuffed")] == [1, 0, 0]
