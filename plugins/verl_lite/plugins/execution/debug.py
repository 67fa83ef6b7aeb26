"""Async rewards under `debug_inline`: each call in the calling thread, so that breakpoints hit."""

import asyncio
from collections.abc import Sequence

from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Rows
from verl_lite.plugins.execution.event_loop import AsyncCaller
from verl_lite.plugins.execution.inline import InlineRunner, private_copy
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.rollout import Rollout

__all__ = ["DebugAsyncRunner"]


class DebugAsyncRunner(InlineRunner):
    """Answers the calls of an async component one after another, without a deadline."""

    def __init__(self, component: Component) -> None:
        self._async_caller = AsyncCaller(component, enforce_deadline=False)

    def run(self, calls: Sequence[Rows], rollouts: Sequence[Rollout]) -> list[TimedScore]:
        async def answer_all() -> list[TimedScore]:
            scores: list[TimedScore] = []
            for rows in calls:
                scores += await self._async_caller.answer([private_copy(rollouts[row]) for row in rows])
            return scores

        return asyncio.run(answer_all())
