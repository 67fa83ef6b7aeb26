"""Files of the field: two sums with two samples each, recorded by fixtures/record_formats.py or by hand.

Whatever the format, there are two groups of two, with the right prompts, completions and references.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import DataError
from verl_lite.lab import open_rollouts
from verl_lite.plugins.records import BadRow, Record

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
SUMS = [("What is 2+2?", "4", ["4", "5"]), ("What is 3+3?", "6", ["6", "6"])]
Rows = list[dict[str, Any]]


def read(path: Path, **options: Any) -> tuple[str, list[list[Record]]]:
    with open_rollouts(path, **options) as rollouts:
        return rollouts.files[0].format, list(rollouts.groups())


def texts(groups: list[list[Record]]) -> list[list[str]]:
    return [[record.rollout.completion for record in group] for group in groups]


def each(make: Callable[[int, int, str, str, str], dict[str, Any]]) -> Rows:
    """A row per sample: of (sum, sample, question, answer, reply), in an order that tears the groups."""
    return [make(i, n, SUMS[i][0], SUMS[i][1], SUMS[i][2][n]) for n in range(2) for i in range(2)]


def ask(question: str) -> Rows:
    return [{"role": "user", "content": question}]


def talk(question: str, reply: str) -> Rows:
    return [*ask(question), {"role": "assistant", "content": reply}]


def nemo_gym(i: int, n: int, question: str, answer: str, reply: str) -> dict[str, Any]:
    output = [
        {"type": "reasoning", "summary": [], "content": None},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": reply, "annotations": []}],
            "prompt_token_ids": [1, 2],
            "generation_token_ids": [3],
            "generation_log_probs": [-0.5],
        },
    ]
    return {
        "responses_create_params": {"input": [{**ask(question)[0], "type": "message"}]},
        "response": {"id": "resp", "object": "response", "output": output},
        "reward": float(reply == answer),
        "expected_answer": answer,
        "_ng_task_index": i,
        "_ng_rollout_index": n,
    }


def trace(i: int, n: int, question: str, answer: str, reply: str) -> dict[str, Any]:
    nodes = [
        {"parent": None, "sampled": False, "message": {"role": "user", "content": question}},
        {"parent": 0, "sampled": True, "message": {"role": "assistant", "content": reply}},
    ]
    reward = {"exact": {"score": float(reply == answer), "weight": 1.0}}
    one = {"id": f"t{i}{n}", "nodes": nodes, "rewards": reward, "ok": True}
    return {"id": f"e{i}{n}", "task": {"data": {"answer": answer}}, "traces": [one], "group": {"id": f"g{i}"}}


BY_HAND: dict[str, Rows] = {
    "verl": each(
        lambda i, n, q, a, r: {
            "input": q, "output": r, "gts": a, "score": float(r == a), "step": 3, "uid": f"8d{i}-1f_{n}_0"
        }
    ),
    "skyrl": each(
        lambda i, n, q, a, r: {
            "input_prompt": q, "output_response": r, "score": [0.0, float(r == a)], "stop_reason": "stop",
            "env_class": "gsm8k", "env_extras": {"reward_spec": {"method": "rule", "ground_truth": a}},
            "data_source": "sums",
        }
    ),
    "areal": each(
        lambda i, n, q, a, r: {
            "task_id": i, "sample_idx": n, "seqlen": 9, "prompt_len": 5, "head_version": 2, "tail_version": 2,
            "reward": float(r == a), "prompt": q, "completion": r, "answer": a,
        }
    ),
    "slime": each(
        lambda i, n, q, a, r: {
            "group_index": i, "index": 2 * i + n, "prompt": ask(q), "tokens": [1, 2], "response": r,
            "response_length": 1, "label": a, "reward": {"exact": float(r == a)}, "status": "completed",
            "metadata": {}, "rollout_id": 7,
        }
    ),
    "nemo-gym": each(nemo_gym),
    "nemo-rl": each(
        lambda i, n, q, a, r: {
            "content": [q, r], "rewards": float(r == a), "input_lengths": 9, "answer": a, "idx": 2 * i + n
        }
    ),
    "atropos": [
        {
            "tokens": [[1, 2]] * 2, "masks": [[-100, 2]] * 2, "scores": [float(r == a) for r in replies],
            "messages": [talk(q, r) for r in replies], "group_overrides": {"answer": a},
        }
        for q, a, replies in SUMS
    ],
    "evalplus": each(
        lambda i, n, q, a, r: {"task_id": f"Sums/{i}", "solution": r, "prompt": q, "reference": a}
    ),
    "helm": [
        {
            "instance": {
                "input": {"text": q}, "id": f"id{i}", "split": "test",
                "references": [
                    {"output": {"text": text}, "tags": tags} for text, tags in (("0", []), (a, ["correct"]))
                ],
            },
            "train_trial_index": 0, "request": {"prompt": q},
            "result": {"success": True, "completions": [{"text": r, "logprob": -1.0} for r in replies]},
        }
        for i, (q, a, replies) in enumerate(SUMS)
    ],
    "llama-factory": each(lambda i, n, q, a, r: {"prompt": q, "predict": r, "label": a}),
    "messages": each(lambda i, n, q, a, r: {"messages": talk(q, r), "answer": a}),
    "messages-completion": each(
        lambda i, n, q, a, r: {"prompt": ask(q), "completion": talk(q, r)[1:], "reference": a}
    ),
    "verifiers": each(trace),
    "openai-evals-log": [
        {"spec": {"run_id": "r", "completion_fns": ["m"]}},
        *each(
            lambda i, n, q, a, r: {
                "run_id": "r", "event_id": 2 * i + n, "sample_id": f"sums.{i}", "type": "sampling",
                "data": {"prompt": ask(q), "sampled": [r], "expected": a},
            }
        ),
        {"run_id": "r", "event_id": 9, "sample_id": "sums.0", "type": "match", "data": {"correct": True}},
        {"final_report": {"accuracy": 0.75}},
    ],
}  # fmt: skip
WITHOUT_PROMPT = {"openai-batch"}
WITHOUT_REFERENCE = {"openai-batch", "atropos", "opentelemetry"}
RECORDED = {
    "lm_eval.jsonl": "lm-eval",
    "inspect.eval": "inspect",
    "inspect.json": "inspect",
    "openai_chat.jsonl": "openai-chat",
    "openai_batch.jsonl": "openai-batch",
    "openai_evals.jsonl": "openai-evals",
    "vllm.jsonl": "vllm",
    "tgi.jsonl": "tgi",
    "eval_protocol.jsonl": "eval-protocol",
    "langfuse.jsonl": "langfuse",
    "mlflow.jsonl": "mlflow",
    "opentelemetry.jsonl": "opentelemetry",
    "opentelemetry_console.jsonl": "opentelemetry",
}


def check(name: str, groups: list[list[Record]], repeated: int = 1) -> None:
    replies = [["lol", "lol"]] * 2 if name == "lm-eval" else [reply for _, _, reply in SUMS]
    assert [sorted(set(group)) for group in texts(groups)] == [sorted(set(reply)) for reply in replies]
    assert [len(group) for group in groups] == [2 * repeated] * 2
    for group, (question, answer, _) in zip(groups, SUMS, strict=True):
        assert len({record.rollout.sample_index for record in group}) == len(group)
        assert len({record.rollout.id for record in group}) == len(group)
        for record in group:
            if name not in WITHOUT_PROMPT:
                assert record.rollout.prompt[-1]["content"].strip("Q: \nA") == question.strip("Q: \nA")
                assert [message["role"] for message in record.rollout.prompt] == ["user"]
            if name not in WITHOUT_REFERENCE:
                assert record.rollout.reference == answer
            if record.reward is not None:
                assert record.reward == float(record.rollout.completion == answer)


@pytest.mark.parametrize("file", RECORDED)
def test_files_that_the_peers_wrote(file: str) -> None:
    name, groups = read(FORMATS / file)
    assert name == RECORDED[file]
    check(name, groups, repeated=3 if name == "opentelemetry" else 1)  # the three conventions of its calls


@pytest.mark.parametrize("name", BY_HAND)
def test_files_with_the_keys_that_the_peers_code_writes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in BY_HAND[name]))
    found, groups = read(path)
    assert found == name
    check(name, groups)


def test_what_a_trace_should_answer_is_asked_of_its_last_model_call_only(tmp_path: Path) -> None:
    trace = json.loads((FORMATS / "mlflow.jsonl").read_text().splitlines()[0])
    outer, chat = trace["data"]["spans"]
    said = {"spanType": '"LLM"', "spanInputs": '{"prompt": "a hint"}', "spanOutputs": '"two"'}
    hint = {"span_id": "hint", "attributes": {f"mlflow.{key}": value for key, value in said.items()}}
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({**trace, "data": {"spans": [outer, hint, chat]}}))
    name, groups = read(path)
    assert name == "mlflow"
    assert [(r.rollout.completion, r.rollout.reference) for (r,) in groups] == [("two", None), ("4", "4")]
    path.write_text(json.dumps({**trace, "data": {"spans": [outer]}}))
    with pytest.raises(DataError, match="no span of type CHAT_MODEL or LLM"):
        read(path)


def test_scores_and_rewards_of_the_peers_are_kept() -> None:
    def components(file: str, index: int = 1) -> tuple[float | None, dict[str, float | None]]:
        record = read(FORMATS / file)[1][0][index]
        return record.reward, {name: score.value for name, score in record.components.items()}

    assert components("eval_protocol.jsonl") == (0.0, {"exact": 0.0})
    assert components("openai_evals.jsonl") == (0.0, {"exact": 0.0})
    assert components("inspect.eval", 0) == components("inspect.json", 0) == (None, {"match": 1.0})
    assert components("lm_eval.jsonl") == (None, {"exact_match": 0.0})


def test_tokens_and_finish_reasons_of_the_peers_are_kept() -> None:
    vllm = read(FORMATS / "vllm.jsonl")[1][0][1].rollout
    assert (vllm.prompt_ids, vllm.completion_ids, vllm.finish_reason) == ([1, 2], [8], "stop")
    tgi = read(FORMATS / "tgi.jsonl")[1][0][0].rollout
    assert (tgi.completion_ids, tgi.logprobs, tgi.finish_reason) == ([5], [-0.25], "stop")


def test_verls_uid_of_every_sample_is_not_the_group(tmp_path: Path) -> None:
    path = tmp_path / "3.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in BY_HAND["verl"]))
    (first, second) = read(path)[1]
    assert [record.rollout.group for record in first] == ["8d0-1f"] * 2
    assert [record.rollout.id for record in second] == ["8d1-1f_0_0", "8d1-1f_1_0"]
    assert [record.rollout.sample_index for record in second] == [0, 1]


def test_results_of_evalplus_hold_all_tasks_in_one_document(tmp_path: Path) -> None:
    def entry(task: str, solution: str, plus: str) -> dict[str, Any]:
        return {"task_id": task, "solution": solution, "base_status": "pass", "plus_status": plus}

    found = {t: [entry(t, "a", "pass"), entry(t, "b", "fail")] for t in ("HumanEval/0", "HumanEval/1")}
    path = tmp_path / "samples_eval_results.json"
    path.write_text(json.dumps({"date": "x", "hash": "h", "eval": found}, indent=2))
    name, groups = read(path)
    assert (name, texts(groups)) == ("evalplus", [["a", "b"], ["a", "b"]])
    assert [s.value for s in groups[0][1].components.values()] == [1.0, 0.0]


@pytest.mark.parametrize("with_prompt", [False, True])
def test_pairs_are_two_samples_with_a_label(tmp_path: Path, with_prompt: bool) -> None:
    own = {"prompt": "q"} if with_prompt else {}
    texts_of = {"chosen": "good", "rejected": "bad"}
    sides = texts_of if with_prompt else {side: talk("q", text) for side, text in texts_of.items()}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({**own, **sides, "source": "s"}) + "\n" + json.dumps({**own, **sides}))
    name, groups = read(path)
    assert (name, texts(groups)) == ("pairs", [["good", "bad"]] * 2)
    assert [record.rollout.columns["label"] for record in groups[0]] == [True, False]
    assert groups[0][0].rollout.prompt_text == "q"


def test_sharegpt_with_a_system_prompt_and_several_turns(tmp_path: Path) -> None:
    said = [
        ("system", "s"),
        ("human", "q"),
        ("gpt", "a"),
        ("human", "r"),
        ("gpt", "b"),
        ("human", "unanswered"),
    ]
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps([{"id": "1", "conversations": [{"from": f, "value": v} for f, v in said]}]))
    name, ((record,),) = read(path)
    assert (name, record.rollout.completion, record.rollout.id) == ("messages", "b", "1")
    assert [m["role"] for m in record.rollout.prompt] == ["system", "user", "assistant", "user"]


def test_steps_come_from_the_names_of_files_whose_rows_lack_them(tmp_path: Path) -> None:
    for step in (2, 10):
        rows = "".join(json.dumps(row) + "\n" for row in BY_HAND["nemo-rl"])
        (tmp_path / f"train_data_step{step}.jsonl").write_text(rows)
    groups = read(tmp_path)[1]
    assert [(group[0].step, len(group)) for group in groups] == [(2, 2), (2, 2), (10, 2), (10, 2)]


def test_slimes_torch_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    samples = [{k: v for k, v in row.items() if k != "rollout_id"} for row in BY_HAND["slime"]]
    torch.save({"rollout_id": 7, "samples": samples}, tmp_path / "7.pt")
    name, groups = read(tmp_path / "7.pt")
    assert (name, {group[0].step for group in groups}) == ("slime", {7})
    check("slime", groups)


def test_log_likelihoods_of_lm_eval_are_no_rollouts(tmp_path: Path) -> None:
    row = json.loads((FORMATS / "lm_eval.jsonl").read_text().splitlines()[0])
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({**row, "resps": [[["-1.5", "False"]], [["-0.5", "True"]]]}) + "\n")
    bad: list[BadRow] = []
    with open_rollouts(path) as rollouts:
        assert list(rollouts.groups(bad.append)) == []
    assert "'completion' must be text or messages" in bad[0].reason


def test_an_unknown_file_names_its_columns_and_the_nearest_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"doc_id": 1, "resps": [["a"]], "text": "b"}\n')
    expected = r"keys are: doc_id, resps, text\. The nearest is lm-eval, which also has arguments\. Rename"
    with pytest.raises(DataError, match=expected):
        read(path)


DATA_SET_COLUMNS: dict[str, Any] = {
    "choices": ["13", "15"],
    "task_id": "HumanEval/0",
    "solution": "return 1",
    "answer": "4",
    "messages": [{"role": "user", "content": "q"}],
    "conversation": "s1",
    "input": "1 2",
    "output": "3",
    "score": 0.5,
    "label": 1,
    "response": "text",
    "status": "done",
    "rewards": [0.5],
    "content": "text",
    "tokens": [1, 2],
    "eval": "easy",
    "hash": "0af",
    "metrics": {"a": 1},
    "samples": 4,
    "source": "s",
}


@pytest.mark.parametrize("column", DATA_SET_COLUMNS)
def test_a_column_of_the_data_set_makes_no_other_format_of_our_own_rows(tmp_path: Path, column: str) -> None:
    path = tmp_path / "rows.jsonl"
    own = {"id": "a", "prompt": "q", "completion": "c", "reference": "r"}
    path.write_text(json.dumps({**own, column: DATA_SET_COLUMNS[column]}) + "\n")
    name, groups = read(path)
    assert (name, texts(groups)) == ("verl-lite", [["c"]])
    assert groups[0][0].rollout.columns[column] == DATA_SET_COLUMNS[column]


def test_responses_of_a_batch_are_joined_with_their_requests(tmp_path: Path) -> None:
    responses = [json.loads(line) for line in (FORMATS / "openai_batch.jsonl").read_text().splitlines()]
    requests = [
        {
            "custom_id": f"sum-{i}", "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": ask(question), "metadata": {"answer": answer}},
        }
        for i, (question, answer, _) in enumerate(SUMS)
    ]  # fmt: skip
    for name, rows in (("in", requests[::-1]), ("out", responses), ("half", requests[:1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for sources in (
        [tmp_path / "in.jsonl", tmp_path / "out.jsonl"],
        [tmp_path / "out.jsonl", tmp_path / "in.jsonl"],
    ):
        with open_rollouts(sources) as rollouts:
            assert [file.format for file in rollouts.files] == ["openai-batch"]
            check("joined", list(rollouts.groups()))
    with (
        pytest.raises(DataError, match=r"out\.jsonl: 1 responses have no request .*'sum-1'"),
        open_rollouts([tmp_path / "out.jsonl", tmp_path / "half.jsonl"]),
    ):
        pass
    with (
        pytest.raises(DataError, match="a request of the Batch API"),
        open_rollouts(tmp_path / "in.jsonl") as alone,
    ):
        list(alone.groups())
