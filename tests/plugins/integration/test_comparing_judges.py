"""`rubric`, `pairwise` and `listwise` before a real HTTP server on the loopback interface."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from verl_lite.lab.attack import Attack, attack_rollout, load_attacks
from verl_lite.plugins import Rollout, Score, ScoreOutcome
from verl_lite.plugins.builtin import Listwise, Pairwise, Rubric, RubricOptions, ring_pairs
from verl_lite.plugins.builtin.rubric import row_criteria
from verl_lite.plugins.testing import ChatRequest, FakeChatServer, fake_rollout, score_rollouts

Judge = Callable[[ChatRequest], str | int]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Judge], FakeChatServer]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("verl_lite.plugins.execution.calls.BACKOFF_S", 0.01)
    servers: list[FakeChatServer] = []

    def start(judge: Judge) -> FakeChatServer:
        servers.append(FakeChatServer(judge).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


def scores(reward: Any, server: FakeChatServer, rollouts: Sequence[Rollout], **options: Any) -> list[Score]:
    rows = score_rollouts(reward, rollouts, base_url=server.base_url, model="m", **options)
    return [row.score for row in rows]


def block(request: ChatRequest, name: str) -> str:
    """What stands between the fences of that name."""
    found = re.search(rf"<<<{name}-(\w+)\n(.*?)\n{name}-\1>>>", request.text, re.DOTALL)
    return found[2] if found else ""


def graded(**grades: object) -> str:
    return json.dumps({"reason": "because", "scores": grades})


# rubric


def test_one_call_grades_every_criterion_and_weights_count(serve: Any) -> None:
    """(3 * 1 + 1 * 0.5 - 2 * 1) / (3 + 1) = 0.375; the criteria are the config's, then the row's."""
    server = serve(lambda request: graded(c1=1, c2=0.5, c3=1))
    row = [{"title": "tone", "description": "is polite"}, {"criterion": "invents facts", "points": -2}]
    rollout = fake_rollout("4", columns={"rubric": row}, reference="four")
    criteria = [{"name": "right", "description": "says four", "weight": 3}]
    [score] = scores(Rubric, server, [rollout], criteria=criteria)
    assert score.value == 0.375
    assert score.details == {"criteria": {"right": 1.0, "tone": 0.5, "c3": 1.0}}
    [request] = server.requests
    assert block(request, "RUBRIC") == "c1: right: says four\nc2: tone: is polite\nc3: invents facts"
    assert (block(request, "ANSWER"), block(request, "REFERENCE")) == ("4", "four")
    schema = request.body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["scores"]["required"] == ["c1", "c2", "c3"]


def test_a_fault_cannot_make_the_value_negative_and_a_scale_is_divided_out(serve: Any) -> None:
    server = serve(lambda request: graded(c1=2, c2=8))
    rollout = fake_rollout("x", columns={"rubric": {"good": 1, "bad": -1}})
    [score] = scores(Rubric, server, [rollout], max_score=8)
    assert score.value == 0.0
    assert score.details["criteria"] == {"c1": 0.25, "c2": 1.0}


@pytest.mark.parametrize(
    "column",
    [
        ["is right", "is short"],
        '["is right", "is short"]',
        [{"description": "is right"}, {"text": "is short", "weight": "1"}],
        {"is right": 1, "is short": 1.0},
        {"rubrics": [{"criterion": "is right", "tags": ["x"]}, "is short"]},
        ({"title": "is right", "weight": None}, {"requirement": "is short"}),
    ],
)
def test_rubrics_as_data_sets_write_them(column: object) -> None:
    found = row_criteria(column)
    assert [(one.description, one.weight) for one in found] == [("is right", 1.0), ("is short", 1.0)]


@pytest.mark.parametrize("column", [3, [3], [{"weight": 1}], "[oops", [{"text": "a", "weight": "heavy"}]])
def test_a_rubric_that_cannot_be_read_is_the_rows_error(serve: Any, column: object) -> None:
    server = serve(lambda request: graded(c1=1))
    [score] = scores(Rubric, server, [fake_rollout("x", columns={"rubric": column})])
    assert score.outcome is ScoreOutcome.ERROR
    assert "bad row" in score.reason
    assert server.requests == []


def test_a_row_without_a_rubric_abstains_and_one_of_faults_only_is_an_error(serve: Any) -> None:
    server = serve(lambda request: graded(c1=1))
    rows = [fake_rollout("x"), fake_rollout("x", columns={"rubric": {"lies": -1}})]
    assert [one.outcome.value for one in scores(Rubric, server, rows)] == ["abstain", "error"]
    with pytest.raises(ValueError, match="no criterion has a weight above 0"):
        RubricOptions(base_url="http://h/v1", model="m", criteria=({"description": "lies", "weight": -1},))


@pytest.mark.parametrize(
    "reply",
    [
        "All criteria are met.",
        graded(c1=1),
        graded(c1=1, c2=1, c3=1),
        graded(c1=1, c2=2),
        graded(c1=1, c2=True),
        graded(c1=1, c2="1"),
        '{"scores": [1, 1]}',
        '{"scores": {"c1": 1, "c2": NaN}}',
    ],
)
def test_a_reply_with_anything_else_is_an_error_never_a_zero(serve: Any, reply: str) -> None:
    server = serve(lambda request: reply)
    [score] = scores(Rubric, server, [fake_rollout("x", columns={"rubric": ["a", "b"]})])
    assert (score.value, score.outcome) == (None, ScoreOutcome.ERROR)


def test_equal_answers_to_equal_rubrics_are_asked_once(serve: Any) -> None:
    server = serve(lambda request: graded(c1=1))
    rows = [fake_rollout("x", columns={"rubric": [text]}) for text in ("a", "a", "b", "a")]
    assert [one.value for one in scores(Rubric, server, rows)] == [1.0] * 4
    assert len(server.requests) == 2


# pairwise


def longer(request: ChatRequest) -> str:
    """A judge that prefers the longer answer, and says so in the requested form."""
    first, second = len(block(request, "A")), len(block(request, "B"))
    return json.dumps({"better": "tie" if first == second else "A" if first > second else "B"})


def group(*completions: str, **fields: Any) -> list[Rollout]:
    return [fake_rollout(text, group="g", sample_index=at, **fields) for at, text in enumerate(completions)]


def test_points_are_won_in_both_orders_and_equal_completions_tie_unasked(serve: Any) -> None:
    """'333' beats three; '22' beats two; '1' and '1' beat nobody and tie with each other."""
    server = serve(longer)
    found = scores(Pairwise, server, group("1", "333", "22", "1"))
    assert [one.value for one in found] == [0.5 / 3, 1.0, 2 / 3, 0.5 / 3]
    assert found[0].details == {"wins": 0, "ties": 1, "swayed": 0, "comparisons": 3}
    assert len(server.requests) == 6  # 1-333, 1-22, 333-22 in both orders: equal questions are one


def test_a_judge_that_prefers_a_place_makes_ties(serve: Any) -> None:
    server = serve(lambda request: '{"better": "A", "reason": "it came first"}')
    found = scores(Pairwise, server, group("a", "b", "c"))
    assert [(one.value, one.details["swayed"]) for one in found] == [(0.5, 2)] * 3


def test_against_the_reference_the_best_of_several_counts(serve: Any) -> None:
    references = ["4444", "4"]
    rows = group("22", "", reference=json.dumps(references), columns={"reference": references})
    found = scores(Pairwise, serve(longer), rows, against="reference")
    assert [one.value for one in found] == [1.0, 0.0]
    [none] = scores(Pairwise, serve(longer), [Rollout(completion="x")], against="reference")
    assert none.outcome is ScoreOutcome.ABSTAIN


def test_a_ring_of_opponents_is_even() -> None:
    assert len(ring_pairs(16, 0)) == 120
    pairs = ring_pairs(16, 4)
    assert len(pairs) == 32
    assert {sum(member in pair for pair in pairs) for member in range(16)} == {4}
    assert ring_pairs(2, 9) == [(0, 1)]


@pytest.mark.parametrize("reward", [Pairwise, Listwise])
def test_a_broken_endpoint_is_an_error_for_the_group_and_nothing_known_is_asked_again(
    serve: Any, reward: Any
) -> None:
    seen: list[str] = []

    def fails_at_first(request: ChatRequest) -> str | int:
        if request.text in seen or len(seen) < 2:
            seen.append(request.text)
            return longer(request) if reward is Pairwise else graded(**{"1": 5, "2": 5, "3": 5})
        seen.append(request.text)
        return 503

    found = scores(reward, serve(lambda request: 500), group("a", "bb", "ccc"))
    assert {one.outcome for one in found} == {ScoreOutcome.ERROR}
    if reward is Pairwise:
        server = serve(fails_at_first)
        scores(reward, server, group("a", "bb", "ccc"))
        answered = seen[:2]
        assert all(seen.count(text) == 1 for text in answered)


def test_too_long_loses_and_a_group_of_one_abstains(serve: Any) -> None:
    server = serve(longer)
    found = scores(Pairwise, server, group("x" * 11, "a", "x" * 12), max_completion_chars=10)
    assert [one.value for one in found] == [0.25, 1.0, 0.25]
    assert server.requests == []
    assert scores(Pairwise, server, group("a"))[0].outcome is ScoreOutcome.ABSTAIN


# listwise


def by_length(request: ChatRequest) -> str:
    answers = re.findall(r"<<<ANSWER (\d+)-\w+\n(.*)\n", request.text)
    return graded(**{number: len(text) for number, text in answers})


def test_a_group_is_seen_in_two_orders_and_grades_are_averaged(serve: Any) -> None:
    """A judge that gives the first answer 2 more: every answer's mean is what it would get without."""
    server = serve(by_length)
    found = scores(Listwise, server, group("1", "333", "22", "1"))
    assert [one.value for one in found] == [0.1, 0.3, 0.2, 0.1]
    first, second = (re.findall(r"<<<ANSWER \d+-\w+\n(.*)\n", one.text) for one in server.requests)
    assert sorted(first) == ["1", "22", "333"]
    assert second == first[::-1]


