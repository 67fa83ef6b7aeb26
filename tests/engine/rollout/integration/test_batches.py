"""One round of sampling and scoring, when it is cut off."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.observe.timeline import StageClock
from verl_lite.engine.rollout.batch_source import Rounds
from verl_lite.engine.rundir.interrupt import StopRequested
from verl_lite.plugins.config_file import validate


def test_the_scores_of_a_round_that_is_given_up_are_given_up_too(small_run: dict[str, Any]) -> None:
    """Otherwise its verifiers run on beside the batch that comes in its place."""
    heard: list[str] = []

    def generate(prompts: Any, *, check: Any, **_: Any) -> Iterator[Any]:
        yield ["a group"]
        check()

    def stop() -> None:
        raise StopRequested

    session = SimpleNamespace(add=heard.extend, cancel=lambda: heard.append("cancelled"))
    sampler, scorer = SimpleNamespace(generate=generate), SimpleNamespace(start=lambda step: session)
    config = validate(TrainConfig, small_run, source="test")
    rounds = Rounds(sampler, scorer, config, check=stop)  # type: ignore[arg-type]
    with pytest.raises(StopRequested):
        rounds.sample(StageClock(None, step=1), 0, [])
    assert heard == ["a group", "cancelled"]
