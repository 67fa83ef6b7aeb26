"""Sampling while training: what each mode guarantees, on a very small model and with fake engines."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from verl_lite.engine import build, train, training
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import RollbackRules, Trigger, read_metrics
from verl_lite.engine.rollout import FinishedSequence
from verl_lite.engine.testing import FakeSampler, SlowedLearner
from verl_lite.errors import ConfigError, TrainingError
from verl_lite.plugins import validate
from verl_lite.plugins.records import read_records


@pytest.fixture
def make_config(small_run: dict[str, Any]) -> Callable[..., TrainConfig]:
    data = {
        **small_run,
        "algorithm": {"importance": {"mode": "truncate"}},
        "asynchrony": {"mode": "one_ahead"},
        "checkpoints": {"every_steps": 2, "keep": 0},
    }
    return lambda **changes: validate(TrainConfig, {**data, **changes}, source="test")


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / "policy" / "model.safetensors")


def versions(run: Path, steps: int) -> list[set[int]]:
    """The policy versions that sampled each step's rollouts."""
    return [
        {
            record.rollout.policy_version
            for record in read_records(run / "rollouts" / f"step_{step:06d}.parquet")
        }
        for step in range(1, steps + 1)
    ]


def same_numbers(one: Path, other: Path) -> None:
    """Every metric that is no time is the same in both runs."""
    rows = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    timed = ("time/", "rollout/tokens_per_s", "learner/tokens_per_s")
    for mine, yours in zip(*rows, strict=True):
        names = [name for name in mine if not name.startswith(timed) and not name.endswith("_s")]
        assert {name: mine[name] for name in names} == {name: yours[name] for name in names}
        assert len(names) > 20


def test_one_ahead_samples_by_the_version_before_and_resumes_bitwise(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True)
    assert versions(whole, 4) == [{0}, {0}, {1}, {2}]
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["rollout/staleness_max"] for row in rows] == [0, 1, 1, 1]
    assert all(row["time/wait_rollouts_s"] >= 0 and row["time/wait_training_s"] >= 0 for row in rows)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_000004")
    pending = list(read_records(cut / "checkpoints" / "step_000002" / "rollouts.parquet"))
    assert len(pending) == 24
    train(config, run_dir=cut, resume=True, debug_inline=True)
    expected, got = weights(whole, 4), weights(cut, 4)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    same_numbers(whole, cut)
    lines = read_metrics(cut / "timeline.jsonl")
    assert {line["stage"] for line in lines} == {"rollout", "reward", "wait_rollouts", "update", "sync"}


@pytest.fixture
def use_fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[FakeSampler]]:
    """From now on, runs have fake engines; returns the list in which they will be found."""
    made: list[FakeSampler] = []

    def install(*, length: Callable[[int], int], step_s: float = 0.001, update_s: float = 0.0) -> Any:
        def make(prepared: Any, path: str, session: Any, **_: Any) -> FakeSampler:
            made.append(FakeSampler(prepared.tokenizer, length=length, num_engines=2, step_s=step_s))
            return made[-1]

        monkeypatch.setattr(training, "make_sampler", make)
        monkeypatch.setattr(training, "open_cluster", lambda *_: nullcontext())
        monkeypatch.setattr(build, "Learner", SlowedLearner)
        monkeypatch.setattr(SlowedLearner, "update_s", update_s)
        return made

    return install


ASYNC = {"mode": "async", "max_lag": 2}
VLLM = {"sampler": "vllm", "num_engines": 2, "num_prompts": 4, "num_samples": 3, "max_prompt_tokens": 16}
VLLM |= {"max_new_tokens": 40}


def long_tail(seed: int) -> int:
    """One completion in eight is many times longer than the others."""
    return 40 if seed % 8 == 0 else 2 + seed % 3


def records(run_dir: Path, step: int) -> list[Any]:
    return list(read_records(run_dir / "rollouts" / f"step_{step:06d}.parquet"))


def token_versions(record: Any) -> list[int]:
    """The policy version of each token; records leave the list out where all are the same."""
    rollout = record.rollout
    return list(rollout.token_versions) or [rollout.policy_version] * len(rollout.completion_ids)


def lags(run_dir: Path, step: int) -> dict[str, int]:
    """By group: how many updates before this one its oldest token was sampled."""
    found: dict[str, int] = {}
    for record in records(run_dir, step):
        lag = step - 1 - min(token_versions(record))
        found[record.rollout.group] = max(lag, found.get(record.rollout.group, 0))
    return found


