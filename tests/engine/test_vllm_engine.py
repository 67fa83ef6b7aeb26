"""One engine stepped by hand: weights change in the middle of sequences, caches must not outlive them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine.config import RolloutConfig, VllmConfig
from verl_lite.engine.sequences import FinishedSequence, SequenceRequest
from verl_lite.plugins import SamplerSettings

PROMPT = tuple(range(10, 60))


@pytest.mark.slow
@pytest.mark.e2e
def test_a_prefix_cache_of_older_weights_is_not_read(small_model: Path, source: Any) -> None:
    from verl_lite.engine.vllm_engine import VllmEngine

    vllm = VllmConfig(kv_cache_gib=0.1, prefix_caching=True)
    engine = VllmEngine(
        str(small_model), RolloutConfig(max_prompt_tokens=64, max_new_tokens=64, vllm=vllm), seed=0
    )
    settings = SamplerSettings(max_new_tokens=30, seed=3)
    request = SequenceRequest(id="a", prompt_ids=PROMPT, settings=settings, ignore_end=True)
    engine.add([request])
    for _ in range(10):
        assert engine.step() == []
    with torch.no_grad():  # other keys and values, other tokens
        source.move(seed=4, scale=0.05)
    engine.load(source.named_weights(), version=1)
    finished: list[FinishedSequence] = []
    while engine.num_unfinished:
        finished += engine.step()
    (mixed,) = finished
    assert mixed.token_versions == [0] * 10 + [1] * 20
    # everything before was computed again: the new tokens are the new model's own, as from the start
    ids = [*PROMPT, *mixed.token_ids]
    assert mixed.logprobs[10:] == pytest.approx(source.token_logprobs(ids)[len(PROMPT) + 9 :], abs=1e-4)
    assert engine.token_logprobs(PROMPT) == pytest.approx(source.token_logprobs(PROMPT), abs=1e-5)
    engine.close()
