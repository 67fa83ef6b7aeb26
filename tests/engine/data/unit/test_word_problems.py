"""The tasks for pretrained models: right answers, splits that never meet, the same rows for the same seed."""

import itertools
import re

import pytest

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.data import read_rows
from verl_lite.verifiers import MathOptions, verify_math

TASKS = ("sums", "word_problems")


def rows(task: str, split: str, count: int, seed: int = 0) -> list[dict[str, str]]:
    config = DatasetConfig.model_validate({"task": task, "split": split, "num_rows": count})
    return [dict(row) for row in read_rows(config, seed=seed)]


@pytest.mark.parametrize("task", TASKS)
def test_every_step_of_every_answer_is_right(task: str) -> None:
    for row in rows(task, "train", 500):
        steps = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", row["answer"])
        assert steps
        for a, sign, b, result in steps:
            value = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
            assert value == int(result) >= 0, row
        for (*_, result), (start, *_) in itertools.pairwise(steps):
            assert start == result, "a step goes on from the last"
        assert steps[-1][-1] == row["reference"]
        assert row["answer"].endswith(f"\\boxed{{{row['reference']}}}.")


def test_a_word_problem_says_the_numbers_of_its_steps() -> None:
    for row in rows("word_problems", "train", 200):
        (a, _, b, _), *rest = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", row["answer"])
        told = re.findall(r"\d+", row["question"])
        assert told == [a, b, *(n for _, _, n, _ in rest)]
        losses = re.findall(r"gives away|loses|sells", row["question"])
        assert len(losses) == sum(sign == "-" for _, sign, _, _ in rest)
        assert 1 <= len(rest) <= 3


@pytest.mark.parametrize("task", TASKS)
def test_no_seed_mixes_the_splits(task: str) -> None:
    train = {row["question"] for seed in range(3) for row in rows(task, "train", 800, seed)}
    held_out = {row["question"] for seed in range(3) for row in rows(task, "held_out", 300, seed)}
    assert not train & held_out
    assert rows(task, "train", 20, 1) == rows(task, "train", 20, 1) != rows(task, "train", 20, 2)
    assert len({row["question"] for row in rows(task, "train", 800)}) == 800


def test_more_rows_than_there_are_is_refused() -> None:
    with pytest.raises(Exception, match="held_out has 1000 rows, 1001 were requested; lower num_rows"):
        rows("sums", "held_out", 1001)
    assert len(rows("sums", "held_out", 1000)) == 1000


def test_the_math_verifier_accepts_the_worked_answers() -> None:
    for task in TASKS:
        for row in rows(task, "held_out", 20):
            computed = MathOptions(computed=True)
            assert verify_math(row["answer"], row["reference"], options=computed).is_correct
