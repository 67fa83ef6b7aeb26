"""Formats as tables: where each field of a record stands in a row, by paths such as `message.content`.

Of several paths, the first with a value counts; each is looked up in the sample (see `each`), then in
the row.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from verl_lite.lab.formats.chats import as_turns, chat
from verl_lite.lab.formats.rows import is_trajectory, make_record, number_or_none
from verl_lite.plugins.paths import MISSING, dig
from verl_lite.plugins.records import Record
from verl_lite.plugins.rollout import spoken

Paths = tuple[str, ...]
HERE = "here"  # in `each`: the row itself is the only sample
ROW = "row"  # in `group`: the samples of one row are a group
_FINISH = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "completed", "complete"), "stop"
    ),
    **dict.fromkeys(("length", "max_tokens", "truncated", "max_length", "model_length"), "length"),
}
_NOT_COLUMNS = ("messages", "prompt", "completion", "prompt_ids", "completion_ids", "logprobs", "each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The paths of one format.

    each          the list (or mapping of lists) of samples in a row; without it, the row is one sample
    messages      a whole conversation: its last reply is the completion, what stands before it the prompt
    group         joined, so that several make one name; without any, equal prompts are a group
    scores        mappings of names to numbers, or lists of {"name", "score" or "value"}
    prepare       brings values within reach of paths first
    keep          which rows (or samples) are rollouts; others are left out without a word
    hidden        keys that are no columns, besides those of texts and tokens
    """

    completion: Paths = ()
    prompt: Paths = ()
    messages: Paths = ()
    reference: Paths = ()
    each: Paths = ()
    id: Paths = ()
    group: Paths = ()
    sample_index: Paths = ()
    step: Paths = ()
    policy_version: Paths = ()
    finish_reason: Paths = ()
    prompt_ids: Paths = ()
    completion_ids: Paths = ()
    logprobs: Paths = ()
    reward: Paths = ()
    advantage: Paths = ()
    scores: Paths = ()
    prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    hidden: Paths = ()

    def convert(self, row: Any, number: int) -> Iterable[Record]:
        """The records of one row. Raises TypeError for a row that is no object, or has no completion."""
        if not isinstance(row, Mapping):
            raise TypeError(f"expected an object, got {type(row).__name__}")
        row = self.prepare(row) if self.prepare else row
        samples = _samples(row, self.each) if self.each else [row]
        for index, sample in enumerate(samples):
            inside = sample if isinstance(sample, Mapping) else {"": sample}
            if self.keep is None or self.keep(inside):
                yield self._record(inside, row, number, index, alone=len(samples) == 1)

    def _record(
        self, sample: Mapping[str, Any], row: Mapping[str, Any], number: int, index: int, *, alone: bool
    ) -> Record:
        def get(paths: Paths) -> Any:
            return first(paths, sample, row)

        # of KTO's rows, `label` says whether the completion is good
        is_flag = isinstance(get(("label",)), bool)
        texts = self._texts(get)
        made_up = f"row-{number}"
        group = [made_up if path == ROW else first((path,), sample, row) for path in self.group]
        position = get(self.sample_index)
        identity = get(self.id)
        if identity is not None and not alone:
            identity = f"{identity}/{index}"
        return make_record(
            number,
            id=_text(identity) or (None if alone else f"{made_up}/{index}"),
            group="/".join(_text(part) for part in group if part is not None) or None,
            sample_index=index if position is None and not alone else position,
            step=get(self.step),
            policy_version=get(self.policy_version),
            **texts,
            reference=single(get(tuple(path for path in self.reference if path != "label" or not is_flag))),
            finish_reason=_FINISH.get(str(get(self.finish_reason)).lower()),
            prompt_ids=_list(get(self.prompt_ids)),
            completion_ids=_list(get(self.completion_ids)),
            logprobs=_list(get(self.logprobs)),
            reward=total(get(self.reward)),
            advantage=get(self.advantage),
            scores={name: value for path in self.scores for name, value in named(get((path,)))},
            columns=self._columns(sample, row),
        )

    def _texts(self, get: Callable[[Paths], Any]) -> dict[str, Any]:
        completion, prompt = get(self.completion), get(self.prompt)
        if completion is not None:
            if isinstance(completion, Mapping) and completion.keys() & {"content", "tool_calls"}:
                completion = {"role": "assistant", **completion}
            return {"prompt": as_turns(prompt), **spoken(as_turns(completion))}
        conversation = get(self.messages)
        if conversation is None:
            raise TypeError(f"there is no completion at {' or '.join(self.completion + self.messages)}")
        turns = chat(conversation)
        replies = [at for at, turn in enumerate(turns) if turn.get("role") == "assistant"]
        if not replies:
            raise TypeError("the conversation has no reply of the assistant")
        if is_trajectory(turns):
            return {"prompt": turns[: replies[0]], **spoken(turns[replies[0] :])}
        return {"prompt": turns[: replies[-1]], **spoken([turns[replies[-1]]])}

    def _columns(self, sample: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """All keys of the sample and the row but those whose text or tokens the rollout has itself."""
        taken = {path.partition(".")[0] for name in _NOT_COLUMNS for path in getattr(self, name)}
        taken.update(self.hidden)
        return {k: v for k, v in {**row, **sample}.items() if k and k not in taken}


def first(paths: Paths, *places: Mapping[str, Any]) -> Any:
    """The first value that is not None; `""` is the sample itself where that is no object."""
    for path in paths:
        for place in places:
            found = dig(place, path)
            if found is not MISSING and found is not None:
                return found
    return None


def _samples(row: Mapping[str, Any], paths: Paths) -> list[Any]:
    found = next(
        (v for path in paths if (v := [row] if path == HERE else first((path,), row)) is not None), None
    )
    if isinstance(found, Mapping):
        return [item for items in found.values() for item in (items if isinstance(items, list) else [items])]
    if not isinstance(found, list):
        raise TypeError(f"there is no list at {' or '.join(paths)}")
    return found


def named(found: Any) -> Iterable[tuple[str, float | None]]:
    """(name, number) pairs of a mapping or a list of named scores."""
    if isinstance(found, Mapping):
        items = list(found.items())
    elif isinstance(found, list):
        items = [(str(s.get("name")), s) for s in found if isinstance(s, Mapping) and "name" in s]
    else:
        items = []
    for name, value in items:
        if isinstance(value, Mapping):
            value = next((value[key] for key in ("score", "value") if key in value), None)
        if value is None or isinstance(value, (bool, int, float)):
            yield str(name), number_or_none(value)


def total(reward: Any) -> Any:
    """The reward; a list has one per token, and their sum is the reward."""
    if isinstance(reward, list) and all(number_or_none(value) is not None for value in reward):
        return sum(reward)
    return reward


def single(reference: Any) -> Any:
    """The reference: a list of one is that one."""
    return reference[0] if isinstance(reference, list) and len(reference) == 1 else reference


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else None