def test_async_trains_on_what_is_finished_and_counts_what_is_old(
    make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    use_fakes(length=long_tail, step_s=0.004, update_s=0.03)
    config = make_config(steps=10, asynchrony=ASYNC, rollout=VLLM, monitors={"stale_versions": 0})
    train(config, run_dir=tmp_path / "run", debug_inline=True)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 11))
    several = 0
    for row in rows:
        kept = records(tmp_path / "run", row["step"])
        assert len(kept) == 12
        assert len({record.rollout.group for record in kept}) == 4
        for record in kept:
            versions = token_versions(record)
            assert versions == sorted(versions)
            assert versions[0] == record.rollout.policy_version
            assert versions[-1] <= row["step"] - 1
            several += len(set(versions)) > 1
        found = lags(tmp_path / "run", row["step"])
        assert row["rollout/stale_groups"] == sum(lag > 2 for lag in found.values())
        assert row["rollout/staleness_max"] == max(found.values())
        assert 0 <= row["rollout/staleness_mean"] <= row["rollout/staleness_max"]
        assert row["warning/stale_weights"] == float(row["rollout/staleness_max"] > 2)
    assert several > 0  # completions that went on under new weights
    stages = {row["stage"] for row in read_metrics(tmp_path / "run" / "timeline.jsonl")}
    assert stages == {"rollout", "wait_rollouts", "wait_rewards", "update", "sync"}


