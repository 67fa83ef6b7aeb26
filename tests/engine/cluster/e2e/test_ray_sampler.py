"""Two vLLM engines in processes that Ray places, against one in this process."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine import PromptRow
from verl_lite.engine.cluster import EngineLost, RayEngine, RayRuntime
from verl_lite.engine.config import ClusterConfig, DatasetConfig, RolloutConfig, VllmConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.model import ChatTemplate
from verl_lite.errors import TrainingError
from verl_lite.plugins import Rollout, SamplerSettings

# two vLLM below Ray take a minute to start; in this process: test_engine_actor.py, test_engine_pool.py
pytestmark = pytest.mark.slow
SETTINGS = SamplerSettings(max_new_tokens=90, seed=5)
CONFIG = RolloutConfig(
    max_prompt_tokens=32, max_new_tokens=96, sequences_in_flight=8, vllm=VllmConfig(kv_cache_gib=0.1)
)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[PromptRow]:
    rows = DatasetConfig(task="arithmetic", num_rows=16)
    return read_prompts(rows, ChatTemplate(tokenizer), max_prompt_tokens=32, seed=0)


@pytest.fixture(scope="module")
def ray_runtime() -> Iterator[RayRuntime]:
    # room for the two engines of `sampler`, and for two of a test's own beside them
    with RayRuntime(ClusterConfig(), cpus=4) as session:
        yield session


@pytest.fixture(scope="module")
def sampler(
    ray_runtime: RayRuntime, small_model: Path, tokenizer: Any, prompts: list[PromptRow]
) -> Iterator[Any]:
    from verl_lite.engine.cluster import RaySampler

    config = CONFIG.model_copy(update={"num_engines": 2})
    canary_ids = prompts[0].prompt_ids
    started = RaySampler(
        str(small_model), tokenizer, config, ClusterConfig(max_restarts=5), canary_ids=canary_ids, seed=0
    )
    yield started
    started.close()


@pytest.fixture(scope="module")
def both(
    small_model: Path,
    tokenizer: Any,
    prompts: list[PromptRow],
    trajectories: Callable[..., dict[str, Rollout]],
) -> tuple[dict[str, Rollout], dict[str, Rollout]]:
    """What the in-process sampler samples: single completions, and trajectories of several turns."""
    from verl_lite.engine.rollout import VllmSampler

    sampler = VllmSampler(str(small_model), tokenizer, CONFIG, canary_ids=prompts[0].prompt_ids, seed=0)
    rollouts = by_id(sampler.generate(prompts, num_samples=4, settings=SETTINGS))
    found = rollouts, trajectories(sampler, prompts)
    sampler.close()
    return found


@pytest.fixture(scope="module")
def in_process(both: tuple[dict[str, Rollout], dict[str, Rollout]]) -> dict[str, Rollout]:
    return both[0]


@pytest.fixture(autouse=True)
def _first_weights(sampler: Any, source: Any) -> None:
    """Every test begins with the weights of the folder."""
    sampler.load_weights(source, version=0)


def by_id(groups: Iterator[list[Rollout]]) -> dict[str, Rollout]:
    return {rollout.id: rollout for group in groups for rollout in group}


def pids(sampler: Any) -> set[int]:
    return {answer["pid"] for answer in sampler.pool.broadcast("describe")}


def assert_same(rollouts: dict[str, Rollout], expected: dict[str, Rollout]) -> None:
    assert rollouts.keys() == expected.keys()
    for id, rollout in rollouts.items():
        assert rollout.completion_ids == expected[id].completion_ids
        assert rollout.logprobs == pytest.approx(expected[id].logprobs, abs=1e-5)
        assert rollout.sampling == expected[id].sampling
        assert rollout.columns == expected[id].columns


def test_two_engines_sample_the_tokens_of_one_in_process(
    sampler: Any, in_process: dict[str, Rollout], prompts: list[PromptRow]
) -> None:
    assert len(pids(sampler)) == 2
    groups = list(sampler.generate(prompts, num_samples=4, settings=SETTINGS))
    assert all([rollout.sample_index for rollout in group] == [0, 1, 2, 3] for group in groups)
    assert_same(by_id(iter(groups)), in_process)


def test_trajectories_of_two_engines_are_those_of_one_in_process(
    sampler: Any,
    both: tuple[dict[str, Rollout], dict[str, Rollout]],
    prompts: list[PromptRow],
    trajectories: Callable[..., dict[str, Rollout]],
) -> None:
    found = trajectories(sampler, prompts)
    assert_same(found, both[1])
    assert all(
        [(turn.start, turn.end) for turn in rollout.turns]
        == [(turn.start, turn.end) for turn in both[1][id].turns]
        for id, rollout in found.items()
    )


def test_answers_end_at_every_end_token(
    sampler: Any, prompts: list[PromptRow], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (end,) = tokenizer.encode("7", add_special_tokens=False)
    monkeypatch.setattr(sampler, "end_ids", (end,))
    found = by_id(sampler.generate(prompts, num_samples=1, settings=SETTINGS)).values()
    assert any(rollout.completion_ids[-1] == end and rollout.finish_reason == "stop" for rollout in found)
    assert all(end not in rollout.completion_ids[:-1] for rollout in found)


def test_both_engines_get_new_weights_and_sing(sampler: Any, source: Any, prompts: list[PromptRow]) -> None:
    before = by_id(sampler.generate(prompts, num_samples=1, settings=SETTINGS))
    source.move(seed=1, scale=0.05)
    assert sampler.load_weights(source, version=3) < 1e-5
    assert sampler.version == 3
    for logprobs in sampler.pool.broadcast("token_logprobs", sampler.canary.token_ids):
        assert logprobs == pytest.approx(source.token_logprobs(sampler.canary.token_ids), abs=1e-5)
    after = by_id(sampler.generate(prompts, num_samples=1, settings=SETTINGS))
    assert {rollout.policy_version for rollout in after.values()} == {3}
    assert all(rollout.token_versions == () for rollout in after.values())
    assert [r.completion_ids for r in after.values()] != [r.completion_ids for r in before.values()]


def test_stale_weights_in_the_store_trip_the_canary(sampler: Any, source: Any) -> None:
    import ray

    from verl_lite.engine.cluster import pack

    stale = ray.put(pack(source.named_weights()))
    source.move(seed=2, scale=0.05)
    source.put_weights = lambda version: stale
    with pytest.raises(TrainingError, match="the weights of version 4 did not reach the sampler"):
        sampler.load_weights(source, version=4)


def test_weights_that_arrive_in_the_middle_sample_the_tokens_that_say_so(
    sampler: Any, source: Any, prompts: list[PromptRow]
) -> None:
    groups = sampler.generate(prompts, num_samples=4, settings=SETTINGS)
    rollouts = by_id(iter([next(groups)]))
    with torch.no_grad():  # every token is then equally likely, whatever came before it
        source.model.model.norm.weight.zero_()
    sampler.load_weights(source, version=1)
    rollouts |= by_id(groups)
    uniform = pytest.approx(-torch.tensor(float(source.model.config.vocab_size)).log().item(), abs=1e-4)
    mixed = [rollout for rollout in rollouts.values() if rollout.token_versions]
    assert mixed
    for rollout in rollouts.values():
        versions = rollout.token_versions or [rollout.policy_version] * len(rollout.completion_ids)
        assert len(versions) == len(rollout.completion_ids)
        assert rollout.policy_version == versions[0]
        for version, logprob in zip(versions, rollout.logprobs, strict=True):
            assert (logprob == uniform) == (version == 1)


def test_its_metrics_are_those_of_the_page(sampler: Any) -> None:
    page = (Path(__file__).parents[4] / "docs" / "scale-out.md").read_text()
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `rollout/")}
    assert sampler.metrics.keys() <= documented


def has_process(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Stoppable:
    """What an engine is to Ray; its process may be stopped, as one that hangs in a driver call."""

    def pid(self) -> int:
        return os.getpid()


def test_a_process_that_hangs_is_gone_soon_after_its_engine_was_killed(ray_runtime: RayRuntime) -> None:
    """Otherwise it would keep its GPU memory, and its replacement would not fit beside it."""
    engine = RayEngine(Stoppable, {"num_cpus": 1})
    pid = engine.answer(engine.call("pid"), timeout_s=60)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineLost, match=r"gave no answer for 0\.5 s"):
        engine.answer(engine.call("pid"), timeout_s=0.5)
    engine.kill()
    until = time.monotonic() + 30
    while has_process(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not has_process(pid)


def interrupted(
    sampler: Any, prompts: Sequence[PromptRow], signal_number: int
) -> tuple[dict[str, Rollout], int]:
    """The rollouts of a batch during which one engine gets the signal, and that engine's process."""
    victim = min(pids(sampler))
    groups = sampler.generate(prompts, num_samples=4, settings=SETTINGS)
    rollouts = by_id(iter([next(groups)]))
    os.kill(victim, signal_number)
    return rollouts | by_id(groups), victim


