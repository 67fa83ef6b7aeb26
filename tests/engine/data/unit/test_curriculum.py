"""Which prompts are open: gates, levels, draws by difficulty, and that all of it resumes exactly."""

from collections import Counter

import pytest

from verl_lite.engine import PromptRow
from verl_lite.engine.config.curriculum import CurriculumConfig
from verl_lite.engine.data import PromptSource, make_stream
from verl_lite.engine.data.curriculum import Curriculum
from verl_lite.errors import DataError
from verl_lite.plugins.composite.schedule import Schedule


def rows(count: int, **columns) -> list[PromptRow]:
    return [
        PromptRow(id=f"p{i}", messages=[], prompt_ids=[1], columns={k: v[i] for k, v in columns.items()})
        for i in range(count)
    ]


def ids(prompts) -> list[str]:
    return [prompt.id for prompt in prompts]


def test_the_success_rate_is_a_moving_mean():
    curriculum = Curriculum(CurriculumConfig(memory=0.75), rows(2), seed=0)
    for rate in (1.0, 0.0, 0.0):
        curriculum.observe({"p0": rate})
    assert curriculum.state_dict()["records"]["p0"]["rate"] == pytest.approx(0.75**2)
    assert curriculum.metrics["data/success_rate"] == pytest.approx(0.75**2)


def test_what_is_always_or_never_solved_rests_and_comes_back():
    stream = make_stream(rows(6), [], seed=0, curriculum=CurriculumConfig(gate={"rest_steps": 2}))
    rates = {"p0": 0.0, "p1": 1.0, "p2": 0.5, "p3": 0.25}
    stream.observe(rates)
    assert stream.metrics["data/prompts_resting"] == 2
    seen = Counter(name for _ in range(4) for name in ids(stream.take(2)))
    assert not {"p0", "p1"} & seen.keys()
    stream.observe({})
    stream.observe({})  # two steps later
    assert set(ids(stream.take(6))) == {f"p{i}" for i in range(6)}


def test_what_rested_over_epochs_comes_once_per_epoch_again():
    stream = make_stream(rows(6), [], seed=0, curriculum=CurriculumConfig(gate={"rest_steps": 30}))
    stream.observe({"p0": 0.0})
    for _ in range(30):
        stream.take(1)
        stream.observe({})
    seen = Counter(name for _ in range(60) for name in ids(stream.take(1)))
    assert max(seen.values()) - min(seen.values()) <= 2  # the window cuts an epoch at both ends
    assert len(stream.state_dict()["remaining"]) <= 6


def test_a_prompt_is_gated_only_after_its_visits_and_by_bounds_of_choice():
    config = CurriculumConfig(gate={"visits": 2, "at_or_below": -1, "at_or_above": 0.9}, memory=0.0)
    curriculum = Curriculum(config, rows(3), seed=0)
    for _ in range(2):
        curriculum.observe({"p0": 0.0, "p1": 1.0})
        found = curriculum.open(["p0", "p1", "p2"], at_least=1)
        assert "p0" in found
    assert "p1" not in found


def test_where_too_few_are_open_those_that_wait_least_fill_the_batch():
    stream = make_stream(rows(4), [], seed=0, curriculum=CurriculumConfig(gate={"rest_steps": 5}))
    stream.observe({"p0": 0.0, "p1": 0.0})
    stream.observe({"p2": 0.0, "p3": 1.0})
    assert set(ids(stream.take(2))) == {"p0", "p1"}
    assert set(ids(stream.take(4))) == {"p0", "p1", "p2", "p3"}


@pytest.mark.parametrize("order", ["shuffled", "difficulty"])
def test_where_every_row_is_solved_all_go_on_in_turn(order):
    config = CurriculumConfig(gate={"rest_steps": 5}, order=order)
    stream = make_stream(rows(6), [], seed=0, curriculum=config)
    seen = Counter()
    for _ in range(12):
        taken = ids(stream.take(2))
        stream.observe(dict.fromkeys(taken, 1.0))
        seen.update(taken)
    assert stream.metrics["data/prompts_resting"] == 6
    assert seen == dict.fromkeys(seen, 4)  # those that rest least come first


def test_draws_prefer_what_is_half_solved():
    stream = make_stream(rows(30), [], seed=1, curriculum=CurriculumConfig(order="difficulty", memory=0.0))
    stream.observe({f"p{i}": 0.5 if i < 10 else 1.0 * (i < 20) for i in range(30)})
    seen = Counter(int(name[1:]) // 10 for _ in range(100) for name in ids(stream.take(3)))
    # weights 1 against 0.05 and 0.05: 10 of 11 draws, a little less without replacement
    assert seen[0] > 240
    assert seen[1] > 0
    assert seen[2] > 0
    assert stream.epoch == 10
    assert len(set(ids(stream.take(30)))) == 30


def test_levels_open_the_rows_from_easy_to_hard():
    data = rows(10, level=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    stream = make_stream(
        data, [], seed=0, curriculum=CurriculumConfig(levels={"column": "level", "start": 0.2, "steps": 4})
    )
    assert set(ids(stream.take(2))) == {"p8", "p9"}
    for _ in range(2):
        stream.observe({})
    assert {name for _ in range(9) for name in ids(stream.take(2))} <= {"p4", "p5", "p6", "p7", "p8", "p9"}
    for _ in range(2):
        stream.observe({})
    assert len(ids(stream.take(10))) == 10
    with pytest.raises(DataError, match="row p0 has 'x', expected a number"):
        Curriculum(CurriculumConfig(levels={"column": "level", "steps": 1}), rows(1, level=["x"]), seed=0)


def test_the_weights_of_data_sets_follow_their_schedule():
    sources = [
        PromptSource(name="easy", weight=Schedule(linear={0: 3.0, 10: 1.0}), rows=range(40)),
        PromptSource(name="hard", weight=1.0, rows=range(40, 80)),
    ]
    stream = make_stream(rows(80), sources, seed=0)
    assert sum(int(name[1:]) < 40 for name in ids(stream.take(16))) == 12
    for _ in range(10):
        stream.observe({})
    assert sum(int(name[1:]) < 40 for name in ids(stream.take(16))) == 8


@pytest.mark.parametrize("order", ["shuffled", "difficulty"])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_stream_resumes_exactly(order, mixed):
    config = CurriculumConfig(order=order, gate={"rest_steps": 3})
    sources = [
        PromptSource(name="a", weight=2.0, rows=range(10)),
        PromptSource(name="b", weight=1.0, rows=range(10, 20)),
    ] * mixed

    def fresh():
        return make_stream(rows(20), sources, seed=0, curriculum=config)

    def step(stream, at: int) -> list[str]:
        taken = ids(stream.take(3))
        stream.observe({name: (int(name[1:]) + at) % 5 / 4 for name in taken})
        return taken

    stream = fresh()
    first = [step(stream, at) for at in range(6)]
    state = stream.state_dict()
    rest = [step(stream, at) for at in range(6, 14)]
    resumed = fresh()
    resumed.load_state_dict(state)
    assert [step(resumed, at) for at in range(6, 14)] == rest
    assert stream.metrics == resumed.metrics
    assert first != rest
