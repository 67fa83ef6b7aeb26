"""From conversations to token ids with loss weights: response-only, weighted by spans, checked.

A template that rewrites earlier turns (Qwen3 drops their reasoning) has no rendering in which all turns
look as at inference. Such a chat becomes one example per turn, as the model would see it. Every other chat
is one example.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from verl_lite.engine.config.sft import SFTConfig, SFTRowsConfig, SpanWeight
from verl_lite.engine.sft.faults import Fault, FaultKind
from verl_lite.engine.sft.responses import Conversation, Response, ResponseFinder, Tokens
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import DataError

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTExample:
    """One sequence of SFT. `weights_T[i]` is the weight of token i in the loss, 0 if it is not trained on."""

    input_ids: Sequence[int]
    weights_T: Sequence[float]
    row: str = ""

    @property
    def labels(self) -> list[int]:
        """Labels as in transformers: the token if it is trained on, else IGNORED."""
        return [i if w > 0 else IGNORED for i, w in zip(self.input_ids, self.weights_T, strict=True)]


def describe_example(example: SFTExample, tokenizer: Tokenizer) -> list[tuple[bool, str]]:
    """(is trained on, decoded text with special tokens) of each run of tokens."""
    runs = groupby(zip(example.weights_T, example.input_ids, strict=True), key=lambda pair: pair[0] > 0)
    return [(trained, tokenizer.decode([i for _, i in pairs])) for trained, pairs in runs]


class ExampleBuilder:
    """Makes the examples of conversations, and collects their `faults`.

    `num_rewritten` counts the chats whose template rewrites earlier turns.
    """

    def __init__(self, finder: ResponseFinder, config: SFTConfig, *, max_tokens: int) -> None:
        self._finder = finder
        self._mask = config.mask
        self._spans = config.loss.spans
        self._max_tokens = max_tokens
        self.faults: list[Fault] = []
        self.num_rewritten = 0
        tokenizer = finder.tokenizer
        is_padding = tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.unk_token_id)
        self._pad_id = tokenizer.pad_token_id if is_padding else None

    def from_chat(
        self, conversation: Conversation, rows: SFTRowsConfig, *, drop_overlong: bool = False
    ) -> list[SFTExample]:
        """The examples of one chat; too long, none if `drop_overlong`, else DataError."""
        answers, messages = conversation.assistant_turns, conversation.messages
        weighed = [at for at in answers if messages[at].get("weight", 1) != 0]  # as OpenAI marks them
        if not weighed:
            raise DataError(f"row {conversation.id}: the chat has no assistant turn, so nothing to train on")
        turns = weighed[-1:] if rows.train_on == "last" else weighed
        responses = [self._finder.response(conversation, turn) for turn in turns]
        whole = rendered = self._finder.render(conversation, len(conversation.messages))
        self._check_responses(conversation, responses)
        if responses[-1].closed.startswith(whole):  # the end of turn that the template does not write
            whole = responses[-1].closed
        marks = whole == rendered and len(weighed) == len(answers)
        if all(whole.startswith(response.closed) for response in responses):
            made = [self._example(conversation, whole, responses, is_marked=marks)]
        else:
            self.num_rewritten += 1
            made = [self._example(conversation, one.after, [one], is_marked=False) for one in responses]
        longest = max(len(example.input_ids) for example in made)
        if longest <= self._max_tokens:
            return made
        if drop_overlong:
            return []
        raise DataError(
            f"row {conversation.id}: prompt and answer have {longest} tokens, more than "
            f"{self._max_tokens} (sft.max_tokens, or what a rollout may hold: rollout.max_prompt_tokens + "
            "rollout.max_new_tokens); raise it, or set overlong: drop"
        )

    def from_text(self, row: str, text: str) -> Iterator[SFTExample]:
        """Plain text, with the start token if the tokenizer has one and the end token, in rows of at most
        `max_tokens`; a row's first token has weight 0.
        """
        ids = _text_ids(self._finder.tokenizer, text)
        for start in range(0, len(ids), self._max_tokens):
            piece = ids[start : start + self._max_tokens]
            if len(piece) > 1:
                yield SFTExample(input_ids=piece, weights_T=[0.0, *[1.0] * (len(piece) - 1)], row=row)

    def _example(
        self, conversation: Conversation, text: str, responses: Sequence[Response], *, is_marked: bool
    ) -> SFTExample:
        tokens = self._finder.tokens(text)
        trained = {at for one in responses for at in tokens.inside(one.start, one.end)}
        self._check_tokens(conversation, tokens, responses[-1])
        compares = is_marked and self._mask != "prompt" and all(one.agrees for one in responses)
        if compares and self._finder.marks_responses(conversation):
            trained = self._compare_marks(conversation, text, tokens, trained, responses)
        trained.discard(0)  # nothing predicts the first token
        weights = [1.0 if at in trained else 0.0 for at in range(len(tokens.ids))]
        for start, end, weight in _weighted_spans(text, responses, self._spans):
            for at in tokens.inside(start, end):
                weights[at] = weight if at in trained else 0.0
        says = any(w and i not in self._finder.markers for i, w in zip(tokens.ids, weights, strict=True))
        if not says and not any(one.is_empty for one in responses):
            what = "only end tokens weigh more than 0" if any(weights) else "every token weighs 0"
            self._fault(FaultKind.EMPTY, conversation, f"{what}: {text[responses[0].start :]!r}")
        return SFTExample(input_ids=tokens.ids, weights_T=weights, row=conversation.id)

    def _compare_marks(
        self,
        conversation: Conversation,
        text: str,
        tokens: Tokens,
        expected: set[int],
        responses: Sequence[Response],
    ) -> set[int]:
        """The tokens to train on by the template's marks; a fault if they are not the `expected` ones."""
        marks = self._finder.marked(conversation, len(tokens.ids))
        if marks is None:
            self._fault(FaultKind.TOKENS_DIFFER, conversation, f"{text[:200]!r}")
            return expected
        marked = {at for at, bit in enumerate(marks) if bit}
        # only trained turns count, and not the line break after an end of turn, which no model generates
        unwanted = [(one.end, len(one.after)) for one in responses]
        first_turn = responses[0].turn
        if any(message["role"] == "assistant" for message in conversation.messages[:first_turn]):
            unwanted.append((0, len(self._finder.render(conversation, first_turn))))
        for start, end in unwanted:
            marked -= set(tokens.inside(start, end)) - expected
        if self._mask == "template":
            return marked
        for kind, wrong in (
            (FaultKind.PROMPT_TRAINED, marked - expected),
            (FaultKind.RESPONSE_LOST, expected - marked),
        ):
            if wrong:
                self._fault(kind, conversation, _show(text, tokens, wrong))
        return expected

    def _check_responses(self, conversation: Conversation, responses: Sequence[Response]) -> None:
        for one in responses:
            if not one.agrees:
                self._fault(FaultKind.TEMPLATE_DIFFERS, conversation, _difference(one))
            elif one.lost:
                self._fault(FaultKind.LOST, conversation, f"turn {one.turn} lacks {one.lost}")
            elif one.is_empty:
                self._fault(FaultKind.EMPTY, conversation, f"turn {one.turn} is {one.after[one.start :]!r}")
            elif not one.is_ended:
                tail = one.after[one.start :][-80:]
                self._fault(
                    FaultKind.NO_END,
                    conversation,
                    f"turn {one.turn} ends with {tail!r}, not with {' or '.join(self._finder.ends)}",
                )

    def _check_tokens(self, conversation: Conversation, tokens: Tokens, last: Response) -> None:
        at_inference = self._finder.tokens(last.prompt).ids
        count = len(at_inference)
        if last.agrees and list(tokens.ids[:count]) != list(at_inference):
            decode = self._finder.tokenizer.decode
            self._fault(
                FaultKind.TOKENS_DIFFER,
                conversation,
                f"at inference it ends with {[decode(i) for i in at_inference[-3:]]}, in training with "
                f"{[decode(i) for i in tokens.ids[max(count - 3, 0) : count]]}",
            )
        if self._pad_id is not None and self._pad_id in tokens.ids:
            places = [at for at, token in enumerate(tokens.ids) if token == self._pad_id]
            side = "left" if places[0] < len(tokens.ids) / 2 else "right"
            count = len(places)
            shown = self._finder.tokenizer.decode(tokens.ids[max(places[0] - 8, 0) : places[0] + 8])
            self._fault(FaultKind.PADDING, conversation, f"{count} at its {side} side: {shown!r}")
        start = self._finder.tokenizer.bos_token_id
        if start is not None and list(tokens.ids[:2]) == [start, start]:
            shown = self._finder.tokenizer.decode(tokens.ids[:8])
            self._fault(FaultKind.DOUBLE_START, conversation, f"{shown!r}")

    def _fault(self, kind: FaultKind, conversation: Conversation, evidence: str) -> None:
        self.faults.append(Fault(kind, conversation.id, evidence))


