"""The order of the rows: shuffled epochs, with sources mixed by weight."""

import random
from collections.abc import Sequence

from verl_lite.engine.sft.data import SFTSource
from verl_lite.engine.sft.examples import SFTExample


class SFTStream:
    """Endless epochs over each source, each in a new order; sources are drawn by weight."""

    def __init__(self, sources: Sequence[SFTSource], *, seed: int) -> None:
        self._sources = sources
        self._choice = random.Random(f"sft mixture:{seed}")
        names = [f":{source.name}" if len(sources) > 1 else "" for source in sources]
        self._generators = [random.Random(f"sft:{seed}{name}") for name in names]
        self._waiting: list[list[int]] = [[] for _ in sources]

    def next(self, num_rows: int, *, is_decaying: bool = False) -> list[SFTExample]:
        """The rows of the next batch, with decay weights if `is_decaying`."""
        if len(self._sources) == 1:
            return [self._next_of(0) for _ in range(num_rows)]
        weights = [s.decay_weight if is_decaying else s.weight for s in self._sources]
        chosen = self._choice.choices(range(len(self._sources)), weights, k=num_rows)
        return [self._next_of(at) for at in chosen]

    def _next_of(self, at: int) -> SFTExample:
        waiting, examples = self._waiting[at], self._sources[at].examples
        if not waiting:
            waiting += self._generators[at].sample(range(len(examples)), len(examples))
            waiting.reverse()  # so that the next one is popped from the end
        return examples[waiting.pop()]
