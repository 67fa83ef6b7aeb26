"""What each kind of client sends and gets.

/score, /score/NAME   ours: rollouts as in a record file, and typed scores with outcomes
/get_reward           OpenRLHF's remote reward (`--reward.remote_url http://...`), 0.11
/compute_score        the arguments of verl's compute_score, and its dict
/reward               slime's remote_rm (`--rm-type remote_rm --rm-url http://.../reward`): one number
/classify             what verl's reward loop asks a discriminative reward model, 0.9

The trainers' shapes carry one number per sample, so what that cannot hold is refused, never dropped:
process rewards, `combine: gdpo`, rewards that compare the samples of a prompt, and a sample without a
reward (unless the server has `dropped`).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import starmap
from typing import Any

from verl_lite.errors import DataError
from verl_lite.plugins.adapters.bridge import BridgeSettings, component_values, make_rollout
from verl_lite.plugins.adapters.openrlhf import END_TOKENS, split_query
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import ComponentScore, ScoredRollout

Body = Mapping[str, Any]
Numbers = Sequence[float]  # one reward per row


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of request. `write` gets the request, its scored rows and, for a trainer, their rewards.

    settings  what the trainer cannot carry (see RewardBridge); None for our own shape
    """

    path: str
    read: Callable[[Body], Sequence[Rollout]]
    write: Callable[[Body, Sequence[ScoredRollout], Numbers], Any]
    settings: BridgeSettings | None = None


def _rollout(number: int, row: Any) -> Rollout:
    if not isinstance(row, Mapping):
        raise DataError(f"rollouts[{number - 1}]: expected an object, got {type(row).__name__}")
    try:
        return make_rollout(number, **row)
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(f"rollouts[{number - 1}]: {error}") from None


def _scored(row: ScoredRollout) -> dict[str, Any]:
    return {
        "id": row.rollout.id,
        "reward": row.reward,
        "dropped_because": row.dropped_because,
        "components": {name: _component(part) for name, part in row.components.items()},
    }


def _component(part: ComponentScore) -> dict[str, Any]:
    score = part.score
    return {
        "value": score.value,
        "outcome": score.outcome.value,
        "reason": score.reason,
        "weight": part.weight,
        "contribution": part.contribution,
        "latency_s": part.latency_s,
        "details": dict(score.details),
        "steps": [asdict(step) for step in score.steps],
    }


def _read_openrlhf(body: Body) -> Sequence[Rollout]:
    queries, prompts, labels = (_list_in(body, key) for key in ("query", "prompts", "labels"))
    if not len(queries) == len(prompts) == len(labels):
        raise DataError(
            f"query, prompts and labels have {len(queries)}, {len(prompts)} and {len(labels)} items: "
            "expected the same number"
        )
    rows = enumerate(zip(queries, prompts, labels, strict=True), start=1)
    return [split_query(number, *row, end_tokens=END_TOKENS) for number, row in rows]


def _write_openrlhf(body: Body, rows: Sequence[ScoredRollout], numbers: Numbers) -> Any:
    values = [component_values(row) for row in rows]
    logs = {name: [row[name] for row in values] for name in (values[0] if values else ())}
    return {"rewards": list(numbers), "scores": list(numbers), "extra_logs": logs}


def _read_compute_score(body: Body) -> Sequence[Rollout]:
    if not isinstance(body.get("solution_str"), str):
        raise DataError(f"'solution_str' must be text, got {type(body.get('solution_str')).__name__}")
    extra = body.get("extra_info") or {}
    if not isinstance(extra, Mapping):
        raise DataError(f"'extra_info' must be an object, got {type(extra).__name__}")
    known = {"data_source": body.get("data_source"), "ground_truth": body.get("ground_truth")}
    rollout = make_rollout(
        1,
        prompt=extra.get("question"),
        completion=body["solution_str"],
        reference=body.get("ground_truth"),
        columns={**extra, **known},
    )
    return [rollout]


def _read_slime(body: Body) -> Sequence[Rollout]:
    if not isinstance(body.get("response"), str):
        raise DataError(f"'response' must be text, got {type(body.get('response')).__name__}")
    label = body.get("label")
    rollout = make_rollout(
        1,
        prompt=body.get("prompt"),
        completion=body["response"],
        reference=label,
        columns={"label": label},
    )
    return [rollout]


def _read_classify(body: Body) -> Sequence[Rollout]:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"'input' must be text or a list of texts, got {type(given).__name__}")
    return [make_rollout(number, completion=text) for number, text in enumerate(texts, start=1)]


def _write_classify(body: Body, rows: Sequence[ScoredRollout], numbers: Numbers) -> Any:
    data = [
        {"index": index, "label": "reward", "probs": [number], "num_classes": 1}
        for index, number in enumerate(numbers)
    ]
    return {"object": "list", "model": body.get("model", ""), "data": data}


def _list_in(body: Body, key: str) -> Sequence[Any]:
    value = body.get(key)
    if not isinstance(value, list):
        raise DataError(
            f"{key!r} must be a list, got {type(value).__name__}; the body has: {', '.join(body)}"
        )
    return value


def to_json(value: Any) -> str:
    """`value` as JSON, with null for nan and infinity, which JSON lacks, and text for what is no data."""
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except (ValueError, TypeError):  # rarely, and slower: a number that is none, or a key that is no text
        return json.dumps(_finite(value), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


_OPENRLHF, _VERL, _SLIME = (BridgeSettings(peer=peer) for peer in ("OpenRLHF", "verl", "slime"))
SHAPES = (
    Shape(
        path="/score",
        read=lambda body: list(starmap(_rollout, enumerate(_list_in(body, "rollouts"), start=1))),
        write=lambda body, rows, numbers: {"scores": [_scored(row) for row in rows]},
    ),
    Shape(path="/get_reward", read=_read_openrlhf, write=_write_openrlhf, settings=_OPENRLHF),
    Shape(
        path="/compute_score",
        read=_read_compute_score,
        write=lambda body, rows, numbers: {**component_values(rows[0]), "score": numbers[0]},
        settings=_VERL,
    ),
    Shape(path="/reward", read=_read_slime, write=lambda body, rows, numbers: numbers[0], settings=_SLIME),
    Shape(path="/classify", read=_read_classify, write=_write_classify, settings=_VERL),
)
