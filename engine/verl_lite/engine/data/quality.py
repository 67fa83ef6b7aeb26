"""Checks of training rows: duplicates, lengths, malformed turns, leaks, wrong answers.

Near duplicates are found by MinHash over three-word shingles (64 hashes, 16 bands of 4) and confirmed by
the exact Jaccard similarity of the shingles. Style is compared among questions that are equal up to their
digits: their answers should have the same marks (a think block, a box, code).
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verl_lite.engine.data.answers import verify_answers
from verl_lite.plugins.paths import MISSING, dig
from verl_lite.verifiers import Outcome

NUM_BANDS, BAND_ROWS = 16, 4
NEAR = 0.8
MARKS = {"think block": "<think>", "box": r"\boxed", "code": "```", "####": "####"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """A row as text. `faults` describes malformed turns; `columns` is the original row."""

    question: str
    answer: str
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[str] = ()

    @property
    def text(self) -> str:
        return f"{self.question}\n{self.answer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """Row numbers count from 0.

    `wrong` and `unparsed` are the verifiers' outcomes for the `num_verified` answers; `unjudged` answers
    have an unusable reference or tests, or took too long.
    """

    num_rows: int
    lengths: Sequence[int]
    exact_duplicates: Sequence[tuple[int, int]]
    near_duplicates: Sequence[tuple[int, int]]
    faults: Sequence[tuple[int, str]]
    truncated: Sequence[int] = ()
    overlap: Sequence[int] = ()
    odd_style: Sequence[tuple[int, str]] = ()
    num_verified: int = 0
    wrong: Sequence[int] = ()
    unparsed: Sequence[int] = ()
    unjudged: Sequence[tuple[int, str]] = ()
    histogram: Sequence[tuple[int, int, int]] = field(default_factory=tuple)


def text_row(row: Mapping[str, Any], *, prompt: str, answer: str, messages: str, reference: str) -> TextRow:
    """The row's question and answer; malformed parts become faults, never exceptions."""
    known = dig(row, reference)
    kept = None if known is MISSING or known is None else str(known)
    if messages in row:
        return replace(_chat_row(row[messages], kept), columns=row)
    faults = [f"no text in column {name!r}" for name in (prompt, answer) if not _is_text(row.get(name))]
    question, response = row.get(prompt), row.get(answer)
    return TextRow(
        question=str(question or ""),
        answer=str(response or ""),
        reference=kept,
        faults=faults,
        columns=row,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _chat_row(chat: Any, reference: str | None) -> TextRow:
    if not isinstance(chat, list) or not chat or not all(isinstance(turn, Mapping) for turn in chat):
        return TextRow(question="", answer="", reference=reference, faults=["messages is no list of turns"])
    roles = [str(turn.get("role")) for turn in chat]
    faults = [
        f"turn {at} ({role}) is empty"
        for at, (role, turn) in enumerate(zip(roles, chat, strict=True))
        if not _is_text(turn.get("content")) and not turn.get("tool_calls")
    ]
    unknown = sorted(set(roles) - {"system", "developer", "user", "assistant", "tool"})
    faults += [f"unknown role {role!r}" for role in unknown]
    faults += [
        f"turns {at} and {at + 1} are both {role}"
        for at, role in enumerate(roles[:-1])
        if role == roles[at + 1] and role in ("user", "assistant")
    ]
    if roles[-1] != "assistant":
        faults.append(f"the chat ends with a {roles[-1]} turn")
    asked = [str(turn.get("content") or "") for turn in chat if turn.get("role") == "user"]
    said = [str(turn.get("content") or "") for turn in chat if turn.get("role") == "assistant"]
    return TextRow(question="\n".join(asked), answer="\n".join(said), reference=reference, faults=faults)


def check_rows(
    rows: Sequence[TextRow],
    *,
    length: Callable[[str], int] = len,
    max_length: int | None = None,
    held_out: Iterable[str] = (),
    verify: bool = True,
) -> DataReport:
    """Run every check. `length` measures a row's text; `held_out` are the evaluation set's questions."""
    lengths = [length(row.text) for row in rows]
    texts = [_normalised(row.text) for row in rows]
    exact = _exact_duplicates(texts)
    again = {later for _, later in exact}
    near = [pair for pair in near_duplicates(texts) if not again & set(pair)]
    asked = {_normalised(question) for question in held_out}
    verified: dict[int, Outcome] = {}
    if verify:
        answers, references = [row.answer for row in rows], [row.reference for row in rows]
        questions = [row.question for row in rows]
        verified = verify_answers(answers, references, [row.columns for row in rows], questions=questions)
    unjudged = (Outcome.BAD_REFERENCE, Outcome.TIMEOUT, Outcome.ERROR)
    return DataReport(
        num_rows=len(rows),
        lengths=lengths,
        exact_duplicates=exact,
        near_duplicates=near,
        faults=[(at, fault) for at, row in enumerate(rows) for fault in row.faults],
        truncated=[at for at, size in enumerate(lengths) if max_length is not None and size > max_length],
        overlap=[at for at, row in enumerate(rows) if row.question and _normalised(row.question) in asked],
        odd_style=_odd_style(rows),
        num_verified=len(verified),
        wrong=[at for at, outcome in sorted(verified.items()) if outcome == Outcome.WRONG],
        unparsed=[at for at, outcome in sorted(verified.items()) if outcome == Outcome.UNPARSED],
        unjudged=[(at, outcome.value) for at, outcome in sorted(verified.items()) if outcome in unjudged],
        histogram=_histogram(lengths),
    )


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())


