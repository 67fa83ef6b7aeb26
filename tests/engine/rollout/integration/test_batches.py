"""The making of a batch, when it is cut off."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from verl_lite.engine import PromptRow
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.data import PromptStream
from verl_lite.engine.observe import StageClock
from verl_lite.engine.rollout.batch_maker import BatchMaker
from verl_lite.engine.rundir import StopRequested
from verl_lite.plugins import validate


def test_the_scores_of_a_batch_that_is_given_up_are_given_up_too(small_run: dict[str, Any]) -> None:
    """Otherwise its verifiers would run on beside the batch that replaces it."""
    heard: list[str] = []

    def generate(prompts: Any, *, check: Any, **_: Any) -> Iterator[Any]:
        yield ["a group"]
        check()

    def stop() -> None:
        raise StopRequested

    session = SimpleNamespace(add=heard.extend, cancel=lambda: heard.append("cancelled"))
    sampler, scorer = SimpleNamespace(generate=generate), SimpleNamespace(start=lambda step: session)
    config = validate(TrainConfig, small_run, source="test")
    prompts = PromptStream([PromptRow(id=str(i), messages=[], prompt_ids=[i]) for i in range(6)], seed=0)
    make_batch = BatchMaker(prompts, sampler, scorer, config)  # type: ignore[arg-type]
    with pytest.raises(StopRequested):
        make_batch(0, StageClock(None, step=1), check=stop)
    assert heard == ["a group", "cancelled"]
