"""Mastermind as an environment: find a secret code from the feedback on each guess."""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from verl_lite.plugins import Message, Rollout, Score, Step, StepScore, environment, reward

WON = "You found the code."
FEEDBACK = re.compile(r"(\d+) in place, (\d+) misplaced\.")


class MastermindOptions(BaseModel):
    """What a config may set under `options:`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(default=3, gt=0, description="Digits of the code.")
    digits: int = Field(default=6, gt=1, le=9, description="The digits are 1 to this one.")
    max_guesses: int = Field(default=8, gt=0, description="Guesses, after which the game is lost.")


@environment("mastermind", options=MastermindOptions, timeout_s=5.0)
class Mastermind:
    """Find a secret code; each guess is answered with the number of right and of misplaced digits.

    The code is the row's column `code`, or drawn from the trajectory's seed. A tool, `notes`, keeps every
    guess with its feedback.
    """

    def __init__(self, options: MastermindOptions, row: Mapping[str, object]) -> None:
        self.options = options
        drawn = [str(random.randint(1, options.digits)) for _ in range(options.length)]
        self.code = str(row.get("code") or "".join(drawn))
        self.past: list[str] = []
        self.tools = [self.notes]

    def notes(self) -> str:
        """All guesses so far, with their feedback."""
        return "\n".join(self.past) or "no guess yet"

    async def reset(self) -> Sequence[Message]:
        options = self.options
        text = f"Find my code of {options.length} digits from 1 to {options.digits}. Answer with a guess."
        return [{"role": "user", "content": text}]

    async def step(self, message: Message) -> Step:
        found = re.findall(
            rf"(?<!\d)[1-{self.options.digits}]{{{self.options.length}}}(?!\d)", message.get("content", "")
        )
        guess = found[-1] if found else ""
        feedback = feedback_on(guess, self.code) if guess else "That is no guess."
        self.past.append(f"{guess or '?'}: {feedback}")
        details = {"won": guess == self.code, "guesses": len(self.past)}
        if guess == self.code:
            return Step(messages=[{"role": "user", "content": WON}], done=True, details=details)
        if len(self.past) >= self.options.max_guesses:
            text = f"{feedback} The code was {self.code}."
            return Step(messages=[{"role": "user", "content": text}], done=True, details=details)
        return Step(messages=[{"role": "user", "content": feedback}], details=details)


def feedback_on(guess: str, code: str) -> str:
    """How many digits are right, and how many are there in another place.

    >>> feedback_on("1123", "1311")
    '1 in place, 2 misplaced.'
    """
    in_place = sum(a == b for a, b in zip(guess, code, strict=True))
    common = sum((Counter(guess) & Counter(code)).values())
    return f"{in_place} in place, {common - in_place} misplaced."


@reward("mastermind", timeout_s=2.0)
def mastermind(rollout: Rollout) -> Score:
    """1.0 for a code found with the first guess, 0.1 less for each further one, and 0.0 for none.

    The steps give each guess the share of its digits that are in place, at its own turn. Abstains where
    there was no game. Only the environment's messages count, never the model's.
    """
    turns = rollout.turns
    if not turns:
        return Score(None, reason="the rollout has no turns")
    answers = [(at, turn.content) for at, turn in enumerate(turns) if turn.role == "user"]
    won = any(content == WON for _, content in answers)
    steps = tuple(
        StepScore(at - 1, at, 0.05 * int(found[1]), "turn")
        for at, content in answers
        if (found := FEEDBACK.match(content)) and turns[at - 1].role == "assistant"
    )
    value = max(1.0 - 0.1 * (len(answers) - 1), 0.1) if won else 0.0
    return Score(value, details={"guesses": len(answers)}, steps=steps)
