"""A preference: a ranking of completions of one prompt. Files are JSONL, one preference per line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

from verl_lite.errors import DataError
from verl_lite.lab.formats.chats import messages_of, side
from verl_lite.plugins import Message
from verl_lite.plugins.rollout import content_text

_SIDES = ("chosen", "rejected")
_LISTS = ("completions", "answers", "responses", "generations")  # ours, Nectar's, distilabel's
_TEXTS = ("text", "answer", "response", "content", "completion")
_SCORES = ("overall_score", "score", "rating")
_PAIR_SCORES = ("score_{}", "{}_score", "{}_rating", "{}-rating")
PairChoice = Literal["all", "adjacent", "best_worst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceRow:
    """`ranks[i]` is the rank of `completions[i]`: 1 is the best, equal ranks are ties.

    source      the kind of annotator: "rewards", "judge", "human", or what the data set says
    annotator   which one: a reward config's name, the judge's model, a person's id
    scores      the scores behind the ranks, one per completion, if there were any
    margin      by how much the first is better, for pairs whose data set says so
    Raises ValueError for fewer than two completions or ranks that do not fit.
    """

    prompt: Sequence[Message]
    completions: Sequence[str]
    ranks: Sequence[int]
    id: str = ""
    source: str = ""
    annotator: str = ""
    scores: Sequence[float] = ()
    margin: float | None = None
    reason: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.completions)
        if count < 2:
            raise ValueError(f"expected at least two completions, got {count}")
        if len(self.ranks) != count or any(rank < 1 for rank in self.ranks):
            raise ValueError(f"expected {count} ranks from 1 up, got {list(self.ranks)}")
        if self.scores and len(self.scores) != count:
            raise ValueError(f"expected {count} scores, got {len(self.scores)}")

    def pairs(self, which: PairChoice = "all") -> list[tuple[int, int]]:
        """(better, worse) indices; ties make no pair.

        `adjacent` takes each completion with those of the next rank, `best_worst` the first of the
        best with the last of the worst.

        >>> row = PreferenceRow(prompt=[], completions=["a", "b", "c"], ranks=[2, 1, 3])
        >>> row.pairs(), row.pairs("adjacent"), row.pairs("best_worst")
        ([(0, 2), (1, 0), (1, 2)], [(0, 2), (1, 0)], [(1, 2)])
        """
        ranks = list(self.ranks)
        if which == "best_worst":
            best, worst = min(ranks), max(ranks)
            last = len(ranks) - 1 - ranks[::-1].index(worst)
            return [(ranks.index(best), last)] if best < worst else []
        following = dict(zip(sorted(set(ranks)), [*sorted(set(ranks))[1:], None]))
        indices = range(len(ranks))
        if which == "adjacent":
            return [(i, j) for i in indices for j in indices if ranks[j] == following[ranks[i]]]
        return [(i, j) for i in indices for j in indices if ranks[i] < ranks[j]]

    def to_json(self) -> dict[str, object]:
        return {"id": self.id, **asdict(self)}


def ranks_of(scores: Sequence[float], *, tie_within: float = 0.0) -> list[int]:
    """Ranks from 1 (the highest score); a score within `tie_within` of the next higher ties with it.

    >>> ranks_of([0.1, 0.9, 0.85, 0.1]), ranks_of([0.1, 0.9, 0.85, 0.1], tie_within=0.05)
    ([3, 1, 2, 3], [2, 1, 1, 2])
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    ranks = [1] * len(scores)
    for before, index in pairwise(order):
        is_lower = scores[before] - scores[index] > tie_within + 1e-12
        ranks[index] = ranks[before] + is_lower
    return ranks


def to_preference(row: Mapping[str, Any], *, prompt: Sequence[Message] | None = None) -> PreferenceRow:
    """A row of our own files, a ranking, or a pair: `prompt`, `chosen`, `rejected` (text or messages).

    A ranking is a list of texts, or of objects with a text and a rank or a score. A side of a pair that holds
    its prompt needs no `prompt`. The argument `prompt` replaces the row's. Raises ValueError or TypeError for
    a row that is none of these, and for an answer that is no text.
    """
    asked = row.get("prompt") if prompt is None else prompt
    is_pair = "ranks" not in row and all(name in row for name in _SIDES)
    found = _pair(row, asked) if is_pair else _ranking(row, asked)
    if not found.prompt:
        raise ValueError(
            "there is no prompt: expected its column (text or messages), or conversations that begin "
            f"with it; got {', '.join(row)}"
        )
    if not all(isinstance(text, str) for text in found.completions):
        raise ValueError("expected completions of text")
    return replace(
        found,
        id=str(row.get("id", "")),
        source=row.get("source") or "",
        annotator=row.get("annotator") or "",
        margin=row.get("margin"),
        reason=row.get("reason") or "",
        columns=row.get("columns") or {},
    )


def _pair(row: Mapping[str, Any], prompt: Any) -> PreferenceRow:
    chosen, rejected = (side(prompt, row[name]) for name in _SIDES)
    for name, turns in zip(_SIDES, (chosen, rejected), strict=True):
        last = turns[-1]
        if last.get("role") != "assistant" or last.get("tool_calls"):
            what = "the call of a tool" if last.get("tool_calls") else f"a {last.get('role')} turn"
            raise ValueError(f"{name!r} ends with {what}: expected the assistant's text")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("'chosen' and 'rejected' differ before their last message")
    given = ([row.get(form.format(name)) for name in _SIDES] for form in _PAIR_SCORES)
    scores: Any = next((pair for pair in given if all(isinstance(one, int | float) for one in pair)), ())
    return PreferenceRow(
        prompt=cast(list[Message], chosen[:-1]),
        completions=[content_text(turns[-1].get("content")) for turns in (chosen, rejected)],
        ranks=[1, 2],
        scores=row.get("scores") or scores,
    )


def _ranking(row: Mapping[str, Any], prompt: Any) -> PreferenceRow:
    listed = next((row[name] for name in _LISTS if isinstance(row.get(name), list | tuple)), None)
    if listed is None:
        hint = ": single completions with a label (KTO) are not compared" if "label" in row else ""
        raise ValueError(
            f"expected 'completions' and 'ranks', or 'chosen' and 'rejected'; got {', '.join(row)}{hint}"
        )
    items = [item if isinstance(item, Mapping) else {"text": item} for item in listed]
    scores = row.get("scores") or row.get("ratings") or _of_each(items, _SCORES)
    ranks = row.get("ranks") or _of_each(items, ("rank",)) or ranks_of(scores)
    if len(ranks) != len(items):
        raise ValueError(f"expected 'ranks' for {len(items)} completions, or a 'rank' or score in each")
    return PreferenceRow(
        prompt=[] if prompt is None else cast(list[Message], messages_of(prompt, role="user")),
        completions=_of_each(items, _TEXTS),
        ranks=[int(rank) for rank in ranks],
        scores=scores or (),
    )


def _of_each(items: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Any]:
    """The value of the first of the names that every item has; none without one."""
    common = (name for name in names if all(item.get(name) is not None for item in items))
    return next(([item[name] for item in items] for name in common), [])


def read_preferences(path: Path) -> Iterator[PreferenceRow]:
    """Yield the rows of a JSONL file. Raises DataError, naming the line, for an unreadable one."""
    if not path.is_file():
        raise DataError(f"there is no preference file {path}")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield to_preference(json.loads(line))
                except (ValueError, TypeError, KeyError) as error:
                    raise DataError(f"{path}:{number}: {error}") from None


def write_preferences(path: Path, rows: Sequence[PreferenceRow]) -> None:
    """Write all rows to `path`, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    text = "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
