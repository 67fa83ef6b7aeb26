"""One trajectory while it is sampled: what the model saw, token by token, its turns and its budgets."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest
from verl_lite.engine.rollout.turns.rendering import Prompt, TurnRenderer
from verl_lite.engine.rollout.turns.tool_calls import ParsedMessage, ToolParser
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PromptRow
from verl_lite.errors import DataError
from verl_lite.plugins import (
    EnvironmentSession,
    Message,
    Rollout,
    SamplerSettings,
    Segment,
    StepResult,
    ToolCall,
    ToolSchema,
    Turn,
    TurnOutcome,
)

ERROR = "error"  # the finish reason of a trajectory without a valid end


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnBudgets:
    """Limits of one trajectory; that of sampled tokens is the sampler settings' max_new_tokens.

    `context_tokens` counts the prompt and everything after it, `max_turn_tokens` what one turn may sample
    (None: as many as are left).
    """

    context_tokens: int
    max_turns: int
    max_tool_s: float
    max_turn_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnKit:
    """What every trajectory of a run shares. `parser` is None where no tools can be called.

    At most the fraction `max_failed` of a batch's trajectories may end in an error.
    """

    renderer: TurnRenderer
    parser: ToolParser | None
    budgets: TurnBudgets
    max_failed: float = 0.0


@dataclass(slots=True)
class _Part:
    """A training sample being made: the lists have one entry per token behind `prompt_ids`."""

    prompt_ids: Sequence[int]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)

    def extend(self, ids: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        """Add tokens; without `logprobs` they were not sampled."""
        self.ids += ids
        self.logprobs += [0.0] * len(ids) if logprobs is None else logprobs
        self.mask += [int(logprobs is not None)] * len(ids)


class Trajectory:
    """Sample `sample_index` of `row`. Its methods are called in turn:

    begin, then next_request, sampled, answered until one of the last two ends it (`reason`), then rollout.
    """

    def __init__(
        self,
        row: PromptRow,
        *,
        key: str,
        sample_index: int,
        settings: SamplerSettings,
        kit: TurnKit,
        session: EnvironmentSession,
    ) -> None:
        self.key = key
        self.session = session
        self.reason = ""
        self._row = row
        self._sample_index = sample_index
        self._settings = settings
        self._kit = kit
        self._renderer = kit.renderer.of_row(row.columns)
        self._history: list[Message] = []
        self._first: list[Message] = []
        self._tools: Sequence[ToolSchema] = ()
        self._prompt = Prompt(text="", ids=())
        self._parts: list[_Part] = [_Part(())]
        self._versions: list[int] = []
        self._turns: list[Turn] = []
        self._details: dict[str, object] = {}
        self._num_calls = self._num_sampled = self._num_turns = 0
        self._tool_s = 0.0
        self._asked_at = 0.0
        self._said = ""
        self._last_ids: Sequence[int] = ()

    def begin(self, messages: Sequence[Message]) -> None:
        """Start with the environment's prompt. Ends it at once if the prompt leaves no room."""
        self._tools = self.session.tools
        self._first = self._history = list(messages)
        try:
            self._prompt = self._renderer.first(messages, self._tools)
        except DataError as error:
            self.fail(str(error))
            return
        self._parts = [_Part(self._prompt.ids)]
        self.reason = self._spent(len(self._prompt.ids))

    @property
    def failure(self) -> str:
        """Why it has no valid end; "" if it has one, or none yet."""
        return str(self._details["error"]) if self.reason == ERROR else ""

    def fail(self, why: str) -> None:
        """End it without a valid end: it gets no reward."""
        self.reason, self._details = ERROR, {**self._details, "error": why}

    @property
    def _seen(self) -> list[int]:
        part = self._parts[-1]
        return [*part.prompt_ids, *part.ids]

    @property
    def _num_seen(self) -> int:
        part = self._parts[-1]
        return len(part.prompt_ids) + len(part.ids)

    @property
    def _room(self) -> int:
        return self._kit.budgets.context_tokens - self._num_seen

    def _spent(self, num_seen: int) -> str:
        """The budget that leaves no token for a turn behind `num_seen` tokens; "" if there is room."""
        if num_seen >= self._kit.budgets.context_tokens:
            return "context"
        return "length" if self._num_sampled >= self._settings.max_new_tokens else ""

    def next_request(self, end_ids: Sequence[int]) -> SequenceRequest:
        """The next turn to sample; the first one has the seed of a single completion."""
        self._asked_at = time.perf_counter()
        left = min(self._settings.max_new_tokens - self._num_sampled, self._room)
        limit = min(left, self._kit.budgets.max_turn_tokens or left)
        seed = self._settings.seed
        seed = derive_seed(seed, "turn", self._num_turns) if self._num_turns else seed
        return SequenceRequest(
            id=self.key,
            prompt_ids=self._seen,
            settings=replace(self._settings, max_new_tokens=limit, seed=seed),
            end_ids=end_ids,
        )

    def sampled(self, finished: FinishedSequence, text: str) -> Message | None:
        """Add a sampled turn, whose text has its special tokens but no end.

        Returns the message for the environment, or None: then it is over, or the model made a mistake that
        is answered already.
        """
        room, part = self._room, self._parts[-1]
        start = self._num_tokens
        part.extend(finished.token_ids, finished.logprobs)
        part.turns.append(len(self._turns))
        self._versions += finished.token_versions
        self._num_sampled += len(finished.token_ids)
        self._num_turns += 1
        parsed = self._parsed(text)
        self._said, self._last_ids = text, finished.token_ids
        is_cut = finished.finish_reason == "length"
        outcome: TurnOutcome = "truncated" if is_cut else "malformed" if parsed.mistake else "ok"
        message = self._message(parsed)
        self._add(message, outcome, self._seconds(), start=start, end=self._num_tokens)
        if is_cut:
            self.reason = "context" if len(finished.token_ids) >= room else "length"
        elif parsed.mistake:
            told = Message(role="user", content=f"Your tool call could not be read: {parsed.mistake}")
            self.answered(StepResult(messages=(told,), outcomes=("malformed",), seconds=(0.0,)))
        else:
            return message
        return None

    def _seconds(self) -> float:
        return time.perf_counter() - self._asked_at

    @property
    def _num_tokens(self) -> int:
        return len(self._versions)

    def _parsed(self, text: str) -> ParsedMessage:
        """The text and calls of a message. A message that the template cannot show is a mistake."""
        if self._kit.parser is None or not self._tools:
            return ParsedMessage(text=text)
        parsed = self._kit.parser(text, self._tools)
        refusal = self._renderer.refusal
        if len(parsed.calls) > 1 and (why := refusal(self._history, self._called(parsed), self._tools)):
            return ParsedMessage(text=text, mistake=why)
        return replace(parsed, text=text) if parsed.mistake else parsed

    def _message(self, parsed: ParsedMessage) -> Message:
        if not parsed.calls:
            return Message(role="assistant", content=self._renderer.plain(parsed.text))
        message = self._called(parsed)
        self._num_calls += len(parsed.calls)
        return message

    def _called(self, parsed: ParsedMessage) -> Message:
        """The message with its calls, numbered within the trajectory (nine characters, as Mistral's are)."""
        calls = [
            ToolCall(id=f"call{self._num_calls + at:05d}", type="function", function=call)
            for at, call in enumerate(parsed.calls)
        ]
        return Message(role="assistant", content=self._renderer.plain(parsed.text), tool_calls=calls)

    def _add(
        self, message: Message, outcome: TurnOutcome, seconds: float, *, start: int = 0, end: int = 0
    ) -> None:
        turn = Turn(
            role=message["role"],
            content=message.get("content") or "",
            tool_calls=tuple(message.get("tool_calls") or ()),
            tool_call_id=message.get("tool_call_id", ""),
            name=message.get("name", ""),
            start=start,
            end=end,
            seconds=seconds,
            outcome=outcome,
        )
        self._turns.append(turn)

    def answered(self, result: StepResult) -> None:
        """Add the environment's answer to the last sampled turn: it ends, or goes on behind the answer."""
        self._details |= result.details
        self._tool_s += sum(result.seconds)
        first = len(self._turns)
        for message, outcome, seconds in zip(result.messages, result.outcomes, result.seconds, strict=True):
            self._add(message, outcome, seconds)
        budgets = self._kit.budgets
        if result.done:
            self.reason = "stop"
        elif not result.messages:
            self.fail("the environment answered nothing, and did not end")
        elif self._num_turns >= budgets.max_turns:
            self.reason = "turns"
        elif self._tool_s > budgets.max_tool_s:
            self.reason = "tool_seconds"
        else:
            self._go_on(result.messages, first)

    def _go_on(self, answers: Sequence[Message], first: int) -> None:
        """Show the model the answers, which are the turns from `first` on, if they fit."""
        message = self._turns[first - 1].message
        try:
            prompt = self._renderer.next(
                self._prompt,
                self._history,
                message,
                answers,
                self._tools,
                said=self._said,
                sampled_ids=self._last_ids,
            )
        except DataError as error:
            self.fail(str(error))
            return
        self.reason = self._spent((0 if prompt.restarts else self._num_seen) + len(prompt.ids))
        if self.reason:  # the model does not see the answers
            return
        self._history = [*self._history, message, *answers]
        self._prompt = prompt
        if prompt.restarts:
            self._parts.append(_Part(prompt.ids))
            return
        start = self._num_tokens
        self._parts[-1].extend(prompt.ids)
        self._versions += [self._versions[-1]] * len(prompt.ids)
        # of several answers, the first has the tokens of all
        self._turns[first] = replace(self._turns[first], start=start, end=self._num_tokens)

    def rollout(self) -> Rollout:
        """What was sampled, once `reason` is set."""
        parts = [part for part in self._parts if part.ids]
        versions = self._versions or [0]
        said = [turn.content for turn in self._turns if turn.role == "assistant"]
        columns: Mapping[str, object] = self._row.columns
        return Rollout(
            id=f"{self._row.id}/{self._sample_index}",
            group=self._row.id,
            sample_index=self._sample_index,
            prompt=self._first or self._row.messages,
            prompt_ids=self._parts[0].prompt_ids,
            completion=said[-1] if said else "",
            completion_ids=[id for part in parts for id in part.ids],
            logprobs=[value for part in parts for value in part.logprobs],
            finish_reason=self.reason,
            reference=self._row.reference,
            columns={**columns, "environment": self._details} if self._details else columns,
            policy_version=versions[0],
            token_versions=() if versions[0] == versions[-1] else versions,
            sampling=self._settings,
            turns=tuple(self._turns),
            segments=tuple(map(_segment, parts)) if len(parts) > 1 else (),
        )


def _segment(part: _Part) -> Segment:
    return Segment(
        prompt_ids=part.prompt_ids,
        completion_ids=part.ids,
        logprobs=part.logprobs,
        sampled_mask=part.mask,
        turns=part.turns,
    )
