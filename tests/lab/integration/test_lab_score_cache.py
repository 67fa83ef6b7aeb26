"""What was paid for is not paid for again; what changed, and nothing else, is scored anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.lab import ScoreCache, ScoringOptions, open_rollouts, open_scorer, score_file, score_groups
from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.records import read_records

Rows = list[dict[str, Any]]

COUNTED = """
from pathlib import Path
from pydantic import BaseModel
from verl_lite.plugins import reward

CALLS = Path(__file__).with_name("calls.txt")

class Options(BaseModel):
    scale: float = 1.0

def count(name):
    with CALLS.open("a") as file:
        file.write(name + "\\n")

@reward("first", options=Options, isolate=False)
def first(rollout, options):
    count("first")
    return options.scale * (rollout.completion == rollout.reference)

@reward("second", isolate=False)
def second(rollout):
    count("second")
    return len(rollout.completion)

@reward("best", isolate=False, form="group")
def best(rollouts):
    for _ in rollouts:
        count("best")
    longest = max(len(rollout.completion) for rollout in rollouts)
    return [len(rollout.completion) == longest for rollout in rollouts]

@reward("failing", isolate=False)
def failing(rollout):
    count("failing")
    raise ValueError("not today")
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "counted.py"
    path.write_text(COUNTED)
    return path


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], dict[str, int]]:
    """How often each reward was called since the last look."""

    def look() -> dict[str, int]:
        path = tmp_path / "calls.txt"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return {name: names.count(name) for name in dict.fromkeys(names)}

    return look


@pytest.fixture
def options(tmp_path: Path) -> ScoringOptions:
    return ScoringOptions(workers=1, cache=tmp_path / "cache" / "scores.sqlite")


def facts(path: Path) -> list[Any]:
    records = list(read_records(path))
    return [(r.rollout, r.reward, {n: (c.value, c.reason) for n, c in r.components.items()}) for r in records]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_second_run_is_only_copied(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    plugin: Path,
    calls: Callable[[], dict[str, int]],
    options: ScoringOptions,
    tmp_path: Path,
    suffix: str,
) -> None:
    config = rewards(first={"use": f"{plugin}:first"}, second={"use": f"{plugin}:second"})
    source = rollout_file(sums)
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    before = score_file(source, config, output=one, options=options)
    assert calls() == {"first": 40, "second": 40}
    after = score_file(source, config, output=two, options=options)
    assert calls() == {}
    assert (before.is_cached, after.is_cached) == (False, True)
    assert one.read_bytes() == two.read_bytes()
    assert after.components == before.components


def test_a_changed_component_is_scored_alone(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    plugin: Path,
    calls: Callable[[], dict[str, int]],
    options: ScoringOptions,
    tmp_path: Path,
) -> None:
    source = rollout_file(sums)
    second = {"use": f"{plugin}:second"}
    score_file(source, rewards(first={"use": f"{plugin}:first"}, second=second), options=options)
    calls()
    changed = rewards(first={"use": f"{plugin}:first", "options": {"scale": 2.0}}, second=second)
    cached, fresh = tmp_path / "cached.jsonl", tmp_path / "fresh.jsonl"
    score_file(source, changed, output=cached, options=options)
    assert calls() == {"first": 40}
    score_file(source, changed, output=fresh, options=ScoringOptions(workers=1))
    assert facts(cached) == facts(fresh)


def test_a_changed_row_is_scored_alone_and_its_group_with_it(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    plugin: Path,
    calls: Callable[[], dict[str, int]],
    options: ScoringOptions,
) -> None:
    config = rewards(second={"use": f"{plugin}:second"}, best={"use": f"{plugin}:best"})
    rows = [{**row, "id": f"r{index}"} for index, row in enumerate(sums)]
    score_file(rollout_file(rows), config, options=options)
    calls()
    rows[5] = {**rows[5], "completion": "something longer"}
    score_file(rollout_file(rows), config, options=options)
    assert calls() == {"second": 1, "best": 4}


def test_an_interrupted_pass_goes_on_where_it_was(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    plugin: Path,
    calls: Callable[[], dict[str, int]],
    options: ScoringOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("verl_lite.lab.scoring._CHUNK_ROWS", 8)
    config = rewards(second={"use": f"{plugin}:second"})
    source = rollout_file(sums)
    assert options.cache is not None
    with (
        ScoreCache(options.cache) as cache,
        open_scorer(config, options) as scorer,
        open_rollouts(source) as rollouts,
    ):
        chunks = score_groups(rollouts.groups(), scorer, cache)
        next(chunks)
        next(chunks)  # the pass ends here, in the middle
    assert calls() == {"second": 16}
    assert score_file(source, config, options=options).num_rows == 40
    assert calls() == {"second": 24}


def test_failures_are_tried_again(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    plugin: Path,
    calls: Callable[[], dict[str, int]],
    options: ScoringOptions,
) -> None:
    config = rewards(failing={"use": f"{plugin}:failing"})
    for _ in range(2):
        summary = score_file(rollout_file(sums), config, options=options)
        assert (summary.is_cached, calls()) == (False, {"failing": 40})


def test_a_changed_plugin_is_scored_again(
    rewards: Callable[..., RewardsConfig],
    rollout_file: Callable[..., Path],
    sums: Rows,
    plugin: Path,
    calls: Callable[[], dict[str, int]],
    options: ScoringOptions,
) -> None:
    source = rollout_file(sums)
    score_file(source, rewards(second={"use": f"{plugin}:second"}), options=options)
    calls()
    plugin.write_text(COUNTED + "\n# another version\n")
    summary = score_file(source, rewards(second={"use": f"{plugin}:second"}), options=options)
    assert (summary.is_cached, calls()) == (False, {"second": 40})
