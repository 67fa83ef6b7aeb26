"""Watch a reward while it scores: does it change its input, read the clock, draw random numbers?

The probe is itself a reward that calls the one under test, so it runs in a worker process with a
deadline. It sees calls of Python's own functions, not numpy's generators or C extensions that read
the clock.
"""

import asyncio
import copy
import datetime
import inspect
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import FrameType
from typing import Any

from pydantic import BaseModel, ConfigDict

from verl_lite.plugins import Component, RewardDefinition, Rollout, Score
from verl_lite.plugins.execution.calls import bind

_CLOCKS = (time.time, time.time_ns, time.localtime, time.gmtime)
_DATES = ("now", "utcnow", "today")
_GLOBAL_RANDOM = getattr(random.random, "__self__", None)  # the generator behind the module's functions


class ProbeOptions(BaseModel):
    """The reward under test and its options."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    definition: Any
    options: Any


@dataclass(frozen=True, slots=True)
class Impurities:
    """changed: fields of the rollout the reward wrote to; called: clocks and random generators.

    `not_watched` is why nothing was seen: every watched call failed.
    """

    changed: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    not_watched: str = ""


class PurityProbe:
    """Calls the reward and returns 0.0; the first row's details say what the reward did."""

    def __init__(self, options: ProbeOptions) -> None:
        self._call = bind(options.definition, options.options)

    def __call__(self, given: Rollout | Sequence[Rollout]) -> Score | list[Score]:
        rows = [given] if isinstance(given, Rollout) else list(given)
        before = copy.deepcopy(rows)
        with _Watch() as watch:
            answer = self._call(given)
            if inspect.isawaitable(answer):
                asyncio.run(_wait(answer))
        details = {"changed": _changed(before, rows), "called": sorted(watch.seen)}
        scores = [Score(0.0, details=details), *[Score(0.0)] * (len(rows) - 1)]
        return scores[0] if isinstance(given, Rollout) else scores


async def _wait(answer: Any) -> Any:
    return await answer


def purity_probe(component: Component, *, name: str) -> Component:
    """A component that watches `component` instead of scoring; see impurities_of."""
    timeout_s = 10 * component.timeout_s + 5  # watching is slow
    definition = RewardDefinition(
        name=name,
        call=PurityProbe,
        options_model=ProbeOptions,
        form=component.definition.form,
        max_batch=component.definition.max_batch,
        timeout_s=timeout_s,
    )
    options = ProbeOptions(definition=component.definition, options=component.options)
    return Component(name=name, definition=definition, options=options, timeout_s=timeout_s)


def impurities_of(scores: Sequence[Score]) -> Impurities:
    if all(score.value is None for score in scores):
        return Impurities(not_watched=scores[0].reason)
    return Impurities(
        changed=tuple(sorted({name for score in scores for name in score.details.get("changed", ())})),
        called=tuple(sorted({name for score in scores for name in score.details.get("called", ())})),
    )


def _changed(before: Sequence[Rollout], after: Sequence[Rollout]) -> list[str]:
    return sorted(
        {
            field.name
            for old, new in zip(before, after, strict=True)
            for field in fields(Rollout)
            if getattr(old, field.name) != getattr(new, field.name)
        }
    )


class _Watch:
    """Records which clocks and random generators this thread calls."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __enter__(self) -> "_Watch":
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            name = _impure_name(called)
            if name:
                self.seen.add(name)


def _impure_name(called: Any) -> str:
    if any(called is clock for clock in _CLOCKS):
        return f"time.{called.__name__}"
    name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
    if owner is _GLOBAL_RANDOM:
        return "random"
    if name == "urandom" and called is os.urandom:
        return "os.urandom"
    if name in _DATES and inspect.isclass(owner) and issubclass(owner, datetime.date):
        return f"datetime.{owner.__name__}.{name}"
    return ""
