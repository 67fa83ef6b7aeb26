"""Rows whose values stand deeper than a path can say: brought within reach before a table reads them."""

from collections.abc import Iterator, Mapping
from typing import Any

from verl_lite.lab.formats.rows import number_or_none
from verl_lite.plugins.rollout import content_text

Row = Mapping[str, Any]
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # inspect: correct, partial, incorrect, no answer


def nemo_gym(row: Row) -> Row:
    """`response.output_text`: the text of the last message in the Responses API's output; `response.last`."""
    response = row["response"]
    said = [item for item in response.get("output") or () if item.get("type", "message") == "message"]
    last = said[-1] if said else None
    text = content_text(last.get("content")) if last else None
    return {**row, "response": {**response, "output_text": text, "last": last or {}}}


def tgi(row: Row) -> Row:
    """`sequences`: the answer and those of `best_of`, with their tokens as two lists."""
    details = row.get("details") or {}
    found = [{"generated_text": row["generated_text"], **details}, *(details.get("best_of_sequences") or ())]
    return {**row, "sequences": [_with_tokens(sequence) for sequence in found]}


def _with_tokens(sequence: Row) -> Row:
    tokens = sequence.get("tokens") or []
    return {
        "generated_text": sequence["generated_text"],
        "finish_reason": sequence.get("finish_reason"),
        "token_ids": [token["id"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
    }


def inspect(row: Row) -> Row:
    """The letters of inspect's scores as numbers, in a sample or in a whole log."""
    if "samples" in row:
        return {**row, "samples": [inspect(sample) for sample in row["samples"]]}
    scores = {name: _number(score) for name, score in (row.get("scores") or {}).items()}
    return {**row, "scores": scores}


def _number(score: Any) -> float | None:
    value = score.get("value") if isinstance(score, Mapping) else score
    return _LETTERS.get(value) if isinstance(value, str) else number_or_none(value)


def evalplus(row: Row) -> Row:
    """`passed`: which of the tests of each solution passed."""
    if "eval" not in row:
        return row
    return {
        **row,
        "eval": {task: [_with_passed(one) for one in found] for task, found in row["eval"].items()},
    }


def _with_passed(entry: Row) -> Row:
    statuses = {name: entry.get(f"{name}_status") for name in ("base", "plus")}
    passed = {name: float(status == "pass") for name, status in statuses.items() if status is not None}
    return {**entry, "passed": passed}


def lm_eval(row: Row) -> Row:
    """`scores`: the metrics that the row names; a row of log-likelihoods has no completion."""
    return {**row, "scores": {name: row.get(name) for name in row.get("metrics") or ()}}


def atropos(row: Row) -> Row:
    """`samples`: the parallel lists of a scored group, sample by sample.

    Raises ValueError for lists of other lengths, and for a group without text.
    """
    scores, messages = row["scores"], row.get("messages")
    if not messages:
        raise ValueError("the group has no 'messages': run the environment with include_messages")
    if len(messages) != len(scores):
        raise ValueError(f"'messages' has {len(messages)} entries, 'scores' has {len(scores)}")
    samples = [{"messages": said, "score": s} for said, s in zip(messages, scores, strict=True)]
    return {"samples": samples, "overrides": row.get("group_overrides")}


def nemo_rl(row: Row) -> Row:
    """`turns`: the texts of a message log, which alternate between the prompt's side and the model's."""
    content = row["content"]
    if not isinstance(content, list):
        raise TypeError("'content' must be a list of the messages' texts")
    turns = [
        {"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(content)
    ]
    return {**row, "turns": turns}


def opentelemetry(row: Row) -> Row:
    """`spans`: the model calls among the spans of an OTLP export, or of a span printed by the SDK."""
    return {"spans": [call for span in _spans(row) if (call := _call(span)) is not None]}


def _spans(row: Row) -> Iterator[Row]:
    if "resourceSpans" not in row:
        yield {**row, "span_id": (row.get("context") or {}).get("span_id")}
    for resource in row.get("resourceSpans") or ():
        for scope in resource.get("scopeSpans") or ():
            for span in scope.get("spans") or ():
                attributes = {
                    item["key"]: _value(item.get("value") or {}) for item in span.get("attributes") or ()
                }
                yield {**span, "attributes": attributes, "span_id": span.get("spanId")}


def _value(given: Row) -> Any:
    """A value in OTLP's JSON: {"stringValue": ...}, {"arrayValue": {"values": [...]}}."""
    if "arrayValue" in given:
        return [_value(item) for item in given["arrayValue"].get("values") or ()]
    return next(iter(given.values()), None)


def _call(span: Row) -> Row | None:
    attributes = span.get("attributes") or {}
    said = attributes.get("gen_ai.output.messages") or _numbered(attributes, "gen_ai.completion.", "")
    said = said or _numbered(attributes, "llm.output_messages.", "message.")
    if not said:
        return None
    asked = attributes.get("gen_ai.input.messages") or _numbered(attributes, "gen_ai.prompt.", "")
    asked = asked or _numbered(attributes, "llm.input_messages.", "message.")
    reasons = attributes.get("gen_ai.response.finish_reasons")
    reason = reasons[0] if reasons else attributes.get("gen_ai.completion.0.finish_reason")
    rest = {k: v for k, v in attributes.items() if not k.startswith(_TEXTS)}
    return {"input": asked, "output": said, "span_id": span.get("span_id"), "finish_reason": reason, **rest}


_TEXTS = (
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt.", "gen_ai.completion.",
    "llm.input_messages.", "llm.output_messages.", "input.value", "output.value",
)  # fmt: skip


def _numbered(attributes: Row, prefix: str, infix: str) -> list[Row]:
    """The messages in attributes such as `gen_ai.prompt.0.content`."""
    messages: list[Row] = []
    while f"{prefix}{len(messages)}.{infix}role" in attributes:
        start = f"{prefix}{len(messages)}.{infix}"
        messages.append({"role": attributes[start + "role"], "content": attributes.get(start + "content")})
    return messages
