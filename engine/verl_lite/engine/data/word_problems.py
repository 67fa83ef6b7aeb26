"""Two built-in tasks for pretrained models: sums in words, and word problems of several steps.

    sums            What is 41 - 17?
    word_problems   Mia has 4 bags with 6 apples in each. She finds 9 more apples. ... How many apples ...?

References are right. Answers are short worked solutions, right too, for a supervised warm-up. A question
belongs to the training rows or to the held-out ones by a hash of its text, so no seed mixes the two.
"""

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from verl_lite.engine.data.arithmetic import LARGEST, SMALLEST, Split
from verl_lite.engine.data.splits import HELD_OUT_SHARE, different_rows

NAMES = (("Mia", "She"), ("Tom", "He"), ("Ada", "She"), ("Ben", "He"), ("Eva", "She"), ("Leo", "He"))
THINGS = ("apples", "books", "coins", "pencils", "stamps", "shells", "marbles", "cards")
HOLDERS = ("bags", "boxes", "jars", "drawers")
GAINS = ("finds {n} more {things}", "buys {n} more {things}", "gets {n} {things} from a friend")
LOSSES = ("gives away {n} {things}", "loses {n} {things}", "sells {n} {things}")


def sum_rows(split: Split, *, num_rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """`num_rows` different rows {question, answer, reference}: a sum or difference of two-digit numbers.

    Raises ValueError for more than there surely are, as does `word_problem_rows`.
    """
    return _different(_sum, split, num_rows=num_rows, seed=seed, most=10_000)


def word_problem_rows(split: Split, *, num_rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """`num_rows` different rows {question, answer, reference} that take two to four steps each."""
    return _different(_word_problem, split, num_rows=num_rows, seed=seed, most=1_000_000)


def _different(
    make: Callable[[random.Random], dict[str, Any]], split: Split, *, num_rows: int, seed: int, most: int
) -> Iterator[dict[str, Any]]:
    most = most // HELD_OUT_SHARE if split == "held_out" else most
    if num_rows > most:
        raise ValueError(f"{split} has {most} rows, {num_rows} were requested")
    generator = random.Random(f"{make.__name__}:{split}:{seed}")
    return different_rows((make(generator) for _ in count()), split, num_rows=num_rows)


def _sum(generator: random.Random) -> dict[str, Any]:
    a, b = generator.randint(SMALLEST, LARGEST), generator.randint(SMALLEST, LARGEST)
    if generator.random() < 0.5:
        a, b, sign, result = max(a, b), min(a, b), "-", abs(a - b)
    else:
        sign, result = "+", a + b
    answer = f"{a} {sign} {b} = {result}, so \\boxed{{{result}}}."
    return {"question": f"What is {a} {sign} {b}?", "answer": answer, "reference": str(result)}


def _word_problem(generator: random.Random) -> dict[str, Any]:
    (name, pronoun), things = generator.choice(NAMES), generator.choice(THINGS)
    holders, each = generator.randint(2, 9), generator.randint(2, 9)
    count = holders * each
    story = [f"{name} has {holders} {generator.choice(HOLDERS)} with {each} {things} in each."]
    work = [f"{holders} * {each} = {count}"]
    for _ in range(generator.randint(1, 3)):
        loses = count > 10 and generator.random() < 0.5
        n = generator.randint(2, min(count - 1, 30) if loses else 30)
        story.append(f"{pronoun} {generator.choice(LOSSES if loses else GAINS).format(n=n, things=things)}.")
        before, count = count, count - n if loses else count + n
        work.append(f"{before} {'-' if loses else '+'} {n} = {count}")
    story.append(f"How many {things} does {name} have now?")
    answer = "\n".join([*work, f"The answer is \\boxed{{{count}}}."])
    return {"question": " ".join(story), "answer": answer, "reference": str(count)}
