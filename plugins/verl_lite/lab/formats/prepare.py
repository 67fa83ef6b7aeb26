"""Rows whose values stand deeper than a path can say: brought within reach before a table reads them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from verl_lite.lab.formats.chats import chat, is_chat, side
from verl_lite.lab.formats.rows import is_trajectory, number_or_none
from verl_lite.plugins.rollout import content_text

Row = Mapping[str, Any]
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # inspect: correct, partial, incorrect, no answer


_SIDES = ("chosen", "rejected")
# the template of Hermes and Qwen, the default of verl's agent loops, decoded without special tokens
_BETWEEN = re.compile(
    r"\n?user\n(?P<results>(?:<tool_response>\n.*?\n</tool_response>\n?)+)assistant\n", re.DOTALL
)
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)
_VERL = frozenset({"input", "output", "gts", "score", "step", "uid", "request_id"})
_VERL_SAMPLE = re.compile(r"(.+)_(\d+)_(\d+)")  # {uid}_{session}_{output}, in files of the newer trainer
_OPEN_INSTRUCT = frozenset(
    "decoded_queries queries ground_truths scores finish_reasons responses advantages masks".split()
)
_TRL = frozenset({"step", "prompt", "completion", "advantage", "reference"})


def verl(row: Row) -> Row:
    """`scores`: the numbers of the reward's dict; `output` as messages where an agent loop called tools."""
    others = {key: value for key, value in row.items() if key not in _VERL}
    # a float that is not finite is a component without a value
    scores = {k: v for k, v in others.items() if isinstance(v, float) or number_or_none(v) is not None}
    uid = row.get("uid")
    sample = _VERL_SAMPLE.fullmatch(uid) if isinstance(uid, str) else None
    return {
        **{key: value for key, value in others.items() if key not in scores},
        **{key: row[key] for key in ("input", "step", "score") if key in row},
        "output": _verl_turns(row.get("output")),
        "ground_truth": row.get("gts"),
        "scores": scores,
        "id": row.get("request_id") or (uid if sample else None),
        "group": sample[1] if sample else uid,
        "sample_index": int(sample[2]) if sample else None,
    }


def _verl_turns(output: Any) -> Any:
    """The output of an agent loop has tool results between the replies: messages; any other stays text."""
    if not isinstance(output, str) or not (places := list(_BETWEEN.finditer(output))):
        return output
    turns, start = [], 0
    for place in places:
        turns.append({"role": "assistant", "content": output[start : place.start()]})
        turns += [{"role": "tool", "content": text} for text in _RESULT.findall(place["results"])]
        start = place.end()
    return [*turns, {"role": "assistant", "content": output[start:]}]


def trl(row: Row) -> Row:
    """`scores`: the reward functions' columns of numbers; `reward`, if there is one function.

    The table lacks the functions' weights and the data set's columns: a reward that needs a reference has
    to log it (`log_extra("reference", ...)`).
    """
    others = {key: value for key, value in row.items() if key not in _TRL}
    scores = {key: v for key, v in others.items() if v is None or isinstance(v, (bool, int, float))}
    reward = next(iter(scores.values())) if len(scores) == 1 else None
    rest = {key: value for key, value in row.items() if key not in scores}
    return {**rest, "scores": scores, "reward": reward}


def open_instruct(row: Row) -> Row:
    """`samples`: the lists as long as `decoded_responses`, sample by sample; prompts of token ids left out.

    Raises ValueError for lists of another length.
    """
    responses = row["decoded_responses"]
    if not isinstance(responses, list):
        raise TypeError(f"'decoded_responses' must be a list, got {type(responses).__name__}")
    lists = {key: v for key, v in row.items() if isinstance(v, list) and len(v) == len(responses)}
    for key in sorted(_OPEN_INSTRUCT & row.keys() - lists.keys()):
        if row[key] is not None:
            got = f"{len(row[key])} entries" if isinstance(row[key], list) else type(row[key]).__name__
            raise ValueError(f"{key!r} has {got}, 'decoded_responses' has {len(responses)}")
    samples = [{key: values[at] for key, values in lists.items()} for at in range(len(responses))]
    for sample in samples:
        if not (isinstance(sample.get("queries"), str) or is_chat(sample.get("queries"))):
            sample.pop("queries", None)
        source = sample.get("datasets", sample.get("dataset", row.get("dataset")))
        if source is not None:
            sample["data_source"] = source[0] if isinstance(source, list) and len(source) == 1 else source
    return {**{key: value for key, value in row.items() if key not in lists}, "samples": samples}


