"""Run components in the calling process, one rollout after the other."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_lite.plugins.contract import Component
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome, to_score

__all__ = ["Execution", "TimedScore"]


@dataclass(frozen=True, slots=True)
class TimedScore:
    score: Score
    latency_s: float = 0.0
    attempts: int = 1


class Execution:
    def __init__(
        self, components: Sequence[Component], workers: int | None = None, debug_inline: bool = False
    ):
        self._order = _ordered(components)
        self._names = [component.name for component in components]
        self._calls = {
            c.name: (c.definition.call(c.options) if c.definition.is_class else None) for c in components
        }

    def __enter__(self) -> "Execution":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass

    def start(self) -> "_Run":
        return _Run(self)


class _Run:
    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._rollouts: list[Rollout] = []

    def add(self, rollouts: Sequence[Rollout]) -> None:
        self._rollouts += rollouts

    def finish(self) -> list[Mapping[str, TimedScore]]:
        rows: list[dict[str, TimedScore]] = [{} for _ in self._rollouts]
        for component in self._execution._order:
            applying = []
            for index, rollout in enumerate(self._rollouts):
                if component.applies(rollout, {name: timed.score for name, timed in rows[index].items()}):
                    applying.append(index)
                else:
                    skipped = Score.failed(ScoreOutcome.ABSTAIN, "not run")
                    rows[index][component.name] = TimedScore(skipped, 0.0, 0)
            for chunk in _chunks(component, applying, self._rollouts):
                answers, latency_s = self._call(component, [self._rollouts[i] for i in chunk])
                for index, score in zip(chunk, answers, strict=True):
                    rows[index][component.name] = TimedScore(score, latency_s / len(chunk))
        return list(rows)

    def _call(self, component: Component, rollouts: list[Rollout]) -> tuple[list[Score], float]:
        definition = component.definition
        single = definition.form == "rollout"
        given: Any = rollouts[0] if single else rollouts
        built = self._execution._calls[component.name]
        started = time.perf_counter()
        try:
            if built is not None:
                answer = built(given)
            elif definition.takes_options:
                answer = definition.call(given, component.options)
            else:
                answer = definition.call(given)
            if asyncio.iscoroutine(answer):
                answer = asyncio.run(asyncio.wait_for(answer, component.timeout_s))
            scores = [to_score(item) for item in ([answer] if single else answer)]
            if len(scores) != len(rollouts):
                raise ValueError(f"{len(scores)} answers for {len(rollouts)} rollouts")
        except TimeoutError:
            scores = [Score.failed(ScoreOutcome.TIMEOUT, f"not done in {component.timeout_s:g} s")] * len(
                rollouts
            )
        except Exception as error:  # noqa: BLE001  the border: calling a reward
            scores = [Score.failed(ScoreOutcome.ERROR, f"{type(error).__name__}: {error}")] * len(rollouts)
        return scores, time.perf_counter() - started


def _ordered(components: Sequence[Component]) -> list[Component]:
    done: dict[str, Component] = {}
    waiting = list(components)
    while waiting:
        ready = [component for component in waiting if component.needs <= done.keys()]
        done |= {component.name: component for component in ready}
        waiting = [component for component in waiting if component.name not in done]
    return list(done.values())


def _chunks(component: Component, indices: list[int], rollouts: list[Rollout]) -> list[list[int]]:
    if component.definition.form == "rollout":
        return [[index] for index in indices]
    if component.definition.form == "batch":
        size = component.definition.max_batch
        return [indices[i : i + size] for i in range(0, len(indices), size)]
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(rollouts[index].group, []).append(index)
    return list(groups.values())
