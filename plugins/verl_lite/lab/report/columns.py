"""The report's rows, column by column: small values for all rows at once, long texts in blocks for later.

A column is of one kind: "number", "flag" (true or false), "text" (each text once, and every row's place in
them) or "long" (its texts are in the blocks). A missing value is null; an empty text counts as missing.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

from verl_lite.lab.check.labels import truth
from verl_lite.lab.statistics import group_advantages, pair_inversions
from verl_lite.plugins.records import Record, StoredScore
from verl_lite.plugins.rollout import content_text
from verl_lite.plugins.statistics import has_zero_variance

Value = bool | int | float | str | None

_LABELS = ("label", "is_correct", "correct")
_MAX_TEXT = 160  # characters; columns with longer texts are kept in the blocks
_MAX_INT = 2**53  # larger ones are rounded by a browser
_BLOCK_CHARS = 1 << 20
_MAX_TOKENS = 1_500_000  # whose values the page holds, in the order of the rows


class Column(TypedDict, total=False):
    """A column of all rows; `values` are numbers, flags or places in `levels`, and absent in a long one.

    `of` is the data set's own name of it, and `json` says that its texts stand for other values.
    """

    name: str
    kind: str
    of: str
    json: bool
    values: Sequence[Value]
    levels: list[str]


class Block(TypedDict):
    """`size` rows in a row: each text once, and per column every row's place in them, -1 for none.

    Columns whose names begin with "#" hold JSON that is shown, not filtered.
    """

    size: int
    texts: list[str]
    columns: dict[str, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All samples of one prompt; `before` holds their earlier scores, in the same order, or nothing."""

    rows: Sequence[Record]
    before: Sequence[Record] = ()

    @property
    def new(self) -> list[float | None]:
        return [record.reward for record in self.rows]

    @property
    def old(self) -> list[float | None]:
        return [record.reward for record in self.before]


_BUILT_IN: Mapping[str, Callable[[Record], Value]] = {
    "id": lambda record: record.rollout.id,
    "group": lambda record: record.rollout.group,
    "sample": lambda record: record.rollout.sample_index,
    "step": lambda record: record.step,
    "policy_version": lambda record: record.rollout.policy_version or None,
    "reward": lambda record: record.reward,
    "advantage": lambda record: record.advantage,
    "dropped": lambda record: record.dropped_because,
    "finish": lambda record: record.rollout.finish_reason,
    "characters": lambda record: len(record.rollout.completion),
    "tokens": lambda record: record.rollout.num_sampled or None,
    "turns": lambda record: len(record.rollout.turns) or None,
    "prompt": lambda record: "\n\n".join(
        content_text(m.get("content"), shows_media=True) for m in record.rollout.prompt
    ),
    "completion": lambda record: record.rollout.completion,
    "reference": lambda record: record.rollout.reference,
}

_GROUP: Mapping[str, Callable[[Group], Value]] = {  # the spread is the largest reward less the smallest
    "group.size": lambda group: len(group.rows),
    "group.mean": lambda group: sum(found) / len(found) if (found := present(group.new)) else None,
    "group.spread": lambda group: spread(group.rows),
}
_CHANGES: Mapping[str, Callable[[Group], Sequence[Value]]] = {  # the earlier scores, and GRPO's advantages
    "changed": lambda group: [_differs(*pair) for pair in zip(group.before, group.rows, strict=True)],
    "group.changed": lambda group: [group.old != group.new] * len(group.rows),
    "group.reordered": lambda group: [_is_reordered(group)] * len(group.rows),
    "before.reward": lambda group: group.old,
    "before.group.spread": lambda group: [spread(group.before)] * len(group.rows),
    "before.advantage": lambda group: group_advantages(group.old),
    "after.advantage": lambda group: group_advantages(group.new),
    "advantage.change": lambda group: [
        None if old is None or new is None else abs(new - old)
        for old, new in zip(group_advantages(group.old), group_advantages(group.new), strict=True)
    ],
}
_OURS = {*_BUILT_IN, "label", *_GROUP, *_CHANGES}

