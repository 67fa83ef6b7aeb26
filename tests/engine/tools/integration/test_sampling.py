"""`verl-lite rollout`: the records of a config's model, scored by its rewards, or not where it has none."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from verl_lite.cli.app import app
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.tools import sampling
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import validate
from verl_lite.plugins.progress import Advance, watched_by
from verl_lite.plugins.records import Record, read_records


@pytest.fixture
def config(small_run: dict[str, Any]) -> TrainConfig:
    # a step of training would need more prompts than there are; sampling takes those that are there
    return validate(
        TrainConfig, {**small_run, "rollout": small_run["rollout"] | {"num_prompts": 64}}, source="t"
    )


def records(path: Path) -> dict[str, Record]:
    return {record.rollout.id: record for record in read_records(path)}


def test_every_prompt_is_sampled_and_scored_by_the_config_s_rewards(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: dict[tuple[str, int | None], int] = defaultdict(int)

    @contextmanager
    def watcher(what: str, total: int | None) -> Iterator[Advance]:
        yield lambda more: done.update({(what, total): done[what, total] + more})

    with watched_by(watcher):
        found = sampling.write_rollouts(config, tmp_path / "all.parquet", num_samples=3, debug_inline=True)
    assert done == {("sampling", 20): 20}
    rows = records(tmp_path / "all.parquet")
    assert (found.num_prompts, found.num_samples, found.num_rollouts) == (20, 3, 60)
    assert len(rows) == 60
    assert len({record.rollout.group for record in rows.values()}) == 20
    for record in rows.values():
        text = record.rollout.completion
        expected = sum(c.isdigit() for c in text) / len(text) if text else 0.0
        assert record.components["digits"].value == pytest.approx(expected)
        assert record.reward == pytest.approx(expected)
        assert record.rollout.reference is not None
    rewards = [record.reward or 0.0 for record in rows.values()]
    assert found.reward_mean == pytest.approx(sum(rewards) / 60)
    assert found.component_means == {"digits": pytest.approx(sum(rewards) / 60)}
    cut = [record.rollout.finish_reason == "length" for record in rows.values()]
    assert found.truncated == pytest.approx(sum(cut) / 60)
    monkeypatch.setattr(sampling, "PROMPTS_AT_ONCE", 2)  # a few prompts at a time: the same tokens
    sampling.write_rollouts(config, tmp_path / "few.jsonl", num_prompts=5, num_samples=2, debug_inline=True)
    few = records(tmp_path / "few.jsonl")
    assert len(few) == 10
    for id, record in few.items():
        assert list(record.rollout.completion_ids) == list(rows[id].rollout.completion_ids)
        assert record.rollout.logprobs == pytest.approx(rows[id].rollout.logprobs, abs=1e-5)


def test_without_rewards_the_records_are_not_scored(small_run: dict[str, Any], tmp_path: Path) -> None:
    config = validate(TrainConfig, {**small_run, "steps": 0, "rewards": {}}, source="test")
    found = sampling.write_rollouts(config, tmp_path / "r.parquet", num_prompts=2, num_samples=2)
    assert found.reward_mean is None
    assert found.component_means == {}
    assert found.num_dropped == 0
    rows = records(tmp_path / "r.parquet").values()
    assert [(row.reward, row.components) for row in rows] == [(None, {})] * 4


def test_the_command_with_another_model_and_held_out_rows(
    small_run: dict[str, Any], small_model: Path, tmp_path: Path
) -> None:
    tree = {**small_run, "data": {"train": {"task": "arithmetic", "num_rows": 20}}}
    tree["data"]["held_out"] = {"task": "arithmetic", "split": "held_out", "num_rows": 4}
    (tmp_path / "c.json").write_text(json.dumps(tree))  # JSON is YAML
    run = ["rollout", str(tmp_path / "c.json"), "--model", str(small_model), "--held-out", "--debug-inline"]
    out = tmp_path / "r.jsonl"
    result = CliRunner().invoke(app, [*run, "--samples", "2", "-o", str(out), "--json", "seed=3"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["num_rollouts"], found["model"], found["out"]) == (8, str(small_model), str(out))
    assert len(records(out)) == 8
    shown = CliRunner().invoke(app, [*run, "--prompts", "1", "--samples", "1", "-o", str(out)])
    assert "1 prompts x 1 samples" in shown.stdout
    assert "digits, mean" in shown.stdout
    assert len(records(out)) == 1


def test_mistakes_are_said_before_a_model_is_loaded(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "prepare_model", lambda *_, **__: pytest.fail("a model was made"))
    with pytest.raises(ConfigError, match=r"--held-out samples on data\.held_out"):
        sampling.write_rollouts(config, tmp_path / "r.parquet", held_out=True)
    with pytest.raises(DataError, match=r"\.parquet or \.jsonl"):
        sampling.write_rollouts(config, tmp_path / "r.txt")
    with pytest.raises(DataError, match=r"model\.path='/nope'"):
        sampling.write_rollouts(config, tmp_path / "r.parquet", model="/nope")
    assert not list(tmp_path.glob("r.*"))