def test_a_stale_group_is_dropped_and_replaced(
    make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    use_fakes(length=lambda seed: 40 if seed % 16 == 0 else 2, step_s=0.004, update_s=0.02)
    config = make_config(steps=10, asynchrony={"mode": "async", "max_lag": 1, "stale": "drop"}, rollout=VLLM)
    train(config, run_dir=tmp_path / "run", debug_inline=True)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert sum(row["rollout/stale_groups"] for row in rows) > 0
    for step in range(1, 11):
        found = lags(tmp_path / "run", step)
        assert len(found) == 4
        assert max(found.values()) <= 1


@pytest.mark.parametrize("mode", ["one_ahead", "async"])
def test_what_goes_wrong_in_the_background_is_raised_by_the_next_step(
    mode: str, make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    def break_down(self: FakeSampler, sequence: Any) -> FinishedSequence:
        if self.version >= 1:
            raise TrainingError("the engine is gone")
        return finished(self, sequence)

    finished = FakeSampler._finished
    use_fakes(length=lambda seed: 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeSampler, "_finished", break_down)
        with pytest.raises(TrainingError, match="the engine is gone"):
            train(
                make_config(steps=6, asynchrony={**ASYNC, "mode": mode}, rollout=VLLM),
                run_dir=tmp_path / "run",
                debug_inline=True,
            )
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) < 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollouts")]


def interrupted_update(at: int) -> Callable[..., Any]:
    update, calls = SlowedLearner.update, []

    def interrupt(self: SlowedLearner, samples: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, samples)

    return interrupt


def test_ctrl_c_in_one_ahead_keeps_the_batch_that_is_being_sampled(
    make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    config, (whole, cut) = make_config(checkpoints={"every_steps": 0}), (tmp_path / "whole", tmp_path / "cut")
    use_fakes(length=lambda seed: 2 + seed % 9)
    train(config, run_dir=whole, debug_inline=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowedLearner, "update", interrupted_update(at=2))
        assert train(config, run_dir=cut, debug_inline=True).stopped
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["step_000002"]
    assert (cut / "checkpoints" / "step_000002" / "rollouts.parquet").exists()
    train(config, run_dir=cut, resume=True, debug_inline=True)
    expected, got = weights(whole, 4), weights(cut, 4)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    same_numbers(whole, cut)


def test_ctrl_c_in_async_waits_for_no_long_completion(
    make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    config = make_config(steps=6, asynchrony=ASYNC, rollout=VLLM)
    use_fakes(length=lambda seed: 4 if seed % 5 else 60_000)  # those take a minute
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowedLearner, "update", interrupted_update(at=1))
        started = time.monotonic()
        assert train(config, run_dir=tmp_path / "run", debug_inline=True).stopped
    assert time.monotonic() - started < 55
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollouts")]


@pytest.mark.parametrize("measures", [False, True])
def test_ctrl_c_in_sync_waits_for_no_long_completion(
    measures: bool, make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    """In the first batch, and in the evaluation before it; the run goes on with --resume."""
    data = {"train": {"task": "arithmetic", "num_rows": 20}}
    if measures:
        data["held_out"] = {"task": "arithmetic", "num_rows": 4}
    config = make_config(steps=2, asynchrony={"mode": "sync"}, rollout=VLLM, data=data)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def length(seed: int) -> int:
        if not timer.ident:  # sampling begins
            timer.start()
        return 60_000

    use_fakes(length=length)
    started = time.monotonic()
    assert train(config, run_dir=tmp_path / "run", debug_inline=True).stopped
    assert time.monotonic() - started < 55
    use_fakes(length=lambda seed: 4)
    result = train(config, run_dir=tmp_path / "run", resume=True, debug_inline=True)
    assert result.summary["steps"] == 2
    assert bool(result.summary["metrics"]) == measures


def test_an_async_run_goes_on_with_the_rollouts_it_has_paid_for(
    make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    config = make_config(steps=6, asynchrony=ASYNC, rollout=VLLM, checkpoints={"every_steps": 0})
    use_fakes(length=long_tail, step_s=0.002, update_s=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowedLearner, "update", interrupted_update(at=3))
        assert train(config, run_dir=tmp_path / "run", debug_inline=True).stopped
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000003"
    pending = json.loads((checkpoint / "trainer.json").read_text())["pending"]
    paid = {record.rollout.group: record.rollout for record in read_records(checkpoint / "rollouts.parquet")}
    cut_off = {group for groups in pending["in_flight"].values() for group in groups}
    assert pending["taken"] == 3
    assert len(paid) + len(cut_off) == 4 * (pending["handed_out"] - pending["taken"]) > 0
    train(config, run_dir=tmp_path / "run", resume=True, debug_inline=True)
    later = [record.rollout for step in (4, 5, 6) for record in records(tmp_path / "run", step)]
    assert len(later) == 3 * 12
    for name, rollout in paid.items():
        (again,) = [r for r in later if r.group == name and r.sample_index == rollout.sample_index]
        assert list(again.token_versions) == list(rollout.token_versions)
        assert list(again.completion_ids) == list(rollout.completion_ids)
    assert cut_off <= {rollout.group for rollout in later}


@pytest.mark.parametrize("mode", ["one_ahead", "async"])
def test_evaluation_and_rollback_beside_sampling(
    mode: str, make_config: Callable[..., TrainConfig], use_fakes: Callable[..., Any], tmp_path: Path
) -> None:
    use_fakes(length=lambda seed: 2 + seed % 5)
    config = make_config(
        steps=4,
        asynchrony={**ASYNC, "mode": mode},
        rollout=VLLM,
        data={
            "train": {"task": "arithmetic", "num_rows": 20},
            "held_out": {"task": "arithmetic", "split": "held_out", "num_rows": 5},
        },
        evaluation={"every_steps": 1},
        checkpoints={"every_steps": 1, "keep": 0},
        monitors={"rollback": {"on": "rollback", "max_kl": 1e6, "max_rollbacks": 1}},
    )
    check, calls = RollbackRules.check, []

    def broken_once(self: RollbackRules, metrics: Any, *, step: int) -> Trigger | None:
        calls.append(step)
        return (
            Trigger("kl_blow_up", "for the test", 2) if len(calls) == 3 else check(self, metrics, step=step)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RollbackRules, "check", broken_once)
        result = train(config, run_dir=tmp_path / "run", debug_inline=True)
    assert calls == [1, 2, 3, 3, 4]
    assert result.summary["steps"] == 4
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "reward/mean" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "evaluation/accuracy" in row] == [1, 2, 3]
    for step in (3, 4):
        assert all(record.rollout.policy_version < step for record in records(tmp_path / "run", step))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"algorithm": {}},
            "set algorithm.importance.mode to truncate or mask, or max_lag: 1 with stale: drop",
        ),
        (
            {"algorithm": {"advantage": "gae", "critic": {}, "importance": {"mode": "mask"}}},
            "critic's returns",
        ),
        ({"algorithm": {"dynamic_sampling": True, "importance": {"mode": "mask"}}}, "async has no rounds"),
        ({"rollout": {**VLLM, "sampler": "transformers", "num_engines": 1}}, "middle of a completion"),
        ({"asynchrony": {"mode": "async", "max_lag": 0}}, "max_lag"),
        (
            {
                "asynchrony": {"mode": "async", "max_lag": 2, "stale": "drop"},
                "algorithm": {"importance": {"mode": "off"}},
            },
            "max_lag=2 trains on tokens of policies several updates old",
        ),
    ],
)
def test_what_async_refuses(changes: Any, why: str, make_config: Callable[..., TrainConfig]) -> None:
    make_config(asynchrony=ASYNC, rollout=VLLM)
    with pytest.raises(ConfigError, match=why):
        make_config(**{"asynchrony": ASYNC, "rollout": VLLM, **changes})


def test_async_needs_enough_rows(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = make_config(asynchrony={"mode": "async", "max_lag": 5}, rollout=VLLM)
    with pytest.raises(ConfigError, match=r"5 \+ 1 batches of rollout.num_prompts=4 prompts in use at once"):
        train(config, run_dir=tmp_path / "run", debug_inline=True)
