"""A preference: a ranking of completions of one prompt. Files are JSONL, one preference per line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from verl_lite.errors import DataError
from verl_lite.plugins import Message

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


def to_preference(row: Mapping[str, Any], *, prompt: Sequence[Message] | None = None) -> PreferenceRow:
    """A row of our own files, or a pair: `prompt`, `chosen`, `rejected` (text or messages).

    Pairs of whole conversations need no `prompt`: it is their common beginning. The argument `prompt`
    replaces the row's. Raises ValueError for a row that is neither.
    """
    if "completions" in row:
        texts, ranks = list(row["completions"]), [int(rank) for rank in row["ranks"]]
        shared: list[Message] = []
    elif "chosen" in row and "rejected" in row:
        shared, texts = _pair(row["chosen"], row["rejected"])
        ranks = [1, 2]
    else:
        raise ValueError(
            f"expected 'completions' and 'ranks', or 'chosen' and 'rejected'; got {', '.join(row)}"
        )
    if prompt is None:
        own = row.get("prompt")
        prompt = shared if own is None else _messages(own)
        if not prompt:
            raise ValueError("expected a 'prompt' (text or messages), or conversations that begin with one")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("expected completions of text")
    return PreferenceRow(
        prompt=prompt,
        completions=texts,
        ranks=ranks,
        id=str(row.get("id", "")),
        source=row.get("source") or "",
        annotator=row.get("annotator") or "",
        scores=row.get("scores") or (),
        margin=row.get("margin"),
        reason=row.get("reason") or "",
        columns=row.get("columns") or {},
    )


def _pair(chosen: object, rejected: object) -> tuple[list[Message], list[str]]:
    """(common first messages, [better text, worse text])."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        return [], [chosen, rejected]
    conversations = [_messages(side) for side in (chosen, rejected)]
    if not all(conversations) or any(side[-1].get("role") != "assistant" for side in conversations):
        raise ValueError("'chosen' and 'rejected': expected text, or messages that end with the assistant's")
    first, second = (side[:-1] for side in conversations)
    if first != second:
        raise ValueError("'chosen' and 'rejected' differ before their last message")
    return first, [str(side[-1].get("content", "")) for side in conversations]


def _messages(value: object) -> list[Message]:
    if isinstance(value, str):
        return [Message(role="user", content=value)]
    if isinstance(value, Sequence) and all(isinstance(m, Mapping) and "role" in m for m in value):
        return [cast(Message, {k: v for k, v in m.items() if v is not None}) for m in value]
    raise ValueError(f"expected text or a list of messages, got {value!r:.80}")


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
