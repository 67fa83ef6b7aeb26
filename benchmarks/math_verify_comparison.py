"""Math-Verify and verl-lite side by side on one labelled JSONL file.

A row holds `reference`, `response` (or `completion`) and `label` (true or false) or `expect` (an outcome;
rows whose `expect` lists "correct" among others are left out of the counts). Math-Verify lives in an
environment of its own, so that it never becomes a dependency:

    python -m venv /tmp/mv && /tmp/mv/bin/pip install "math-verify[antlr4_13_2]==0.9.0"
    python benchmarks/math_verify_comparison.py --math-verify-python /tmp/mv/bin/python
    python benchmarks/math_verify_comparison.py --file rows.jsonl --disagreements out.jsonl

Both run at their best: Math-Verify in `--workers` warm processes, one pair at a time in each main thread
(its time-out needs one), its reference parsed as LaTeX and, where that finds nothing, as plain text;
verl-lite as one batch, with its own workers. Latency is measured afterwards, one pair at a time.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parents[1] / "tests" / "verifiers" / "corpora" / "math.jsonl"
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One verifier on every row: what it accepted, the time of the whole and of each pair."""

    name: str
    accepted: list[bool]
    notes: list[str]
    wall_s: float
    latencies_s: list[float]


def load_rows(path: Path) -> list[Row]:
    """The labelled rows, each with `response`, `reference`, `options`, `kind` and `label`."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        label = row.get("label")
        if label is None:
            expect = [row["expect"]] if isinstance(row["expect"], str) else row["expect"]
            if "correct" in expect and len(expect) > 1:
                continue
            label = expect == ["correct"]
        response = row["response"] if "response" in row else row["completion"]
        rows.append({"kind": "", "options": {}, **row, "response": response, "label": bool(label)})
    return rows


def run_verl_lite(rows: Sequence[Row]) -> Run:
    """All rows as one batch for each set of options, then one by one for the latency."""
    from verl_lite.verifiers import MathOptions, Verdict, verify_math, verify_math_batch

    batches: dict[MathOptions, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        batches[MathOptions(**row["options"])].append(number)
    warm_up = [("\\boxed{\\cos 36^\\circ}", "\\frac{1+\\sqrt5}{4}"), ("\\boxed{500 cm}", "5 m")]
    while not all(verdict.is_correct for verdict in verify_math_batch(warm_up)):
        time.sleep(0.5)  # the worker processes are still starting
    verdicts: dict[int, Verdict] = {}
    start_s = time.perf_counter()
    for options, numbers in batches.items():
        pairs = [(rows[number]["response"], rows[number]["reference"]) for number in numbers]
        verdicts.update(zip(numbers, verify_math_batch(pairs, options=options), strict=True))
    wall_s = time.perf_counter() - start_s
    latencies_s = []
    for row in rows:
        start_s = time.perf_counter()
        # A blank that changes no answer, so that a memo of the run above is of no help.
        verify_math(row["response"] + " ", row["reference"], options=MathOptions(**row["options"]))
        latencies_s.append(time.perf_counter() - start_s)
    ordered = [verdicts[number] for number in range(len(rows))]
    return Run(
        name="verl-lite",
        accepted=[verdict.is_correct for verdict in ordered],
        notes=[f"{verdict.outcome} {verdict.matched_by} {verdict.reason}" for verdict in ordered],
        wall_s=wall_s,
        latencies_s=latencies_s,
    )


def run_math_verify(rows: Sequence[Row], *, python: Path, workers: int) -> Run:
    """Math-Verify in its own environment: this file again, in the mode below."""
    pairs = [[row["response"], row["reference"]] for row in rows]
    command = [str(python), __file__, "--as-math-verify", "--workers", str(workers)]
    reply = subprocess.run(command, input=json.dumps(pairs), capture_output=True, text=True, check=False)
    if reply.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{reply.stderr[-2000:]}")
    result = json.loads(reply.stdout.splitlines()[-1])
    return Run(name="Math-Verify", notes=[""] * len(rows), **result)


def serve_math_verify(workers: int) -> None:
    """Read pairs from stdin, verify them in warm processes, and write the result to stdout as JSON."""
    pairs = json.load(sys.stdin)
    with multiprocessing.Pool(workers, initializer=_warm_up_math_verify) as pool:
        pool.map(_math_verify, [["$1$", "1"]] * workers, chunksize=1)
        start_s = time.perf_counter()
        accepted = [ok for ok, _ in pool.map(_math_verify, pairs, chunksize=8)]
        wall_s = time.perf_counter() - start_s
    _warm_up_math_verify()
    latencies_s = [_math_verify([response + " ", reference])[1] for response, reference in pairs]
    print(json.dumps({"accepted": accepted, "wall_s": wall_s, "latencies_s": latencies_s}))


def _warm_up_math_verify() -> None:
    import logging

    logging.disable(logging.CRITICAL)
    _math_verify(["$\\frac{1}{2}$", "0.5"])


def _math_verify(pair: Sequence[str]) -> tuple[bool, float]:
    from math_verify import parse, verify  # type: ignore[import-not-found]

    response, reference = pair
    start_s = time.perf_counter()
    try:
        gold = parse(f"${reference}$") or parse(reference)
        accepted = bool(verify(gold, parse(response)))
    except Exception:  # noqa: BLE001 - whatever it raises, it did not accept the answer
        accepted = False
    return accepted, time.perf_counter() - start_s


def percentile_ms(latencies_s: Sequence[float], percent: int) -> float:
    return 1000 * statistics.quantiles(latencies_s, n=100, method="inclusive")[percent - 1]


def print_table(rows: Sequence[Row], runs: Sequence[Run]) -> None:
    right = sum(row["label"] for row in rows)
    wrong = len(rows) - right
    counts = f"right accepted (of {right}) | wrong accepted (of {wrong})"
    print(f"| verifier | {counts} | s | pairs/s | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    for run in runs:
        recalled = sum(ok and row["label"] for ok, row in zip(run.accepted, rows, strict=True))
        fooled = sum(ok and not row["label"] for ok, row in zip(run.accepted, rows, strict=True))
        p50, p99 = percentile_ms(run.latencies_s, 50), percentile_ms(run.latencies_s, 99)
        share = f"{recalled} ({100 * recalled / max(right, 1):.1f}%)"
        rate = len(rows) / run.wall_s
        print(f"| {run.name} | {share} | {fooled} | {run.wall_s:.2f} | {rate:.0f} | {p50:.2f} | {p99:.1f} |")


def print_kinds(rows: Sequence[Row], runs: Sequence[Run]) -> None:
    """Right answers rejected and wrong answers accepted, by kind."""
    kinds = sorted({row["kind"] for row in rows})
    if len(kinds) < 2:
        return
    print("\n| kind | right / wrong | " + " | ".join(f"{run.name}: missed / fooled" for run in runs) + " |")
    print("|---|---|" + "---|" * len(runs))
    for kind in kinds:
        labels = Counter(row["label"] for row in rows if row["kind"] == kind)
        cells = []
        for run in runs:
            told = [
                (ok, row["label"]) for ok, row in zip(run.accepted, rows, strict=True) if row["kind"] == kind
            ]
            missed = sum(label and not ok for ok, label in told)
            fooled = sum(ok and not label for ok, label in told)
            cells.append(f"{missed} / {fooled}")
        print(f"| {kind} | {labels[True]} / {labels[False]} | {' | '.join(cells)} |")


def write_disagreements(rows: Sequence[Row], runs: Sequence[Run], path: Path | None) -> None:
    """Each row on which a verifier differs from the label; printed where no path is given."""
    lines = []
    for number, row in enumerate(rows):
        said = {run.name: run.accepted[number] for run in runs}
        if set(said.values()) != {row["label"]}:
            notes = {run.name: run.notes[number] for run in runs if run.notes[number]}
            kept = {key: row.get(key) for key in ("id", "kind", "reference", "response", "label", "why")}
            lines.append(json.dumps({**kept, "accepted": said, "notes": notes}, ensure_ascii=False))
    if path:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"\n{len(lines)} disagreements to {path}")
    else:
        print(f"\n{len(lines)} disagreements:", *lines, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=CORPUS, help="labelled rows (the corpus of the tests)")
    parser.add_argument(
        "--math-verify-python", type=Path, help="the Python of an environment with Math-Verify"
    )
    parser.add_argument("--disagreements", type=Path, help="a JSONL file for them, instead of printing")
    parser.add_argument("--kinds", help="only rows of these kinds, separated by commas")
    parser.add_argument("--workers", type=int, default=2, help="processes for Math-Verify")
    parser.add_argument("--as-math-verify", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_math_verify:
        serve_math_verify(args.workers)
        return
    kinds = set(args.kinds.split(",")) if args.kinds else None
    rows = [row for row in load_rows(args.file) if kinds is None or row["kind"] in kinds]
    if not rows:
        sys.exit(f"{args.file} holds no row of the kinds {args.kinds}")
    runs = [run_verl_lite(rows)]
    if args.math_verify_python:
        runs.append(run_math_verify(rows, python=args.math_verify_python, workers=args.workers))
    print_table(rows, runs)
    print_kinds(rows, runs)
    write_disagreements(rows, runs, args.disagreements)


if __name__ == "__main__":
    main()