def helm(row: Row) -> Row:
    """`reference`: the text of the reference that is tagged as correct."""
    references = row["instance"].get("references") or ()
    texts = [one["output"]["text"] for one in references if "correct" in one.get("tags", ())]
    return {**row, "reference": texts[0] if texts else None}


def pairs(row: Row) -> Row:
    """`sides`: the chosen and the rejected completion, each with its prompt and a `label`.

    `verl-lite check --label label` so says how often a reward prefers what people preferred.
    """
    rest = {key: value for key, value in row.items() if key not in (*_SIDES, "prompt", "completion")}
    sides = []
    for name in _SIDES:
        *prompt, last = side(row.get("prompt", row.get("question")), row[name])
        completion = content_text(last.get("content"))
        sides.append({"prompt": prompt, "completion": completion, "label": name == "chosen"})
    return {**rest, "sides": sides}


def nemo_gym(row: Row) -> Row:
    """`response.output_text`: the text of the last message in the Responses API's output; `response.last`.

    With tool calls, `response.turns` instead.
    """
    response = row["response"]
    said = [item for item in response.get("output") or () if item.get("type", "message") == "message"]
    last = said[-1] if said else None
    text = content_text(last.get("content")) if last else None
    turns = chat(response["output"]) if len(response.get("output") or ()) > 1 else []
    if is_trajectory(turns):  # the tokens are those of the last message alone
        return {**row, "response": {**response, "turns": turns}}
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
    """The letters of inspect's scores as numbers, in a sample or in a whole log; `turns` of an agent."""
    if "samples" in row:
        return {**row, "samples": [inspect(sample) for sample in row["samples"]]}
    scores = {name: _number(score) for name, score in (row.get("scores") or {}).items()}
    messages = row.get("messages") or []
    own = [at for at, m in enumerate(messages) if m.get("role") == "assistant" and m.get("source") != "input"]
    if own and (len(own) > 1 or is_trajectory(messages)):
        row = {**row, "input": messages[: own[0]], "turns": messages[own[0] :]}
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


def mlflow(row: Row) -> Row:
    """`spans`: the model calls of a trace. What people expect of its answer goes to the last one."""
    spans: list[Row] = []
    for span in row["data"]["spans"]:
        asked, said = (_of_mlflow(span, name) for name in ("spanInputs", "spanOutputs"))
        if _of_mlflow(span, "spanType") in _MODEL_SPANS and asked is not None and said is not None:
            spans.append({"input": asked, "output": said, "span_id": span.get("span_id")})
    if not spans:
        raise ValueError(
            f"no span of type {' or '.join(_MODEL_SPANS)} with inputs and outputs: no model call"
        )
    expected = {
        given["assessment_name"]: given["expectation"].get("value")
        for given in row["info"].get("assessments") or ()
        if given.get("expectation")
    }
    return {
        "spans": [*spans[:-1], {**spans[-1], "expected": expected}],
        "trace_id": row["info"].get("trace_id"),
    }


_MODEL_SPANS = ("CHAT_MODEL", "LLM")


def _of_mlflow(span: Row, name: str) -> Any:
    """An attribute of a span, which is JSON text."""
    text = (span.get("attributes") or {}).get(f"mlflow.{name}")
    return json.loads(text) if isinstance(text, str) else text


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
