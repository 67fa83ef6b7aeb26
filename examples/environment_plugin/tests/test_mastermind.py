"""Games worked out by hand, and their rewards."""

import pytest
from mastermind_game import Mastermind, mastermind
from mastermind_game.environment import feedback_on

from verl_lite.plugins import Message, Rollout
from verl_lite.plugins.testing import assert_score, fake_rollout, play

ASKING: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "notes", "arguments": "{}"}}],
}


def said(rollout: Rollout) -> list[str]:
    return [turn.content for turn in rollout.turns if turn.role != "assistant"]


@pytest.mark.parametrize(
    ("guess", "code", "feedback"),
    [
        ("123", "123", "3 in place, 0 misplaced."),
        ("123", "321", "1 in place, 2 misplaced."),
        ("112", "121", "1 in place, 2 misplaced."),
        ("111", "122", "1 in place, 0 misplaced."),
        ("456", "123", "0 in place, 0 misplaced."),
    ],
)
def test_feedback(guess: str, code: str, feedback: str) -> None:
    assert feedback_on(guess, code) == feedback


def test_a_game_that_is_won() -> None:
    rollout = play(Mastermind, ["142", "I think 241.", "421"], row={"code": "421"})
    assert said(rollout) == [
        "0 in place, 3 misplaced.",
        "1 in place, 2 misplaced.",
        "You found the code.",
    ]
    assert rollout.finish_reason == "stop"
    assert rollout.columns["environment"] == {"won": True, "guesses": 3}
    score = assert_score(mastermind, rollout, 0.8)
    assert [(step.start, step.value) for step in score.steps] == [(0, 0.0), (2, 0.05)]


def test_a_game_that_is_lost() -> None:
    rollout = play(Mastermind, ["111", "222"], row={"code": "421"}, max_guesses=2)
    assert said(rollout)[-1] == "1 in place, 0 misplaced. The code was 421."
    assert_score(mastermind, rollout, 0.0)


def test_the_tool_has_the_past_guesses() -> None:
    rollout = play(Mastermind, [ASKING, "142", ASKING], row={"code": "421"})
    assert said(rollout) == ["no guess yet", "0 in place, 3 misplaced.", "142: 0 in place, 3 misplaced."]


@pytest.mark.parametrize("text", ["", "1234", "I do not know", "777", "1 4 2"])
def test_what_is_no_guess_is_told(text: str) -> None:
    assert said(play(Mastermind, [text], row={"code": "421"})) == ["That is no guess."]


def test_codes_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> list[str]:
        return said(play(Mastermind, ["112", "333"], seed=seed))

    assert first(3) == first(3)
    assert len({tuple(first(seed)) for seed in range(8)}) > 1


def test_claiming_to_have_won_earns_nothing() -> None:
    rollout = play(Mastermind, ["You found the code."], row={"code": "421"}, max_guesses=1)
    assert_score(mastermind, rollout, 0.0)


def test_a_rollout_without_a_game_is_not_a_lost_one() -> None:
    assert_score(mastermind, fake_rollout("421"), None, outcome="abstain")
