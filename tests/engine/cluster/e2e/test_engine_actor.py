"""What runs in Ray's process, in this one: slices, what waits for a place, and the canary beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.cluster import EngineActor, engine_actor
from verl_lite.engine.config import RolloutConfig, VllmConfig
from verl_lite.engine.rollout import FinishedSequence, SequenceRequest
from verl_lite.plugins import SamplerSettings

PROMPT = tuple(range(10, 30))


@pytest.fixture(scope="module")
def actor(request: pytest.FixtureRequest, small_model: Path) -> Iterator[EngineActor]:
    """Each slice is a step. vLLM closes what all engines of a process share, so there is one at a time."""
    config = RolloutConfig(max_prompt_tokens=32, max_new_tokens=96, vllm=VllmConfig(kv_cache_gib=0.1))
    options = getattr(request, "param", {"max_num_seqs": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_actor, "MAX_SLICE_S", 0.0)
        started = EngineActor(str(small_model), config, seed=0, options=options)
        yield started
        started._engine.close()


def requests(count: int, length: int) -> list[SequenceRequest]:
    settings = [SamplerSettings(max_new_tokens=length, seed=index) for index in range(count)]
    return [
        SequenceRequest(id=str(index), prompt_ids=PROMPT, settings=one, ignore_end=True)
        for index, one in enumerate(settings)
    ]


def the_rest(actor: EngineActor) -> dict[str, FinishedSequence]:
    found: dict[str, FinishedSequence] = {}
    while actor._waiting or actor._engine.num_unfinished:
        found |= {one.id: one for one in actor.advance([], [])}
    return found


def test_the_canary_waits_for_none_of_the_sequences(actor: EngineActor, source: Any) -> None:
    """Training waits for it; behind a full engine's queue it would come when all of them have begun."""
    assert actor.describe()["num_slots"] == 2
    assert actor.advance(requests(8, 90), []) == []
    logprobs = actor.token_logprobs(PROMPT)
    assert logprobs == pytest.approx(source.token_logprobs(PROMPT), abs=1e-5)
    lengths = {id: len(running.token_ids) for id, running in actor._engine._running.items()}
    assert lengths.keys() == {"0", "1"}
    assert max(lengths.values()) < 10
    found = the_rest(actor)
    assert sorted(found) == [str(index) for index in range(8)]
    assert all(len(one.token_ids) == 90 for one in found.values())


def test_what_waits_for_a_place_is_given_up_like_what_runs(actor: EngineActor) -> None:
    assert actor.advance(requests(5, 40), []) == []
    assert actor.advance([], ["0", "4"]) == []
    assert sorted(the_rest(actor)) == ["1", "2", "3"]


@pytest.mark.parametrize("actor", [{"max_num_seqs": 9, "num_gpu_blocks_override": 4}], indirect=True)
def test_with_its_cache_full_the_canary_is_before_those_that_wait(actor: EngineActor) -> None:
    assert actor.advance(requests(8, 60), []) == []
    actor.token_logprobs(PROMPT)
    # three had room and ended together; it came before the other five
    assert len(actor._engine._running) == 5
    assert all(len(one.token_ids) == 60 for one in the_rest(actor).values())
