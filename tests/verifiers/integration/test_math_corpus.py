"""The open corpus of math answers: every row as expected, and the corpus itself sound."""

import functools
import importlib.util
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from verl_lite.verifiers import MathOptions, Verdict, verify_math, verify_math_batch

pytestmark = pytest.mark.usefixtures("warm_workers")
CORPORA = Path(__file__).parents[1] / "corpora"
ONE_WAY_KINDS = {"bad_reference", "hostile"}
GRACE_S = 0.5
HOSTILE_OPTIONS = MathOptions(timeout_s=1.0)
Row = Mapping[str, Any]


@functools.cache
def corpus_rows() -> tuple[Row, ...]:
    with (CORPORA / "math.jsonl").open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


@functools.cache
def hostile_rows() -> tuple[Row, ...]:
    spec = importlib.util.spec_from_file_location("math_hostile", CORPORA / "math_hostile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(module.hostile_rows())


def expected(row: Row) -> list[str]:
    return [row["expect"]] if isinstance(row["expect"], str) else list(row["expect"])


def verify_hostile(row: Row) -> Verdict:
    return verify_math(row["response"], row["reference"], options=HOSTILE_OPTIONS)


def timed(row: Row) -> tuple[Verdict, float]:
    for _ in range(3):  # another program may have had the core
        start_s = time.monotonic()
        verdict = verify_hostile(row)
        wall_s = time.monotonic() - start_s
        if wall_s <= HOSTILE_OPTIONS.timeout_s + GRACE_S:
            break
    return verdict, wall_s


def complaint(row: Row, verdict: Verdict) -> str:
    return (
        f"{row['id']}: {row['response'][:80]!r} for {row['reference'][:60]!r}: expected "
        f"{' or '.join(expected(row))}, got {verdict.outcome} ({verdict.reason[:80]}); {row['why']}"
    )


def complaints(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[str]:
    return [
        complaint(row, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.outcome not in expected(row)
    ]


def test_every_row_of_the_corpus_is_as_expected() -> None:
    batches: dict[MathOptions, list[Row]] = defaultdict(list)
    for row in corpus_rows():
        batches[MathOptions(**row.get("options", {}))].append(row)
    wrong: list[str] = []
    for options, rows in batches.items():
        pairs = [(row["response"], row["reference"]) for row in rows]
        wrong += complaints(rows, verify_math_batch(pairs, options=options))
    assert not wrong, f"{len(wrong)} of {len(corpus_rows())} rows:\n" + "\n".join(wrong)


def test_hostile_answers_come_back_before_the_deadline_while_the_process_goes_on() -> None:
    rows = hostile_rows()
    stalls_s: list[float] = []
    done = threading.Event()
    pulse = threading.Thread(target=_longest_stalls, args=(done, stalls_s))
    pulse.start()
    try:
        results = [timed(row) for row in rows]
    finally:
        done.set()
        pulse.join()
    wrong = complaints(rows, [verdict for verdict, _ in results])
    assert not wrong, f"{len(wrong)} of {len(rows)} rows:\n" + "\n".join(wrong)
    limit_s = HOSTILE_OPTIONS.timeout_s + GRACE_S
    late = [
        f"{row['id']}: {wall_s:.2f} s"
        for row, (_, wall_s) in zip(rows, results, strict=True)
        if wall_s > limit_s
    ]
    assert not late, f"past {limit_s} s: {late}"
    # One bignum operation inside this process would hold every thread of it.
    assert max(stalls_s) < limit_s


def _longest_stalls(done: threading.Event, stalls_s: list[float]) -> None:
    """In CPU time of this process: what it computes between two beats, not how long it had to wait."""
    last_s = time.process_time()
    while not done.wait(0.02):
        now_s = time.process_time()
        stalls_s.append(now_s - last_s)
        last_s = now_s


def test_the_verdict_tells_what_it_read_and_how_it_matched() -> None:
    verdict = verify_math("So it is \\boxed{\\frac{2}{4}}.", "\\frac{1}{2}", options=MathOptions())
    assert verdict.is_correct
    assert verdict.credit == 1.0
    assert verdict.extracted == "\\frac{2}{4}"
    assert verdict.matched_by == "number"
    assert verdict.wall_s > 0.0


def test_corpus_is_sound() -> None:
    rows = corpus_rows()
    assert len(rows) >= 600
    assert len({row["id"] for row in rows}) == len(rows)
    cases = {(row["reference"], row["response"], json.dumps(row.get("options"))) for row in rows}
    assert len(cases) == len(rows), "two rows ask the same"
    outcomes = {"correct", "wrong", "unparsed", "bad_reference"}
    for row in rows:
        assert set(row) - {"options"} == {"id", "reference", "response", "expect", "kind", "why"}, row
        assert row["id"].startswith(row["kind"] + "-")
        assert set(expected(row)) <= outcomes
        assert row["why"], row["id"]
    counts = Counter(expected(row)[0] for row in rows)
    assert counts["wrong"] >= 0.4 * len(rows)
    assert counts["correct"] >= 0.4 * len(rows)


def test_corpus_goes_both_ways_for_every_kind_and_most_references() -> None:
    by_kind: dict[str, set[str]] = defaultdict(set)
    by_reference: dict[str, set[str]] = defaultdict(set)
    for row in corpus_rows():
        by_kind[row["kind"]].update(expected(row))
        by_reference[row["reference"]].update(expected(row))
    for kind in by_kind.keys() - ONE_WAY_KINDS:
        assert {"correct", "wrong"} <= by_kind[kind], f"{kind} only has {by_kind[kind]}"
    # A verifier that always says one thing about a reference must fail beside it.
    rows = [row for row in corpus_rows() if row["kind"] not in ONE_WAY_KINDS]
    both_ways = sum({"correct", "wrong"} <= by_reference[row["reference"]] for row in rows)
    assert both_ways >= 0.9 * len(rows), f"{both_ways} of {len(rows)}"


def test_hostile_rows_are_sound() -> None:
    rows = hostile_rows()
    assert len(rows) >= 100
    assert len({row["id"] for row in rows}) == len(rows)
    assert max(len(row["response"]) for row in rows) >= 1_000_000
    assert all("error" not in expected(row) for row in rows)
