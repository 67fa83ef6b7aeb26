"""The order of the prompts: shuffled epochs by seed, several data sets by weight; resumes exactly."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from verl_lite.engine.config.curriculum import CurriculumConfig
from verl_lite.engine.data.curriculum import Curriculum, CurriculumState
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PromptRow
from verl_lite.errors import ConfigError
from verl_lite.plugins.composite.schedule import Weight, weight_at


class Prompts(Protocol):
    """An endless stream of prompts; `state_dict` is its exact position."""

    @property
    def epoch(self) -> int:
        """Passes over the rows so far; of several data sets, over the one that comes round most often."""

    @property
    def num_rows(self) -> int: ...

    def take(self, num_prompts: int, *, besides: Sequence[PromptRow] = ()) -> list[PromptRow]:
        """The next prompts, except those in use (`besides`). ConfigError if there are too few rows."""

    def find(self, ids: Sequence[str]) -> list[PromptRow]:
        """The prompts with these ids, in the data's order. Raises ConfigError for an unknown id."""

    def observe(self, rates: Mapping[str, float]) -> None:
        """The next batch's success rates by prompt; once per batch, in order."""

    @property
    def metrics(self) -> dict[str, float]:
        """What the curriculum reports; {} without one."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSource:
    """One of several data sets: its `rows` among all prompts, and its weight."""

    name: str
    weight: Weight
    rows: range


def make_stream(
    prompts: Sequence[PromptRow],
    sources: Sequence[PromptSource],
    *,
    seed: int,
    curriculum: CurriculumConfig | None = None,
) -> Prompts:
    """The stream of a run: of one data set, or of several by weight."""
    choice = None if curriculum is None else Curriculum(curriculum, prompts, seed=seed)
    if sources:
        return MixedStream(prompts, sources, seed=seed, curriculum=choice)
    return PromptStream(prompts, seed=seed, curriculum=choice)


class MixedStream:
    """Several data sets, each in an order of its own; of all prompts so far each has its share, within one.

    A data set with too few rows for its share of a batch gives what it has; the others fill the batch.
    """

    def __init__(
        self,
        prompts: Sequence[PromptRow],
        sources: Sequence[PromptSource],
        *,
        seed: int,
        curriculum: Curriculum | None = None,
    ) -> None:
        self._parts = [
            PromptStream(
                prompts,
                seed=derive_seed(seed, "prompts", source.name),
                rows=source.rows,
                curriculum=curriculum,
                owns_curriculum=False,
            )
            for source in sources
        ]
        self._curriculum = curriculum
        self._weights = [source.weight for source in sources]
        self._step = 0
        self._credits = [0.0] * len(sources)

    @property
    def epoch(self) -> int:
        return max(part.epoch for part in self._parts)

    @property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self._parts)

    def take(self, num_prompts: int, *, besides: Sequence[PromptRow] = ()) -> list[PromptRow]:
        """As `Prompts.take`."""
        ids = {prompt.id for prompt in besides}
        used = [[prompt for prompt in besides if prompt.id in part.ids & ids] for part in self._parts]
        free = [part.num_rows - len(those) for part, those in zip(self._parts, used, strict=True)]
        _check_enough(num_prompts, besides, self.num_rows)
        order = [self._next_source(free) for _ in range(num_prompts)]
        taken = [
            iter(part.take(order.count(at), besides=those))
            for at, (part, those) in enumerate(zip(self._parts, used, strict=True))
        ]
        return [next(taken[at]) for at in order]

    def _next_source(self, free: list[int]) -> int:
        weights = [weight_at(weight, self._step) for weight in self._weights]
        shares = [weight / sum(weights) for weight in weights]
        self._credits = [had + share for had, share in zip(self._credits, shares, strict=True)]
        chosen = max((at for at in range(len(free)) if free[at]), key=lambda at: self._credits[at])
        self._credits[chosen] -= 1
        free[chosen] -= 1
        return chosen

    def find(self, ids: Sequence[str]) -> list[PromptRow]:
        """As `Prompts.find`."""
        _check_known(ids, frozenset[str]().union(*(part.ids for part in self._parts)))
        return [row for part in self._parts for row in part.find([id for id in ids if id in part.ids])]

    def observe(self, rates: Mapping[str, float]) -> None:
        self._step += 1
        if self._curriculum is not None:
            self._curriculum.observe(rates)

    @property
    def metrics(self) -> dict[str, float]:
        return {} if self._curriculum is None else self._curriculum.metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            "credits": list(self._credits),
            "step": self._step,
            "parts": [part.state_dict() for part in self._parts],
            **_state_of(self._curriculum),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state.get("parts", ())) != len(self._parts):
            raise ConfigError("the checkpoint was made with other data sets: resume with the same data.train")
        self._credits, self._step = list(state["credits"]), state.get("step", 0)
        _restore(self._curriculum, state)
        for part, own in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(own)


class PromptStream:
    """Endless prompts, each epoch in a new order that follows from the seed.

    A batch never contains a prompt twice, even across epochs. `rows` are those of the prompts to use. With a
    `curriculum`, prompts that are not open are passed over, or all are drawn by it; an epoch is then as many
    prompts as there are rows. Its state is with its owner.
    """

    def __init__(
        self,
        prompts: Sequence[PromptRow],
        *,
        seed: int,
        rows: range | None = None,
        curriculum: Curriculum | None = None,
        owns_curriculum: bool = True,
    ) -> None:
        self._curriculum = curriculum
        self._owned = curriculum if owns_curriculum else None
        self._num_drawn = 0
        self._prompts = prompts
        self._rows = range(len(prompts)) if rows is None else rows
        self._id_of = {index: prompts[index].id for index in self._rows}
        self.ids = frozenset(self._id_of.values())
        self._seed = seed
        self.epoch = 0
        self._remaining = self._order(epoch=0)

    def _order(self, *, epoch: int) -> list[int]:
        order = list(self._rows)
        random.Random(f"prompts:{self._seed}:{epoch}").shuffle(order)
        return order

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def take(self, num_prompts: int, *, besides: Sequence[PromptRow] = ()) -> list[PromptRow]:
        """The next prompts, except those in use (`besides`). ConfigError if there are too few rows."""
        _check_enough(num_prompts, besides, self.num_rows)
        before = {prompt.id for prompt in besides}
        closed: frozenset[str] = frozenset()
        if self._curriculum is not None:
            free = [name for name in self._id_of.values() if name not in before]
            found = self._curriculum.open(free, at_least=num_prompts)
            if self._curriculum.draws:
                return self._draw(found, num_prompts)
            closed = self.ids - found - before
        batch: list[int] = []
        while True:
            skipped: list[int] = []
            at = 0
            while at < len(self._remaining) and len(batch) < num_prompts:
                index = self._remaining[at]
                taken = index in batch or self._id_of[index] in before or self._id_of[index] in closed
                (skipped if taken else batch).append(index)
                at += 1
            self._remaining = skipped + self._remaining[at:]
            if len(batch) == num_prompts:
                break
            self.epoch += 1
            # what is closed is passed over for this epoch: kept, it would come twice in the next
            self._remaining = [i for i in self._remaining if self._id_of[i] not in closed]
            fresh = self._order(epoch=self.epoch)
            # prompts in use come last: no group may be in flight twice
            in_use = {i for i in fresh if i in batch or self._id_of[i] in before}
            self._remaining += [i for i in fresh if i not in in_use] + [i for i in fresh if i in in_use]
        return [self._prompts[index] for index in batch]

    def _draw(self, names: "set[str]", count: int) -> list[PromptRow]:
        assert self._curriculum is not None
        chosen = self._curriculum.draw(sorted(names), count, nonce=self._num_drawn)
        self._num_drawn += count
        self.epoch = self._num_drawn // self.num_rows
        place = {name: at for at, name in enumerate(chosen)}
        return sorted(self.find(chosen), key=lambda prompt: place[prompt.id])

    def observe(self, rates: Mapping[str, float]) -> None:
        if self._owned is not None:
            self._owned.observe(rates)

    @property
    def metrics(self) -> dict[str, float]:
        return {} if self._owned is None else self._owned.metrics

    def find(self, ids: Sequence[str]) -> list[PromptRow]:
        """The prompts with these ids, in the data's order. Raises ConfigError for an unknown id."""
        _check_known(ids, self.ids)
        wanted = set(ids)
        return [self._prompts[index] for index in self._rows if self._id_of[index] in wanted]

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "remaining": list(self._remaining),
            "num_rows": self.num_rows,
            "num_drawn": self._num_drawn,
            **_state_of(self._owned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["num_rows"] != self.num_rows:
            raise ConfigError(
                f"the checkpoint was made with {state['num_rows']} training rows, the data now has "
                f"{self.num_rows}: resume with the same data"
            )
        self.epoch, self._num_drawn = state["epoch"], state.get("num_drawn", 0)
        _restore(self._owned, state)
        self._remaining = list(state["remaining"])


def _state_of(curriculum: Curriculum | None) -> dict[str, CurriculumState]:
    return {} if curriculum is None else {"curriculum": curriculum.state_dict()}


def _restore(curriculum: Curriculum | None, state: Mapping[str, Any]) -> None:
    if curriculum is not None and "curriculum" in state:
        curriculum.load_state_dict(state["curriculum"])


def _check_enough(num_prompts: int, besides: Sequence[PromptRow], num_rows: int) -> None:
    if num_prompts + len(besides) > num_rows:
        raise ConfigError(f"rollout.num_prompts={num_prompts} is more than the {num_rows} rows there are")


def _check_known(ids: Sequence[str], known: "frozenset[str]") -> None:
    if missing := sorted(set(ids) - known):
        raise ConfigError(
            f"the checkpoint is of other training rows: there is no row with id {', '.join(missing)}"
        )
