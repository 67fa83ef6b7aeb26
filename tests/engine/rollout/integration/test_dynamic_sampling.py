"""Groups that teach nothing are replaced, as often as allowed, and the run stays what its seed says."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from verl_lite.engine import PromptRow, StepBatch, train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.data import PromptStream
from verl_lite.engine.observe import StageClock, read_metrics
from verl_lite.engine.rollout.batch_maker import BatchMaker
from verl_lite.engine.types import never_stop
from verl_lite.plugins import ComponentScore, Rollout, Score, ScoredBatch, ScoredRollout, validate
from verl_lite.plugins.composite import batch_metrics
from verl_lite.plugins.records import read_records

REWARD_FILE = '''
from verl_lite.plugins import reward

@reward("teaching")
def teaching(rollout):
    """Differs between the samples of every other prompt, and is flat for the rest."""
    number = sum(rollout.prompt_ids)
    return float(rollout.sample_index % 2) if number % 2 else 1.0
'''
ALGORITHM: dict[str, Any] = {"dynamic_sampling": True, "max_refills": 2}


@pytest.fixture
def make_config(small_run: dict[str, Any], tmp_path: Path) -> Callable[..., TrainConfig]:
    rewards = tmp_path / "teaching.py"
    rewards.write_text(REWARD_FILE)
    small_run["data"]["train"]["num_rows"] = 40
    small_run["rollout"] |= {"num_samples": 2, "max_new_tokens": 8}
    small_run |= {
        "rewards": {"teaching": {"use": f"{rewards}:teaching"}},
        "algorithm": ALGORITHM,
        "checkpoints": {"every_steps": 2, "keep": 0},
    }
    return lambda **changes: validate(TrainConfig, {**small_run, **changes}, source="test")


def scored(prompts: Sequence[PromptRow], *, teaching: Callable[[int], bool]) -> ScoredBatch:
    """Two samples a prompt; their rewards differ where `teaching` says so of the prompt's number."""
    rows = []
    for prompt in prompts:
        for index in range(2):
            value = float(index) if teaching(int(prompt.id)) else 1.0
            part = ComponentScore(score=Score(value), weight=1.0, contribution=value)
            rollout = Rollout(completion="x", completion_ids=[1], group=prompt.id, sample_index=index)
            rows.append(ScoredRollout(rollout=rollout, components={"teaching": part}, reward=value))
    metrics = {**batch_metrics(rows), "reward/teaching/errors": 1.0, "reward/teaching/latency_p50_s": 0.1}
    return ScoredBatch(rows=rows, metrics=metrics, slowest={"teaching": ()})


def stream_of(num_rows: int) -> PromptStream:
    return PromptStream([PromptRow(id=str(i), messages=[], prompt_ids=[i]) for i in range(num_rows)], seed=0)


def batch_of(
    sample: Callable[[Sequence[PromptRow]], ScoredBatch], prompts: PromptStream, config: TrainConfig
) -> StepBatch:
    """A batch of rounds that `sample` generates and scores."""

    def start(*, step: int) -> Any:
        asked: list[PromptRow] = []
        return SimpleNamespace(add=asked.append, finish=lambda: sample(asked))

    sampler = SimpleNamespace(generate=lambda prompts, **_: iter(prompts))
    scorer = SimpleNamespace(start=start)
    make_batch = BatchMaker(prompts, sampler, scorer, config)  # type: ignore[arg-type]
    return make_batch(0, StageClock(), check=never_stop)


