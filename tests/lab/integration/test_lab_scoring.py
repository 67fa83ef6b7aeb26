"""Scoring a file gives the same records however it is cut, and loses no row."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from verl_lite.lab import ScoringOptions, open_rollouts, score_file
from verl_lite.lab.reading import rollouts as reading
from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.progress import Advance, watched_by
from verl_lite.plugins.records import read_records

Rows = list[dict[str, Any]]


def test_every_row_is_scored_and_written(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: Rows, tmp_path: Path
) -> None:
    output = tmp_path / "scored.parquet"
    summary = score_file(rollout_file(sums), rewards(), output=output)
    assert (summary.num_rows, summary.num_bad_rows, summary.num_dropped) == (40, 0, 0)
    # 4 of 10 groups are all right (16 rows), the other 6 have one right row each
    assert summary.components["correct"].values.mean == pytest.approx(22 / 40)
    records = list(read_records(output))
    assert [record.reward for record in records] == [float(row["is_correct"]) for row in sums]
    assert {record.advantage for record in records[:4]} == {0.0}
    # one right of four: mean 1/4, std sqrt(3)/4: 3/sqrt(3) for the right one
    assert records[7].advantage == pytest.approx(3**0.5, rel=1e-5)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_several_processes_write_the_same_records(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    source = rollout_file(sums)
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    alone = score_file(source, rewards(), output=one)
    monkeypatch.setattr(reading, "SPAN_BYTES", source.stat().st_size // 4)
    done: list[int] = []

    @contextmanager
    def watcher(what: str, total: int | None) -> Iterator[Advance]:
        yield done.append if (what, total) == ("scoring", 40) else lambda _: None

    with watched_by(watcher):
        shared = score_file(source, rewards(), output=two, options=ScoringOptions(workers=2))
    assert sum(done) == 40
    with open_rollouts(source) as opened:
        sizes = [sum(map(len, piece.groups())) for piece in opened.pieces()]
    assert len(sizes) > 2
    assert all(rows % 4 == 0 for rows in sizes)  # no group is split
    assert shared.reward.to_json() == pytest.approx(alone.reward.to_json())

    def facts(path: Path) -> list[Any]:
        return [(r.row, r.rollout, r.reward, r.advantage) for r in read_records(path)]

    assert facts(one) == facts(two)


def test_bad_rows_are_counted_and_written_out(rewards: Callable[..., RewardsConfig], tmp_path: Path) -> None:
    source, bad = tmp_path / "mixed.jsonl", tmp_path / "bad.jsonl"
    source.write_text('{"completion": "1", "reference": "1"}\n{oops\n{"completion": "2", "reference": "1"}\n')
    summary = score_file(source, rewards(), bad_rows=bad)
    assert (summary.num_rows, summary.num_bad_rows, summary.reward.mean) == (2, 1, 0.5)
    written = json.loads(bad.read_text())
    assert (written["row"], written["text"]) == (2, "{oops")


def test_failing_rewards_are_counted_and_do_not_stop_the_file(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], sums: Rows, tmp_path: Path
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from verl_lite.plugins import reward\n\n"
        "@reward('broken', isolate=False)\n"
        "def broken(rollout):\n"
        "    return 1 / 0\n"
    )
    summary = score_file(rollout_file(sums), rewards(x={"use": f"{plugin}:broken"}))
    assert summary.num_dropped == 40
    assert dict(summary.components["x"].outcomes) == {"error": 40}


def test_a_big_dump_is_scored_on_processes_without_splitting_groups(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        {"input": f"q{n // 4}", "output": str(n % 4), "gts": "1", "score": 0.0, "step": 1} for n in range(80)
    ]
    path = rollout_file(rows, "1.jsonl")
    monkeypatch.setattr(reading, "SPAN_BYTES", path.stat().st_size // 3)
    output = tmp_path / "scored.parquet"
    summary = score_file(path, rewards(), output=output, options=ScoringOptions(workers=2))
    assert summary.num_rows == 80
    assert [r.reward for r in read_records(output)] == [0.0, 1.0, 0.0, 0.0] * 20
