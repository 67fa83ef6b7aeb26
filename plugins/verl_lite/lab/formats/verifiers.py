"""verifiers' and prime-rl's files: `traces.jsonl` (verifiers 0.3 on) and the older `results.jsonl`.

    traces.jsonl   one episode per line: {"id", "task", "traces": [...], "group", "run", ...}, or a bare
                   trace: {"nodes", "task", "rewards", ...}
    results.jsonl  {"example_id", "prompt", "completion", "answer", "reward", "metrics", "info", ...}
As written by verifiers 0.4.0 (`Episode.to_record`) and 0.3.1 (`state_to_output`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from verl_lite.lab.formats.rows import last_reply, make_record, number_or_none, without_none
from verl_lite.plugins.records import Record
from verl_lite.plugins.rollout import content_text

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
    prompt, completion = last_reply(row.get("prompt"), row.get("completion"))
    info = row.get("info")
    metrics = row.get("metrics") or {}
    extra = {key: v for key, v in row.items() if key not in _RESULT and key not in metrics}
    return make_record(
        number,
        group=str(row["example_id"]),
        prompt=prompt,
        completion=completion,
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
        messages = [without_none(node["message"]) for node in path]
        prompt_ids, completion_ids, logprobs = _tokens(path)
        yield make_record(
            number,
            id=_identity(trace, number, branch, len(paths)),
            group=group,
            step=work.get("step"),
            policy_version=(work.get("policy") or {}).get("end"),
            prompt=messages[:-1],
            completion=content_text(messages[-1].get("content")),
            reference=task.get("answer"),
            finish_reason=_trace_finish(trace),
            prompt_ids=prompt_ids,
            completion_ids=completion_ids,
            logprobs=logprobs,
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


def _tokens(path: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int], list[float]]:
    """Ids before the last reply, the reply's ids and their logprobs; empty where the trace has none."""
    last = path[-1]
    ids, mask = last.get("token_ids") or [], last.get("mask") or []
    if len(ids) != len(mask):
        return [], [], []
    before = [token for node in path[:-1] for token in node.get("token_ids") or []]
    scaffold = [token for token, sampled in zip(ids, mask, strict=True) if not sampled]
    sampled_ids = [token for token, sampled in zip(ids, mask, strict=True) if sampled]
    logprobs = last.get("logprobs") or []
    return before + scaffold, sampled_ids, logprobs if len(logprobs) == len(sampled_ids) else []


def _trace_finish(trace: Mapping[str, Any]) -> str | None:
    calls = [call for call in trace.get("calls") or [] if not call.get("error")]
    reason = calls[-1].get("finish_reason") if calls else None
    if str(trace.get("stop_condition") or "").startswith("max_") or reason == "length":
        return "length"
    return "stop" if reason == "stop" else None


def _finish(is_truncated: Any) -> str | None:
    return None if is_truncated is None else "length" if is_truncated else "stop"
