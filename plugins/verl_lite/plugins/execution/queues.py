"""The calls that wait for a worker, one queue per component, and how many of them make a chunk."""

import pickle
from collections import deque
from collections.abc import Iterable, Sequence

from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.wire import PickledRow

CHUNK_S = 0.025  # seconds of work per chunk: enough to hide the cost of sending it
FIRST_CALLS = 4  # calls per chunk while their speed is unknown
MAX_CALLS = 512
CHUNK_BYTES = 1 << 20  # a chunk ends early when its rollouts are larger than this


class CallQueues:
    """Components take turns, so that a slow one cannot starve the others."""

    def __init__(self, components: Iterable[int]) -> None:
        self._queues: dict[int, deque[Call]] = {component: deque() for component in components}
        self._call_s: dict[int, float] = {}

    def add(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._queues[call.component].append(call)

    def put_back(self, calls: Sequence[Call]) -> None:
        """Calls that were sent before come first, in their order."""
        for call in reversed(calls):
            self._queues[call.component].appendleft(call)

    def learn(self, component: int, call_s: float) -> None:
        """Update the mean cost of a call of `component` over the latest chunks."""
        before = self._call_s.get(component, call_s)
        self._call_s[component] = 0.7 * before + 0.3 * call_s

    def next_chunk(self, workers: int) -> list[Call]:
        """The calls of the next chunk, all of one component; empty when nothing waits."""
        for component, queue in self._queues.items():
            if queue:
                self._queues[component] = self._queues.pop(component)  # now last in turn
                return self._from(queue, self._size(component, len(queue), workers))
        return []

    def drain(self, component: int) -> list[Call]:
        calls = list(self._queues[component])
        self._queues[component].clear()
        return calls

    def _size(self, component: int, waiting: int, workers: int) -> int:
        call_s = self._call_s.get(component)
        size = FIRST_CALLS if call_s is None else int(CHUNK_S / max(call_s, 1e-6))
        return max(1, min(size, MAX_CALLS, -(-waiting // workers)))

    @staticmethod
    def _from(queue: deque[Call], size: int) -> list[Call]:
        calls = [queue.popleft()]
        while len(calls) < size and queue and not (calls[0].alone or queue[0].alone):
            calls.append(queue.popleft())
        return calls


def pickle_rows(call: Call) -> list[PickledRow] | str:
    """The rollouts of a call, pickled, or the reason why they cannot be."""
    try:
        return [pickle.dumps(call.run.rollouts[row], 5) for row in call.rows]
    except Exception as error:  # noqa: BLE001 - pickling runs code of the columns' classes
        return f"the rollout cannot be pickled for a worker process: {type(error).__name__}: {error}"[:300]
