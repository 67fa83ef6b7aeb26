"""verifiers' and prime-rl's files: `traces.jsonl` (verifiers 0.3 on) and the older `results.jsonl`.

    traces.jsonl   one episode per line: {"id", "task", "traces": [...], "group", "run", ...}, or a bare
                   trace: {"nodes", "task", "rewards", ...}
    results.jsonl  {"example_id", "prompt", "completion", "answer", "reward", "metrics", "info", ...}
As written by verifiers 0.4.0 (`Episode.to_record`) and 0.3.1 (`state_to_output`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_lite.lab.formats.chats import as_turns
from verl_lite.lab.formats.rows import make_record, number_or_none, without_none
from verl_lite.plugins.records import Record
from verl_lite.plugins.rollout import spoken

MARKS = ("traces|nodes|example_id", "task|completion")
_RESULT = frozenset(
    {"example_id", "prompt", "completion", "answer", "reward", "metrics", "info", "task", "is_truncated",
     "error", "timing", "is_completed", "stop_condition", "tool_defs", "token_usage", "trajectory"}
)  # fmt: skip


def convert(row: Any, number: int) -> Iterable[Record]:
    """One record per result; for an episode, one per root-to-leaf branch of each trace's messages."""
    if "traces" in row:
        for trace in row["traces"]:
            yield from _trace(trace, number, row)
    elif "nodes" in row:
        yield from _trace(row, number, {})
    else:
        yield _result(row, number)


def _result(row: Mapping[str, Any], number: int) -> Record:
    info = row.get("info")
    metrics = row.get("metrics") or {}
    extra = {key: v for key, v in row.items() if key not in _RESULT and key not in metrics}
    return make_record(
        number,
        group=str(row["example_id"]),
        prompt=row.get("prompt"),
        **spoken(as_turns(row.get("completion"))),
        reference=row.get("answer"),
        finish_reason=_finish(row.get("is_truncated")),
        reward=None if row.get("error") else row.get("reward"),
        scores=metrics,
        columns={
            **extra,
            **(info if isinstance(info, Mapping) else {"info": info}),
            **{key: row[key] for key in ("answer", "task", "example_id") if row.get(key) is not None},
        },
    )


def _trace(trace: Mapping[str, Any], number: int, episode: Mapping[str, Any]) -> Iterator[Record]:
    nodes = trace["nodes"]
    task = (trace.get("task") or episode.get("task") or {}).get("data") or {}
    rewards = trace.get("rewards") or {}
    failed = not trace.get("ok", True) or any(reward is None for reward in rewards.values())
    work = (episode.get("run") or {}).get("work") or {}
    group = (episode.get("group") or {}).get("id") or (trace.get("task") or {}).get("key")
    paths = list(_branches(nodes))
    for branch, path in enumerate(paths):
        yield make_record(
            number,
            id=_identity(trace, number, branch, len(paths)),
            group=group,
            step=work.get("step"),
            policy_version=(work.get("policy") or {}).get("end"),
            **_sampled(path),
            reference=task.get("answer"),
            finish_reason=_trace_finish(trace),
            reward=None if failed or not rewards else _total(rewards),
            scores={name: (reward or {}).get("score") for name, reward in rewards.items()},
            columns={**task, "agent": (trace.get("agent") or {}).get("name")},
        )


def _identity(trace: Mapping[str, Any], number: int, branch: int, num_branches: int) -> str:
    own = str(trace.get("id") or f"row-{number}")
    return own if num_branches == 1 else f"{own}/{branch}"


def _total(rewards: Mapping[str, Mapping[str, Any]]) -> float:
    """The sum verifiers makes: score times weight."""
    return sum(
        (number_or_none(r.get("score")) or 0.0) * float(r.get("weight", 1.0)) for r in rewards.values()
    )


def _branches(nodes: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Each path from a root to a leaf, ending with the model's last reply."""
    parents = {node.get("parent") for node in nodes}
    for leaf in range(len(nodes)):
        if leaf in parents:
            continue
        path: list[Mapping[str, Any]] = []
        at: int | None = leaf
        while at is not None:
            path.append(nodes[at])
            at = nodes[at].get("parent")
            if len(path) > len(nodes):
                raise ValueError("the nodes' parents form a cycle")
        while path and not path[0].get("sampled"):
            path.pop(0)  # tool results that no reply follows
        if path:
            yield path[::-1]


def _sampled(path: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the record of a branch has of its messages: the prompt, and what follows from the first reply on.

    Tokens are those of the whole branch, where every message has its own; else there are none.
    """
    first = next((at for at, node in enumerate(path) if node.get("sampled")), len(path) - 1)
    messages = [without_none(node["message"]) for node in path]
    found = {"prompt": messages[:first], **spoken(messages[first:])}
    tokens = [_tokens(node) for node in path]
    if any(part is None for part in tokens[first:]):
        return found
    prompt_ids = [token for part in tokens[:first] if part for token in part.ids]
    completion_ids: list[int] = []
    logprobs: list[float] = []
    for at, part in enumerate(tokens[first:]):
        assert part is not None
        if at == 0:
            prompt_ids += part.before
        else:
            completion_ids += part.before
            logprobs += [0.0] * len(part.before)
        if found["turns"]:
            end = len(completion_ids) + len(part.own)
            found["turns"][at] |= {"start": len(completion_ids), "end": end}
        completion_ids += part.own
        logprobs += part.logprobs
    has_logprobs = all(part is not None and part.has_logprobs for part in tokens[first:])
    return {
        **found,
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": logprobs if has_logprobs else [],
    }


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens of one message: the template's before it, and its own."""

    before: list[int]
    own: list[int]
    logprobs: list[float]
    has_logprobs: bool

    @property
    def ids(self) -> list[int]:
        return self.before + self.own


def _tokens(node: Mapping[str, Any]) -> _Tokens | None:
    ids, mask = node.get("token_ids") or [], node.get("mask") or []
    if not node.get("sampled"):
        return _Tokens([], ids, [0.0] * len(ids), True)
    if len(ids) != len(mask):
        return None
    before = [token for token, sampled in zip(ids, mask, strict=True) if not sampled]
    own = [token for token, sampled in zip(ids, mask, strict=True) if sampled]
    logprobs = node.get("logprobs") or []
    return _Tokens(before, own, logprobs, len(logprobs) == len(own))


def _trace_finish(trace: Mapping[str, Any]) -> str | None:
    calls = [call for call in trace.get("calls") or [] if not call.get("error")]
    reason = calls[-1].get("finish_reason") if calls else None
    if str(trace.get("stop_condition") or "").startswith("max_") or reason == "length":
        return "length"
    return "stop" if reason == "stop" else None


def _finish(is_truncated: Any) -> str | None:
    return None if is_truncated is None else "length" if is_truncated else "stop"
