"""The tasks of the package reasoning-gym, each scored by its own scorer: `reasoning_gym`."""

import difflib
import json
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Literal, Protocol, cast

from pydantic import Field, JsonValue, model_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.verifiers import find_boxed, find_tagged

MISSING = "this needs the package reasoning-gym: pip install 'verl-lite[reasoning]'"
REASONING_COLUMN = "reasoning_gym"  # the column with the task's own entry
MAX_ANSWER_CHARS = 20_000
MAX_PARTS = 8
_SEPARATORS = tuple(re.compile(one, re.IGNORECASE) for one in (r"\s+or\s+", r"\s+and\s+", r"\n+", r"[;,]\s*"))
_NONSENSE = "qqq zzz"


class GymDataset(Protocol):
    def __getitem__(self, index: int) -> Mapping[str, object]: ...
    def score_answer(self, answer: str | None, entry: Mapping[str, object]) -> float: ...


class ReasoningOptions(ConfigModel):
    """Where the answer is, and whether half an answer counts.

    Rows are those of `data.train.task: reasoning_gym/NAME`, or the package's own: question, answer, metadata.
    """

    extract: Literal["auto", "tag", "boxed", "whole"] = Field(
        default="auto",
        description=r"tag: the last <answer>...</answer>; boxed: the last \boxed{...}; auto: tag, else "
        "boxed; whole: the completion is the answer",
    )
    partial: bool = Field(
        default=False,
        description="the scorer's own value between 0 and 1, which some tasks give for a part of the answer "
        "and 0.01 for any; else 1.0 for its full value and 0.0 for less",
    )

    @model_validator(mode="after")
    def _has_its_package(self) -> "ReasoningOptions":
        if find_spec("reasoning_gym") is None:
            raise ValueError(MISSING)
        return self


@reward("reasoning_gym", options=ReasoningOptions, timeout_s=30.0)  # isolated: some scorers run sympy
class ReasoningReward:
    """1.0 when the task's own scorer accepts the answer (any task of reasoning-gym), else 0.0."""

    def __init__(self, options: ReasoningOptions) -> None:
        self._options = options
        _load()  # seconds, which must not count as the first row's

    def __call__(self, rollout: Rollout) -> Score:
        options = self._options
        entry = _entry_of(rollout)
        if entry is None:
            reason = f"the row is none of reasoning-gym: it has no column {REASONING_COLUMN!r}"
            return Score.failed(ScoreOutcome.ABSTAIN, reason)
        metadata = cast(Mapping[str, object], entry["metadata"])
        dataset = _dataset(str(metadata["source_dataset"]), json.dumps(metadata.get("task_options") or {}))
        answer = _answer(rollout.completion, options.extract)
        if answer is None:
            return Score(0.0, reason=f"no answer was found (extract: {options.extract})")
        if len(answer) > MAX_ANSWER_CHARS:
            return Score(0.0, reason=f"an answer of {len(answer)} characters")
        value, reason = judged(dataset, entry, answer)
        full = 1.0 if value >= 1.0 else 0.0
        return Score(value if options.partial else full, reason=reason, details={"scorer": value})


def judged(dataset: GymDataset, entry: Mapping[str, object], answer: str) -> tuple[float, str]:
    """The value of the answer, and why it is not the scorer's. Raises what the scorer raises for any answer.

    Some scorers accept nonsense, or read the first of several answers: the known answer is then compared
    word for word, and an answer whose part would do alone is a guess.
    """
    known = entry.get("answer")
    if isinstance(known, str) and answer.strip() == known.strip():
        return 1.0, ""
    try:
        value = float(dataset.score_answer(answer, entry))
    except Exception as error:
        if not isinstance(known, str) or float(dataset.score_answer(known, entry)) < 1.0:
            raise
        return 0.0, f"the scorer cannot read it: {type(error).__name__}: {error}"[:200]
    if value < 1.0:
        return max(value, 0.0), ""
    if _accepts(dataset, entry, _NONSENSE):
        is_same = isinstance(known, str) and " ".join(answer.split()).lower() == known.strip().lower()
        return float(is_same), "" if is_same else "the scorer accepts anything here, and it is not the answer"
    for separator in _SEPARATORS:
        parts = [part for part in separator.split(answer) if any(map(str.isalnum, part))]
        if len(parts) > 1 and any(_accepts(dataset, entry, part) for part in parts[:MAX_PARTS]):
            return 0.0, "several answers, of which the scorer reads one"
    return 1.0, ""