def test_refills_ask_for_what_is_missing_and_keep_every_teaching_group(
    make_config: Callable[..., TrainConfig],
) -> None:
    asked: list[list[int]] = []

    def sample(prompts: Sequence[PromptRow]) -> ScoredBatch:
        asked.append([int(prompt.id) for prompt in prompts])
        return scored(prompts, teaching=lambda number: number % 3 == 0)

    config = make_config(algorithm={**ALGORITHM, "max_refills": 100})
    batch = batch_of(sample, stream_of(40), config)
    numbers = [number for one in asked for number in one]
    assert len(set(numbers)) == len(numbers)  # nobody twice
    found = 0
    for one in asked:
        assert len(one) == 6 - found
        found += sum(number % 3 == 0 for number in one)
    assert batch.groups == {str(number) for number in numbers if number % 3 == 0}
    assert len(batch.groups) == 6
    assert {row.rollout.group for row in batch.trained} == batch.groups
    metrics = batch.metrics
    assert metrics["rollout/groups_trained"] == 6
    assert metrics["rollout/groups_sampled"] == len(numbers)
    assert metrics["rollout/refills"] == len(asked) - 1 > 0
    assert metrics["reward/rows"] == 2 * len(numbers)
    # half of the six teaching groups' samples get 0, everything else 1
    assert metrics["reward/mean"] == pytest.approx(1 - 6 / (2 * len(numbers)))
    assert metrics["reward/teaching/errors"] == len(asked)
    assert metrics["reward/teaching/latency_p50_s"] == 0.1


def test_refills_are_bounded(make_config: Callable[..., TrainConfig]) -> None:
    rounds: list[int] = []

    def sample(prompts: Sequence[PromptRow]) -> ScoredBatch:
        rounds.append(len(prompts))
        return scored(prompts, teaching=lambda number: False)

    batch = batch_of(sample, stream_of(40), make_config())
    assert rounds == [6, 6, 6]
    assert batch.trained == []
    rounds.clear()
    many = make_config(algorithm={**ALGORITHM, "max_refills": 100})
    batch_of(sample, stream_of(20), many)
    assert rounds == [6, 6, 6, 2]  # every row once, then the update takes what there is
    rounds.clear()
    batch_of(sample, stream_of(40), make_config(algorithm={}))
    assert rounds == [6]


def test_a_refill_across_the_border_of_two_epochs_repeats_no_prompt() -> None:
    stream = stream_of(10)
    stream.take(5)
    first = stream.take(4)  # one row of the epoch is left
    more = stream.take(6, besides=first)
    assert {row.id for row in first} | {row.id for row in more} == {str(i) for i in range(10)}


def test_a_run_trains_on_teaching_groups_alone_and_resumes_bitwise(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(steps=2, checkpoints={"every_steps": 1})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True)
    rows = read_metrics(whole / "metrics.jsonl")
    assert any(row["rollout/refills"] > 0 for row in rows)
    for row in rows:
        records = list(read_records(whole / "rollouts" / f"step_{row['step']:06d}.parquet"))
        teaching = [record for record in records if sum(record.rollout.prompt_ids) % 2]
        flat = [record for record in records if not sum(record.rollout.prompt_ids) % 2]
        assert len(records) == 2 * row["rollout/groups_sampled"]
        assert len(teaching) == 2 * row["rollout/groups_trained"] > 0
        assert all(record.advantage is None for record in flat)  # recorded, not trained on
        assert all(abs(record.advantage or 0) == pytest.approx(1, abs=1e-4) for record in teaching)
        assert row["learner/active_fraction"] == 1.0
        assert row["rollout/groups_trained"] == 6 or row["rollout/refills"] == 2
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_000002")
    train(config, run_dir=cut, resume=True, debug_inline=True)
    expected, got = (
        load_file(run / "checkpoints" / "step_000002" / "policy" / "model.safetensors")
        for run in (whole, cut)
    )
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    groups = [[r["rollout/groups_sampled"] for r in read_metrics(d / "metrics.jsonl")] for d in (whole, cut)]
    assert groups[0] == groups[1]


def test_a_step_without_any_teaching_group_changes_nothing_and_goes_on(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    rewards = tmp_path / "flat.py"
    rewards.write_text(
        'from verl_lite.plugins import reward\n\n@reward("flat")\ndef flat(rollout):\n    return 1.0\n'
    )
    config = make_config(
        steps=2, rewards={"flat": {"use": f"{rewards}:flat"}}, checkpoints={"every_steps": 1}
    )
    train(config, run_dir=tmp_path / "run", debug_inline=True)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["rollout/groups_trained"] for row in rows] == [0, 0]
    assert [row["rollout/refills"] for row in rows] == [2, 2]
    first, second = (
        load_file(tmp_path / "run" / "checkpoints" / f"step_00000{step}" / "policy" / "model.safetensors")
        for step in (1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
