"""Labelled answers nobody wrote by hand: exact values said in two notations, and near misses.

Every row is true by construction: a random exact value is drawn, written once as the reference and once
in another notation as the response (label true), and a value next to it is written the same ways (label
false). No verifier takes part in the labelling. The same seed gives the same rows.

    python benchmarks/math_heldout.py --seed 1 --pairs 40 --out heldout.jsonl
    python benchmarks/math_verify_comparison.py --file heldout.jsonl --math-verify-python VENV/bin/python
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from math_heldout_numbers import NUMBER_FAMILIES, Triple
from math_heldout_objects import OBJECT_FAMILIES

Family = Callable[[random.Random], Triple]

TEMPLATES = [
    "\\boxed{%s}",
    "Working through the cases, we find that the answer is $\\boxed{%s}$.",
    "The answer is $%s$.",
    "So the final answer is: $%s$",
    "<think>Let me try.</think>\n<answer>%s</answer>",
    "Step 1. We set it up.\nStep 2. We solve it.\n\\[ \\boxed{%s} \\]",
]
FAMILIES: Sequence[Family] = (*NUMBER_FAMILIES, *OBJECT_FAMILIES)


def heldout_rows(*, seed: int, pairs_per_family: int) -> Iterator[dict[str, object]]:
    """One right and one wrong row for each pair, every family `pairs_per_family` times."""
    rng = random.Random(seed)
    for family in FAMILIES:
        for number in range(pairs_per_family):
            reference, right, wrong = family(rng)
            for label, answer in ((True, right), (False, wrong)):
                yield {
                    "id": f"{family.__name__}-{number}-{'right' if label else 'wrong'}",
                    "kind": family.__name__,
                    "reference": reference,
                    "response": rng.choice(TEMPLATES) % answer,
                    "label": label,
                }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--pairs", type=int, default=40, help="pairs (a right and a wrong row) for each family"
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    args = parser.parse_args()
    rows = list(heldout_rows(seed=args.seed, pairs_per_family=args.pairs))
    args.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows of {len(FAMILIES)} families to {args.out}")


if __name__ == "__main__":
    main()