def _text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    start = tokenizer.bos_token
    is_written = start is not None and text.startswith(str(start))
    ids = list(tokenizer(text, add_special_tokens=not is_written)["input_ids"])
    return ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, int(tokenizer.eos_token_id)]


def _weighted_spans(
    text: str, responses: Sequence[Response], rules: Sequence[SpanWeight]
) -> Iterator[tuple[int, int, float]]:
    for rule in rules:
        for one in responses:
            for match in rule.compiled().finditer(text, one.start, one.end):
                yield match.start(), match.end(), rule.weight


def _show(text: str, tokens: Tokens, wrong: set[int]) -> str:
    """The first run of wrong tokens, marked in its context."""
    first = last = min(wrong)
    while last + 1 in wrong:
        last += 1
    start, end = tokens.offsets[first][0], tokens.offsets[last][1]
    return f"{text[max(start - 40, 0) : start]!r} >>> {text[start:end][:120]!r} <<< {text[end : end + 40]!r}"


def _difference(response: Response) -> str:
    prompt, after = response.prompt, response.after
    same = next(
        (at for at, (a, b) in enumerate(zip(prompt, after, strict=False)) if a != b),
        min(len(prompt), len(after)),
    )
    begin = max(same - 30, 0)
    return f"at inference {prompt[begin : same + 40]!r}, in training {after[begin : same + 40]!r}"