def test_a_killed_engine_is_replaced_and_its_sequences_are_sampled_again(
    sampler: Any, source: Any, in_process: dict[str, Rollout], prompts: list[PromptRow]
) -> None:
    before = sampler.metrics
    sampler.load_weights(source, version=6)
    rollouts, victim = interrupted(sampler, prompts, signal.SIGKILL)
    assert_same(rollouts, in_process)
    assert {rollout.policy_version for rollout in rollouts.values()} == {6}
    assert len(pids(sampler) - {victim}) == 2
    assert_same(by_id(sampler.generate(prompts, num_samples=4, settings=SETTINGS)), in_process)
    counts = {name: value - before[name] for name, value in sampler.metrics.items()}
    assert counts["rollout/engine_restarts"] == 1
    assert 1 <= counts["rollout/sequences_again"] <= 8


def test_an_engine_that_does_not_start_in_time_says_what_it_asked_for(
    ray_runtime: RayRuntime, small_model: Path, tokenizer: Any, prompts: list[PromptRow]
) -> None:
    from verl_lite.engine.cluster import RaySampler

    cluster, canary_ids = ClusterConfig(start_timeout_s=0.5), prompts[0].prompt_ids
    message = r"gave no answer for 0\.5 s\. Each of rollout\.num_engines=1 requests cpus: 1, gpus: 0; free"
    with pytest.raises(TrainingError, match=message):
        RaySampler(str(small_model), tokenizer, CONFIG, cluster, canary_ids=canary_ids, seed=0)


def test_a_silent_engine_is_replaced(
    ray_runtime: RayRuntime,
    small_model: Path,
    tokenizer: Any,
    in_process: dict[str, Rollout],
    prompts: list[PromptRow],
) -> None:
    from verl_lite.engine.cluster import RaySampler

    cluster = ClusterConfig(engine_timeout_s=15, max_restarts=1)
    config = CONFIG.model_copy(update={"num_engines": 2})
    canary_ids = prompts[0].prompt_ids
    sampler = RaySampler(str(small_model), tokenizer, config, cluster, canary_ids=canary_ids, seed=0)
    try:
        started = time.monotonic()
        rollouts, victim = interrupted(sampler, prompts, signal.SIGSTOP)
        assert time.monotonic() - started < 120
        assert_same(rollouts, in_process)
        assert victim not in pids(sampler)
        assert not has_process(victim)  # it ended while its replacement started
        with pytest.raises(TrainingError, match=r"gave no answer for 15 s.*max_restarts=1 allows no more"):
            interrupted(sampler, prompts, signal.SIGSTOP)
    finally:
        sampler.close()
