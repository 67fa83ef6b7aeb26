"""Detect which trainer wrote a file from the keys of its first row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.formats import table, verifiers
from verl_lite.lab.formats.fields import Fields
from verl_lite.plugins.paths import MISSING, dig
from verl_lite.plugins.records import Convert, own_records

AUTO = "auto"
OWN = "verl-lite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of file.

    marks      paths that a row must have; "a|b" is either of them
    without    paths that it must not have
    is_general several others' rows fit too: any format that says more comes first, then the table's order
    step       where rows do not say it: a pattern for the step in the file's name
    """

    name: str
    marks: tuple[str, ...]
    convert: Convert
    without: tuple[str, ...] = ()
    is_general: bool = False
    step: str = ""

    @property
    def keys(self) -> str:
        """The marks, for messages."""
        return ", ".join(mark.replace("|", " or ") for mark in self.marks)

    def matches(self, row: Mapping[str, Any]) -> bool:
        return all(_has(row, mark) for mark in self.marks) and not any(_has(row, m) for m in self.without)


def _has(row: Mapping[str, Any], mark: str) -> bool:
    return any(dig(row, path) is not MISSING for path in mark.split("|"))


def _table(name: str, fields: Fields, *marks: str, **more: Any) -> Format:
    return Format(name=name, marks=marks, convert=fields.convert, **more)


def _request(row: Any, number: int) -> NoReturn:
    raise TypeError("a request of the Batch API, which holds no completion: name its output file too")


_EVENT = "resourceSpans|attributes.llm.output_messages.0.message.role"
_CHOICE = "|".join(f"{at}choices.0.{kind}" for at in ("", "response.") for kind in ("message", "text"))
_SPAN = f"{_EVENT}|attributes.gen_ai.output.messages|attributes.gen_ai.completion.0.role"
FORMATS = {
    found.name: found
    for found in (
        _table("messages-completion", table.CONVERSATIONS, "prompt", "completion.0.role", is_general=True),
        Format(name=OWN, marks=("completion",), convert=own_records, is_general=True),
        _table("verl", table.VERL, "input", "output", "score", "step"),
        _table("trl", table.TRL, *"step prompt completion advantage".split(), without=("id", "reward")),
        Format(name="verifiers", marks=verifiers.MARKS, convert=verifiers.convert),
        _table("openrlhf", table.OPENRLHF, "input", "output", "reward", without=("gts",)),
        _table("open-instruct", table.OPEN_INSTRUCT, "decoded_responses", "scores"),
        _table("skyrl", table.SKYRL, "input_prompt", "output_response", step=r"global_step_(\d+)"),
        _table("areal", table.AREAL, "task_id", "sample_idx", "completion", "tail_version"),
        _table("slime", table.SLIME, "group_index", "response", "status"),
        _table("nemo-gym", table.NEMO_GYM, "responses_create_params", "response", "reward"),
        _table("nemo-rl", table.NEMO_RL, "content", "rewards", "input_lengths", step=r"data_step(\d+)"),
        _table("atropos", table.ATROPOS, "tokens", "masks", "scores"),
        _table("eval-protocol", table.EVAL_PROTOCOL, "messages", "input_metadata", "rollout_status"),
        _table("openai-batch", table.OPENAI_BATCH, "custom_id", "response"),
        Format(
            name="openai-batch-input",
            marks=("custom_id", "body", "url"),
            without=("response",),
            convert=_request,
        ),
        _table("openai-evals", table.OPENAI_EVALS, "datasource_item", "sample"),
        _table("openai-evals-log", table.OPENAI_EVALS_LOG, "spec.run_id|event_id"),
        _table("openai-chat", table.OPENAI_CHAT, _CHOICE, without=("custom_id", "completion")),
        _table("lm-eval", table.LM_EVAL, "doc_id", "resps", "arguments"),
        _table("helm", table.HELM, "instance.input", "request.prompt", "result.completions"),
        _table("inspect", table.INSPECT, "eval.task", "samples|output"),
        _table("vllm", table.VLLM, "request_id", "prompt", "outputs"),
        _table("tgi", table.TGI, "generated_text"),
        _table("langfuse", table.LANGFUSE, "traceId|observations|projectId", "input", "output"),
        _table("opentelemetry", table.OPENTELEMETRY, _SPAN),
        _table("mlflow", table.MLFLOW, "info.trace_id|info.request_id", "data.spans"),
        _table(
            "evalplus",
            table.EVALPLUS,
            "task_id|eval",
            "solution|completion|hash",
            without=("sample_idx", "id"),
        ),
        _table("llama-factory", table.LLAMA_FACTORY, "prompt", "predict", "label"),
        _table("pairs", table.PAIRS, "chosen", "rejected"),
        _table("messages", table.CONVERSATIONS, "messages|conversations|conversation", is_general=True),
    )
}


class UnknownFormatError(DataError):
    """No format fits the rows of a file."""


def format_of(row: Mapping[str, Any] | None, *, name: str, format: str = AUTO) -> str:
    """The name of the format of a file `name` whose first readable row is `row`, or `format` unless "auto".

    A file without a readable row is left to the reader to report. Raises ConfigError for an unknown name,
    UnknownFormatError for a row that no format fits, DataError for one that fits several.
    """
    if format != AUTO:
        if format not in FORMATS:
            raise ConfigError(f"--format {format}: the formats are {', '.join([AUTO, *FORMATS])}")
        return format
    if row is None or "schema_version" in row or "columns_json" in row:
        return OWN
    fitting = [known for known, found in FORMATS.items() if found.matches(row)]
    special = [known for known in fitting if not FORMATS[known].is_general]
    if len(special) == 1 or (fitting and not special):
        return (special or fitting)[0]
    keys = ", ".join(map(str, row))
    if special:
        raise DataError(
            f"{name}: the first row fits {' and '.join(special)}; choose one with --format. Its keys: {keys}"
        )
    raise UnknownFormatError(
        f"{name}: no format fits the first row, whose keys are: {keys}. {_nearest(row)} Rename keys with "
        "--map, as in --map completion=KEY, or choose a format with --format; docs/importing.md lists them"
    )


def _nearest(row: Mapping[str, Any]) -> str:
    """The format that lacks the smallest share of its marks, and what it lacks; ours, if all lack half."""

    def lacking(known: Format) -> list[str]:
        return [mark for mark in known.marks if not _has(row, mark)]

    near = min(FORMATS.values(), key=lambda known: len(lacking(known)) / len(known.marks))
    if 2 * len(lacking(near)) >= len(near.marks):
        near = FORMATS[OWN]
    absent = ", ".join(mark.replace("|", " or ") for mark in lacking(near))
    return f"The nearest is {near.name}, which also has {absent}."