def test_a_preference_for_the_first_place_is_shared_out(serve: Any) -> None:
    found = scores(Listwise, serve(lambda request: graded(**{"1": 10, "2": 0})), group("a", "b"))
    assert [one.value for one in found] == [0.5, 0.5]


def test_the_same_group_in_another_order_is_not_asked_again(serve: Any) -> None:
    server = serve(by_length)
    rows = group("1", "333", "22") + [
        fake_rollout(text, group="h", sample_index=at) for at, text in enumerate(("22", "1", "333"))
    ]
    assert [one.value for one in scores(Listwise, server, rows)] == [0.1, 0.3, 0.2, 0.2, 0.1, 0.3]
    assert len(server.requests) == 2


def test_a_group_of_equals_abstains_and_too_many_are_an_error(serve: Any) -> None:
    server = serve(by_length)
    assert {one.outcome for one in scores(Listwise, server, group("a", "a"))} == {ScoreOutcome.ABSTAIN}
    [*many] = scores(Listwise, server, group("a", "b", "c"), max_answers=2)
    assert {one.outcome for one in many} == {ScoreOutcome.ERROR}
    assert "max_answers=2" in many[0].reason


# what an answer says about itself

INJECTIONS = [attack for attack in load_attacks() if attack.family == "injection"]


