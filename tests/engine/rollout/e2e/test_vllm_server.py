"""A real `vllm serve` as sampler, beside an engine in this process."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from verl_lite.engine import PromptRow
from verl_lite.engine.config import RolloutConfig
from verl_lite.plugins import Rollout, SamplerSettings


def by_id(groups: Iterator[list[Rollout]]) -> dict[str, Rollout]:
    return {rollout.id: rollout for group in groups for rollout in group}


@pytest.fixture(scope="module")
def real_server(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "VLLM_SERVER_DEV_MODE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    options = f"--port {port} --host 127.0.0.1 --enforce-eager --dtype float32 --max-model-len 128"
    options += " --kv-cache-memory-bytes 100000000 --no-enable-prefix-caching"
    options += " --logprobs-mode processed_logprobs --generation-config vllm"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(small_model)]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *options.split()], stdout=output, stderr=output, env=environment
        )
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 280
            while True:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                try:
                    if httpx.get(f"{url}/health").is_success:
                        break
                except httpx.TransportError:
                    time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture
def in_process(small_model: Path, tokenizer: Any, prompts: list[PromptRow]) -> Iterator[Any]:
    from verl_lite.engine.config import VllmConfig
    from verl_lite.engine.rollout import VllmSampler

    config = RolloutConfig(max_prompt_tokens=32, max_new_tokens=96, vllm=VllmConfig(kv_cache_gib=0.1))
    sampler = VllmSampler(str(small_model), tokenizer, config, canary_ids=prompts[0].prompt_ids, seed=0)
    yield sampler
    sampler.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_server_gives_a_teachers_log_probabilities_and_tokens(
    real_server: str, connect: Any, source: Any, tokenizer: Any, prompts: list[PromptRow]
) -> None:
    client = connect(real_server).client
    ids = [*prompts[0].prompt_ids, 5, 6, 7]
    logprobs = source.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    for found, expected in zip(client.top_logprobs(ids, 3), logprobs.topk(3).values.tolist(), strict=True):
        assert [logprob for _, logprob in found] == pytest.approx(expected, abs=1e-4)
    assert client.tokenize("12+3=") == tokenizer("12+3=", add_special_tokens=False)["input_ids"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_server_samples_what_the_in_process_engine_does(
    real_server: str,
    connect: Any,
    source: Any,
    in_process: Any,
    prompts: list[PromptRow],
    tmp_path: Path,
) -> None:
    warm = SamplerSettings(temperature=0.7, top_k=5, max_new_tokens=16, seed=5)
    sampler = connect(real_server, weights_dir=str(tmp_path))
    for version in range(3):
        for side in (in_process, sampler):
            assert side.load_weights(source, version=version) < 1e-5
        ours = by_id(sampler.generate(prompts, num_samples=3, settings=warm))
        theirs = by_id(in_process.generate(prompts, num_samples=3, settings=warm))
        assert ours.keys() == theirs.keys()
        for id, rollout in ours.items():
            assert rollout.completion_ids == theirs[id].completion_ids
            assert rollout.logprobs == pytest.approx(theirs[id].logprobs, abs=1e-5)
            assert rollout.finish_reason == theirs[id].finish_reason
            assert rollout.policy_version == version
        source.move(seed=version, scale=0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trajectories_over_a_real_server_are_those_of_the_in_process_engine(
    real_server: str,
    connect: Any,
    source: Any,
    in_process: Any,
    prompts: list[PromptRow],
    tmp_path: Path,
    trajectories: Callable[..., dict[str, Rollout]],
) -> None:
    over_http = connect(real_server, weights_dir=str(tmp_path))
    assert max(side.load_weights(source, version=0) for side in (in_process, over_http)) < 1e-5
    ours, theirs = (trajectories(side, prompts) for side in (over_http, in_process))
    assert ours.keys() == theirs.keys()
    for id, rollout in ours.items():
        assert rollout.completion_ids == theirs[id].completion_ids
        assert rollout.logprobs == pytest.approx(theirs[id].logprobs, abs=1e-5)
        assert [(turn.role, turn.start, turn.end) for turn in rollout.turns] == [
            (turn.role, turn.start, turn.end) for turn in theirs[id].turns
        ]