_SCORES: Mapping[str, Callable[[StoredScore], Value]] = {
    "": lambda score: score.value,
    ".outcome": lambda score: score.outcome,
    ".reason": lambda score: score.reason,
    ".answer": lambda score: found if isinstance(found := score.details.get("extracted"), str) else "",
    ".contribution": lambda score: score.contribution,
    ".weight": lambda score: score.weight,
    ".ms": lambda score: round(score.latency_s * 1000, 3),
}

_HIDDEN: Mapping[str, Callable[[Record], object]] = {
    "#messages": lambda record: record.rollout.prompt if _is_chat(record) else None,
    "#turns": lambda record: [asdict(turn) for turn in record.rollout.turns],
    "#details": lambda record: {name: s.details for name, s in record.components.items() if s.details},
    "#steps": lambda record: {name: s.steps for name, s in record.components.items() if s.steps},
}


def page_rows(groups: Sequence[Group], label: str | None) -> tuple[list[Column], list[Block]]:
    """The columns and blocks of the groups' rows, in their order."""
    records = [record for group in groups for record in group.rows]
    columns: list[Column] = []
    stored: dict[str, Sequence[Value]] = {}
    ours = ((name, values, Column()) for name, values in _our_columns(groups, records, label))
    for name, values, more in (*ours, *_own_columns(records, label)):
        if column := _column(name, values):
            columns.append({**column, **more})
            if column["kind"] == "long":
                stored[name] = values
    for name, shown in _HIDDEN.items():
        stored[name] = [_json(shown(record)) for record in records]
    stored["#tokens"] = list(_token_values(records))
    return columns, list(_blocks(stored, len(records)))


def _own_columns(
    records: Sequence[Record], label: str | None
) -> Iterator[tuple[str, Sequence[Value], Column]]:
    """The data set's columns, but for those that ours say in full; they yield where we have such a name."""
    taken = {*_OURS, *(f"{name}{end}" for name in component_columns(records).values() for end in _SCORES)}
    for name in dict.fromkeys(name for record in records for name in record.rollout.columns):
        own = [record.rollout.columns.get(name) for record in records]
        is_text = any(isinstance(value, str) for value in own)
        said = find_label if name == (label or "label") else None
        if (name == "reference" and is_text) or (said and any(said(r, label) is not None for r in records)):
            continue
        yield f"column.{name}" if name in taken else name, _plain(own), {"of": name, "json": not is_text}


def component_columns(records: Sequence[Record]) -> dict[str, str]:
    """The component's name -> the column of its values: its name, unless a column of ours has that."""
    names = dict.fromkeys(name for record in records for name in record.components)
    return {name: f"component.{name}" if name in _OURS else name for name in names}


def find_label(record: Record, column: str | None) -> bool | None:
    """The row's label from `column`, or from the first usual label column; None where there is none."""
    columns = record.rollout.columns
    found = [truth(columns[name]) for name in ((column,) if column else _LABELS) if name in columns]
    return next((label for label in found if label is not None), None)


def _our_columns(
    groups: Sequence[Group], records: Sequence[Record], label: str | None
) -> Iterator[tuple[str, Sequence[Value]]]:
    for name, of in _BUILT_IN.items():
        yield name, [of(record) for record in records]
    yield "label", [find_label(record, label) for record in records]
    for name, in_group in _GROUP.items():
        yield name, [value for group in groups for value in [in_group(group)] * len(group.rows)]
    befores = [record for group in groups for record in group.before]
    for name, changes in _CHANGES.items() if befores else ():
        yield name, [value for group in groups for value in changes(group)]
    for name, column in component_columns(records).items():
        for end, part in _SCORES.items():
            yield f"{column}{end}", _scores(records, name, part)
        for end in ("", ".outcome", ".reason") if befores else ():
            yield f"before.{column}{end}", _scores(befores, name, _SCORES[end])


def _scores(records: Sequence[Record], name: str, part: Callable[[StoredScore], Value]) -> Sequence[Value]:
    return [part(record.components[name]) if name in record.components else None for record in records]


def present(rewards: Sequence[float | None]) -> list[float]:
    return [reward for reward in rewards if reward is not None]