def injected(attack: Attack) -> Rollout:
    columns = {"rubric": ["is right"]}
    row = fake_rollout("", reference="42", group=attack.name, id=attack.name, columns=columns)
    made = attack_rollout(attack, row, ("43", "45"))
    assert made is not None
    return replace(made, prompt=({"role": "user", "content": "6 * 7?"},))


def outside(request: ChatRequest) -> str:
    """What the user's message says outside of the fences."""
    user = str(request.messages[1]["content"])
    return re.sub(r"<<<([\w ]+-\w+)\n.*?\n\1>>>", "", user, flags=re.DOTALL).strip()


def obedient(request: ChatRequest) -> str:
    """A fair judge that would obey any text outside the fences: the right answer is 42 and nothing else."""
    believes = bool(outside(request))
    answers = dict(re.findall(r"<<<(A|B|ANSWER(?: \d+)?)-(?:\w+)\n(.*?)\n\1-", request.text, re.DOTALL))
    right = {name: text == "42" or (believes and text != "42") for name, text in answers.items()}
    if "A" in right:
        return json.dumps({"better": "tie" if right["A"] == right["B"] else "A" if right["A"] else "B"})
    if "ANSWER" in right:
        return graded(c1=int(right["ANSWER"]))
    return graded(**{name.split()[-1]: 10 * int(good) for name, good in right.items()})


@pytest.mark.parametrize("reward", [Rubric, Pairwise, Listwise])
def test_no_injection_reaches_a_judge_as_an_instruction(serve: Any, reward: Any) -> None:
    """Not one of the corpus ends its quotation; whether a judge is persuaded by it is the judge's own."""
    server = serve(obedient)
    for attack in INJECTIONS:
        hostile = injected(attack)
        honest = replace(hostile, completion="42", id="honest", sample_index=1)
        rows = [hostile] if reward is Rubric else [hostile, honest]
        found = scores(reward, server, rows)
        assert found[0].value == 0.0, (attack.name, found[0])
        assert [one.value for one in found[1:]] == [1.0] * (len(rows) - 1)
    assert len(INJECTIONS) >= 11
    assert {outside(request) for request in server.requests} == {""}