def _exact_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [(first[text], at) for at, text in enumerate(texts) if first.setdefault(text, at) != at]


def near_duplicates(texts: Sequence[str], *, at_least: float = NEAR) -> list[tuple[int, int]]:
    """(first, later) indices of texts whose shingles have a Jaccard similarity of at least `at_least`."""
    shingles = [_shingles(text) for text in texts]
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    found: dict[int, int] = {}
    for at, own in enumerate(shingles):
        if not own:
            continue
        signature = _signature(own)
        keys = [
            (band, b"".join(signature[band * BAND_ROWS : (band + 1) * BAND_ROWS]))
            for band in range(NUM_BANDS)
        ]
        for candidate in sorted({other for key in keys for other in buckets[key]}):
            other = shingles[candidate]
            if len(own & other) / len(own | other) >= at_least:
                found[at] = candidate
                break
        for key in keys:
            buckets[key].append(at)
    return [(first, later) for later, first in sorted(found.items())]


def _shingles(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[at : at + 3]) for at in range(max(len(words) - 2, 1))} if words else set()


def _signature(shingles: set[str]) -> list[bytes]:
    """The minima of 64 hashes of eight bytes, cut from wider digests."""
    salts = [bytes([salt]) for salt in range(8)]
    texts = [one.encode() for one in shingles]
    digests = [b"".join(hashlib.blake2b(text, salt=salt).digest() for salt in salts) for text in texts]
    return [min(digest[at : at + 8] for digest in digests) for at in range(0, 8 * NUM_BANDS * BAND_ROWS, 8)]


def _odd_style(rows: Sequence[TextRow]) -> list[tuple[int, str]]:
    """Rows whose answer differs in a mark on which 90% of the answers to similar questions agree."""
    alike: dict[str, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        alike[re.sub(r"\d+", "0", _normalised(row.question))].append(at)
    odd = []
    for members in alike.values():
        if len(members) < 5:
            continue
        for name, mark in MARKS.items():
            counts = Counter(mark in rows[at].answer for at in members)
            usual, count = counts.most_common(1)[0]
            if 0.9 <= count / len(members) < 1:
                verb = "lacks" if usual else "has"
                odd += [(at, f"{verb} the {name}") for at in members if (mark in rows[at].answer) != usual]
    return sorted(odd)


def _histogram(lengths: Sequence[int], num_bins: int = 10) -> list[tuple[int, int, int]]:
    """(from, to, rows) of bins of equal width from the shortest to the longest; `to` is inclusive."""
    if not lengths:
        return []
    low = min(lengths)
    width = max(-(-(max(lengths) - low + 1) // num_bins), 1)
    counts = Counter((size - low) // width for size in lengths)
    return [(low + at * width, low + (at + 1) * width - 1, counts[at]) for at in range(max(counts) + 1)]