def spread(rows: Sequence[Record]) -> float | None:
    """The largest reward less the smallest, 0 where they differ by rounding only; None without rewards."""
    rewards = present([record.reward for record in rows])
    if not rewards:
        return None
    return 0.0 if has_zero_variance(rewards) else max(rewards) - min(rewards)


def _is_reordered(group: Group) -> bool:
    both = [(o, n) for o, n in zip(group.old, group.new, strict=True) if o is not None and n is not None]
    return pair_inversions([o for o, _ in both], [n for _, n in both]) > 0


def _differs(old: Record, new: Record) -> bool:
    """Whether the reward, or the value or outcome of a component, is another one."""

    def verdicts(record: Record) -> object:
        return record.reward, {name: (s.value, s.outcome) for name, s in record.components.items()}

    return verdicts(old) != verdicts(new)


def _column(name: str, values: Sequence[Value]) -> Column | None:
    """The column of the values; None where all are missing."""
    present = [value for value in values if value is not None and value != ""]
    if not present:
        return None
    if isinstance(present[0], str):
        if name in ("prompt", "completion") or max(map(len, map(str, present))) > _MAX_TEXT:
            return {"name": name, "kind": "long"}
        places: dict[str, int] = {}
        codes = [places.setdefault(str(value), len(places)) if value else None for value in values]
        return {"name": name, "kind": "text", "values": codes, "levels": list(places)}
    kind = "flag" if isinstance(present[0], bool) else "number"
    return {
        "name": name,
        "kind": kind,
        "values": [number if _is_finite(number) else None for number in values],
    }


def _plain(values: Sequence[object]) -> Sequence[Value]:
    """The values if all are flags, or numbers that a browser holds; else texts, JSON where they are none."""
    kinds = {type(value) for value in values if value is not None}
    is_exact = all(abs(value) <= _MAX_INT for value in values if type(value) is int)
    if kinds <= {bool} or (kinds <= {int, float} and is_exact):
        return values  # type: ignore[return-value]  # the line above has seen every type
    return [value if value is None or isinstance(value, str) else _json(value) for value in values]


def finite_tree(value: object) -> object:
    """`value` with nan and the infinities in it as None."""
    if isinstance(value, Mapping):
        return {str(key): finite_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_tree(item) for item in value]
    return value if _is_finite(value) else None


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _json(value: object) -> str | None:
    return json.dumps(finite_tree(value), ensure_ascii=False, default=str) if value else None


def _is_chat(record: Record) -> bool:
    """Whether the prompt is more than one message of a user in plain text."""
    match record.rollout.prompt:
        case [{"role": "user", "content": str(), **rest}]:
            return bool(rest)
    return True


def _token_values(records: Sequence[Record]) -> Iterator[str | None]:
    """Ids, log-probabilities, rewards and policy versions per token, while there is room."""
    room = _MAX_TOKENS
    for record in records:
        rollout = record.rollout
        size = max(len(rollout.completion_ids), len(record.token_rewards))
        room -= size
        parts = {
            "ids": rollout.completion_ids,
            "logprobs": [round(value, 4) for value in rollout.logprobs],
            "rewards": [round(value, 4) for value in record.token_rewards],
            "versions": rollout.token_versions,
        }
        yield _json({name: list(part) for name, part in parts.items() if len(part)}) if room >= 0 else None


def _blocks(stored: Mapping[str, Sequence[Value]], num_rows: int) -> Iterator[Block]:
    """The stored texts, cut where a block has about `_BLOCK_CHARS` characters."""
    rows = iter(range(num_rows))
    while True:
        texts: dict[str, int] = {}
        columns: dict[str, list[int]] = {name: [] for name in stored}
        size = num_chars = 0
        for row in rows:
            size += 1
            for name, values in stored.items():
                value = values[row]
                if value is None or value == "":
                    columns[name].append(-1)
                    continue
                text = str(value)
                if text not in texts:
                    texts[text] = len(texts)
                    num_chars += len(text)
                columns[name].append(texts[text])
            if num_chars >= _BLOCK_CHARS:
                break
        if not size:
            return
        used = {name: places for name, places in columns.items() if any(place >= 0 for place in places)}
        yield {"size": size, "texts": list(texts), "columns": used}