def _accepts(dataset: GymDataset, entry: Mapping[str, object], answer: str) -> bool:
    try:
        return float(dataset.score_answer(answer, entry)) >= 1.0
    except Exception:  # noqa: BLE001  the border: a scorer may fail on what was made up here
        return False


def _answer(completion: str, extract: str) -> str | None:
    if extract == "whole":
        return completion.strip() or None
    marks = find_tagged(completion, "answer") if extract in ("auto", "tag") else []
    if not marks and extract in ("auto", "boxed"):
        marks = find_boxed(completion)
    return marks[-1].content.strip() or None if marks else None


def _entry_of(rollout: Rollout) -> Mapping[str, object] | None:
    """The entry in the row; None without one. Raises ValueError for one that cannot be read."""
    columns = rollout.columns
    text = columns.get(REASONING_COLUMN)
    if isinstance(text, str):
        return decode_entry(text)
    metadata = columns.get("metadata")
    if isinstance(metadata, str) and "source_dataset" in metadata:
        metadata = json.loads(metadata)
    if isinstance(metadata, Mapping) and "source_dataset" in metadata:
        return {
            "question": columns.get("question", rollout.prompt_text),
            "answer": columns.get("answer", rollout.reference),
            "metadata": dict(metadata),
        }
    return None


@lru_cache(maxsize=256)
def _dataset(name: str, options: str) -> GymDataset:
    return open_task(name, json.loads(options), seed=0, size=1)


def open_task(name: str, options: Mapping[str, object], *, seed: int, size: int) -> GymDataset:
    """The task `name` of reasoning-gym. Raises ValueError for one it lacks, and for options it refuses."""
    create, known = _load()
    if name == "composite":
        raise ValueError("composite mixes other tasks: list these under data.train instead, with weights")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known))}"
        raise ValueError(f"reasoning-gym has no task {name!r}: {hint}")
    try:
        return create(name, seed=seed, size=size, **options)
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"task_options of reasoning_gym/{name}: {error}") from None


def task_names() -> list[str]:
    """The names that `open_task` knows. Raises ValueError without the package."""
    return sorted(set(_load()[1]) - {"composite"})


@cache
def _load() -> tuple[Callable[..., GymDataset], Collection[str]]:
    """What makes a task, and the names there are. Raises ValueError without the package."""
    try:
        with warnings.catch_warnings():  # its dependencies are compiled on their first import
            warnings.simplefilter("ignore")
            from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise ValueError(MISSING) from None
    return create_dataset, DATASETS


def encode_entry(entry: Mapping[str, object]) -> str:
    """The entry as JSON, with what JSON lacks marked: tuples, and keys that are no texts.

    >>> decode_entry(encode_entry({"grid": ((1, 2),), "at": {3: None}}))
    {'grid': ((1, 2),), 'at': {3: None}}
    """
    return json.dumps(_marked(entry), ensure_ascii=False)


def decode_entry(text: str) -> dict[str, object]:
    """The entry that `encode_entry` wrote. Raises ValueError."""
    try:
        entry = _unmarked(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"the column {REASONING_COLUMN!r} holds no entry of reasoning-gym: {error}"
        ) from None
    if not isinstance(entry, dict):
        raise ValueError(f"the column {REASONING_COLUMN!r} holds {type(entry).__name__}, expected an entry")
    return entry


def _marked(value: object) -> JsonValue:
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {str(key): _marked(item) for key, item in value.items()}
        return {"__pairs__": [[_marked(key), _marked(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [_marked(item) for item in value]}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return cast(JsonValue, value)


def _unmarked(value: JsonValue) -> object:
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["__tuple__"]:
        return tuple(_unmarked(item) for item in cast(list[JsonValue], value["__tuple__"]))
    if list(value) == ["__pairs__"]:
        pairs = cast(list[list[JsonValue]], value["__pairs__"])
        return {_unmarked(key): _unmarked(item) for key, item in pairs}
    return {key: _unmarked(item) for key, item in value.items()}
