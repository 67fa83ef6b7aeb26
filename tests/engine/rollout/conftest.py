"""The sampler of a vLLM server, for a faked one and a real one."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine import PromptRow
from verl_lite.engine.config import ClusterConfig, DatasetConfig, RolloutConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.model import ChatTemplate
from verl_lite.engine.rollout import ServerSampler

CLUSTER = ClusterConfig(max_restarts=1, call_timeout_s=30)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[PromptRow]:
    rows = DatasetConfig(task="arithmetic", num_rows=4)
    return read_prompts(rows, ChatTemplate(tokenizer), max_prompt_tokens=32, seed=0)


@pytest.fixture
def connect(small_model: Path, tokenizer: Any, prompts: list[PromptRow]) -> Iterator[Callable[..., Any]]:
    opened = []

    def connect(
        url: str,
        *,
        in_flight: int = 4,
        end_ids: Sequence[int] = (),
        cluster: ClusterConfig = CLUSTER,
        **options: Any,
    ) -> ServerSampler:
        server = {"url": url, "dtype": "float32"} | options
        config = RolloutConfig.model_validate(
            {"sampler": "vllm-server", "server": server, "sequences_in_flight": in_flight}
        )
        canary_ids = list(prompts[0].prompt_ids)
        opened.append(
            ServerSampler(
                str(small_model), tokenizer, config, cluster, canary_ids=canary_ids, end_ids=end_ids
            )
        )
        return opened[-1]

    yield connect
    for sampler in opened:
        sampler.close()
