"""The formats whose rows can be described field by field."""

from collections.abc import Mapping
from typing import Any, Literal

from verl_lite.lab.formats import prepare
from verl_lite.lab.formats.fields import HERE, ROW, Fields

_REFERENCE = ("reference", "answer", "ground_truth", "metadata.reference", "metadata.answer", "label")


def _is_generation(observation: Mapping[str, Any]) -> bool:
    return observation.get("type") in ("GENERATION", "generation") and observation.get("output") is not None


def _has_choices(sample: Mapping[str, Any]) -> bool:
    return bool((sample.get("output") or {}).get("choices"))  # a sample that failed has none


_PREPARED = ("id", "group", "sample_index", "step", "reward", "advantage", "scores")  # by `prepare`
VERL = Fields(  # a JSONL file per step (rollout_data_dir, validation_data_dir), as written by verl 0.9.1
    prepare=prepare.verl,
    completion=("output",),
    prompt=("input",),
    reference=("ground_truth",),
    id=("id",),
    group=("group",),
    sample_index=("sample_index",),
    step=("step",),
    reward=("score",),
    scores=("scores",),
    hidden=(*_PREPARED, "score"),
)
TRL = Fields(  # completions/completions_*.parquet of log_completions, as written by TRL 1.16
    prepare=prepare.trl,
    completion=("completion",),
    prompt=("prompt",),
    reference=("reference",),
    step=("step",),
    reward=("reward",),
    advantage=("advantage",),
    scores=("scores",),
    hidden=_PREPARED,
)
OPENRLHF = Fields(  # its batch inference, as documented; 0.11 no longer writes such files
    completion=("output",),
    prompt=("input",),
    reference=("label",),
    step=("step",),
    reward=("reward",),
    hidden=("label", "step", "reward"),
)
OPEN_INSTRUCT = Fields(  # `grpo_fast.py --save_traces`, as documented: a line per step, with a list per key
    prepare=prepare.open_instruct,
    each=("samples",),
    completion=("decoded_responses",),
    prompt=("decoded_queries", "queries"),
    reference=("ground_truths",),
    step=("training_step",),
    finish_reason=("finish_reasons",),
    completion_ids=("responses",),
    reward=("scores",),
    advantage=("advantages",),
    hidden=("training_step", "finish_reasons", "scores", "advantages", "masks"),
)
PAIRS = Fields(  # preference pairs: two samples of one prompt; `label` is true for the chosen one
    prepare=prepare.pairs,
    each=("sides",),
    completion=("completion",),
    prompt=("prompt",),
    reference=("reference", "answer"),
    id=("id",),
    group=(ROW,),
    hidden=("id",),
)
SKYRL = Fields(  # `dump_eval_results`: dump_per_dataset_eval_results of SkyRL 0.4
    completion=("output_response",),
    prompt=("input_prompt",),
    reference=(
        "env_extras.reward_model.ground_truth",
        "env_extras.reward_spec.ground_truth",
        "env_extras.answer",
    ),
    reward=("score",),
    finish_reason=("stop_reason",),
)
AREAL = Fields(  # `dump_to_file`: workflow_executor.py of AReaL 1.0
    completion=("completion",),
    prompt=("prompt",),
    reference=_REFERENCE,
    group=("task_id",),
    sample_index=("sample_idx",),
    policy_version=("head_version",),
    step=("tail_version",),
    reward=("reward",),
)
SLIME = Fields(  # Sample.to_dict(), also in the .pt files of --save-debug-rollout-data
    completion=("response",),
    prompt=("prompt",),
    reference=("label",),
    group=("group_index",),
    sample_index=("index",),
    step=("rollout_id",),
    reward=("reward",),
    scores=("reward",),
    finish_reason=("status",),
)
NEMO_GYM = Fields(  # ng_collect_rollouts
    prepare=prepare.nemo_gym,
    completion=("response.turns", "response.output_text"),
    prompt=("responses_create_params.input",),
    reference=("expected_answer", "ground_truth", "verifier_metadata.expected_answer", "answer"),
    group=("_ng_task_index", "_task_index"),
    sample_index=("_ng_rollout_index", "_rollout_index"),
    reward=("reward",),
    prompt_ids=("response.last.prompt_token_ids",),
    completion_ids=("response.last.generation_token_ids",),
    logprobs=("response.last.generation_log_probs",),
)
NEMO_RL = Fields(  # train_data_step*.jsonl
    prepare=prepare.nemo_rl,
    messages=("turns",),
    reference=_REFERENCE,
    reward=("rewards", "reward"),
)
ATROPOS = Fields(  # a line per scored group: data_path_to_save_groups of Atropos
    prepare=prepare.atropos,
    each=("samples",),
    messages=("messages",),
    group=(ROW,),
    reward=("score",),
)
EVAL_PROTOCOL = Fields(  # EvaluationRow
    messages=("messages",),
    reference=("ground_truth",),
    group=("input_metadata.row_id",),
    id=("execution_metadata.rollout_id",),
    reward=("evaluation_result.score",),
    scores=("evaluation_result.metrics",),
    finish_reason=("execution_metadata.finish_reason",),
)
OPENAI_CHAT = Fields(  # a response of chat or text completions (vLLM's server too), with its request if kept
    each=("choices", "response.choices", "response.body.choices"),
    completion=("message", "text"),
    prompt=(
        "messages", "request.messages", "request.body.messages", "body.messages",
        "prompt", "request.prompt", "request.body.prompt", "input",
    ),
    reference=_REFERENCE,
    id=("custom_id", "id", "response.id"),
    sample_index=("index",),
    finish_reason=("finish_reason",),
    prompt_ids=("prompt_token_ids", "response.prompt_token_ids", "response.body.prompt_token_ids"),
    completion_ids=("token_ids",),
)  # fmt: skip
OPENAI_BATCH = Fields(  # the output file of the Batch API, and of `vllm run-batch`
    each=("response.body.choices",),
    completion=("message", "text"),
    prompt=("request.body.messages", "request.body.prompt"),  # joined, where the input file is given too
    reference=(*_REFERENCE, *(f"request.body.metadata.{name}" for name in ("reference", "answer"))),
    group=("custom_id",),
    id=("custom_id",),
    sample_index=("index",),
    finish_reason=("finish_reason",),
)
OPENAI_EVALS = Fields(  # output items of an eval run
    completion=("sample.output",),
    prompt=("sample.input",),
    reference=tuple(f"datasource_item.{path}" for path in (*_REFERENCE, "item.ground_truth", "item.answer")),
    group=("eval_id", "run_id", "datasource_item_id"),
    id=("id",),
    finish_reason=("sample.finish_reason",),
    scores=("results",),
    reward=("results.0.score",),
)
OPENAI_EVALS_LOG = Fields(  # the event log of `oaieval`
    keep=lambda event: event.get("type") == "sampling",
    completion=("data.sampled.0", "data.sampled"),
    prompt=("data.prompt",),
    reference=("data.expected",),
    group=("sample_id",),
)
LM_EVAL = Fields(  # --log_samples of lm-eval; a task's filters each have a row with the same responses
    prepare=prepare.lm_eval,
    each=("resps.0",),
    completion=("",),
    prompt=("arguments.gen_args_0.arg_0", "arguments.0.0"),
    reference=("target",),
    group=("prompt_hash", "doc_hash", "doc_id", "filter"),
    scores=("scores",),
)
HELM = Fields(  # scenario_state.json: a request per instance and trial
    prepare=prepare.helm,
    each=("result.completions",),
    completion=("text",),
    prompt=("request.messages", "request.prompt", "instance.input.text"),
    reference=("reference",),
    group=("instance.id", "instance.split", "train_trial_index"),
)
INSPECT = Fields(  # a sample of inspect's log, with the log's header under `eval`
    prepare=prepare.inspect,
    keep=_has_choices,
    each=("samples", HERE),
    completion=("turns", "output.choices.0.message", "output.completion"),
    prompt=("input",),
    reference=("target",),
    group=("eval.task", "id"),
    id=("uuid",),
    sample_index=("epoch",),
    finish_reason=("output.choices.0.stop_reason",),
    scores=("scores",),
)
VLLM = Fields(  # RequestOutput
    each=("outputs",),
    completion=("text",),
    prompt=("prompt",),
    reference=_REFERENCE,
    group=("request_id",),
    sample_index=("index",),
    finish_reason=("finish_reason",),
    prompt_ids=("prompt_token_ids",),
    completion_ids=("token_ids",),
)
TGI = Fields(  # a response of TGI's `generate`, with its request if kept
    prepare=prepare.tgi,
    each=("sequences",),
    completion=("generated_text",),
    prompt=("inputs", "prompt", "request.inputs"),
    reference=_REFERENCE,
    finish_reason=("finish_reason",),
    completion_ids=("token_ids",),
    logprobs=("token_logprobs",),
)
LANGFUSE = Fields(  # observations; rows and observations that are no generation are left out
    keep=_is_generation,
    each=("observations", HERE),
    completion=("output.choices.0.message", "output.output", "output"),
    prompt=("input.messages", "input"),
    reference=("expectedOutput", "expected_output", *_REFERENCE),
    id=("id",),
    scores=("scores",),
)
OPENTELEMETRY = Fields(  # the attributes of model calls: GenAI, OpenLLMetry (traceloop), OpenInference
    prepare=prepare.opentelemetry,
    each=("spans",),
    completion=("output",),
    prompt=("input",),
    reference=_REFERENCE,
    id=("span_id",),
    finish_reason=("finish_reason",),
)
MLFLOW = Fields(  # traces, as Trace.to_json and `mlflow traces get` write them
    prepare=prepare.mlflow,
    each=("spans",),
    completion=("output.choices.0.message", "output.generations.0.0.text", "output.output", "output"),
    prompt=("input.messages", "input.prompt", "input.input", "input"),
    reference=("expected.expected_response", "expected.expected_answer", *_REFERENCE),
    id=("span_id",),
    finish_reason=("output.choices.0.finish_reason",),
)
EVALPLUS = Fields(  # samples.jsonl, and each entry of `eval` in eval_results.json
    prepare=prepare.evalplus,
    each=("eval", HERE),
    completion=("solution", "completion"),
    prompt=("prompt",),
    reference=_REFERENCE,
    group=("task_id",),
    scores=("passed",),
)
LLAMA_FACTORY = Fields(  # generated_predictions.jsonl
    completion=("predict",),
    prompt=("prompt",),
    reference=("label",),
)
CONVERSATIONS = Fields(  # `messages`, ShareGPT's `conversations`, prompt and completion as messages
    completion=("completion",),
    prompt=("prompt",),
    messages=("messages", "conversations", "conversation"),
    reference=_REFERENCE,
    group=("group",),
    id=("id",),
    reward=("reward", "score"),
    step=("step",),
)

DataSet = Literal["verl", "trl", "openai", "sharegpt"]
DATA_SETS: Mapping[str, Fields] = {  # rows to train on; `messages` alone: chats that end with the answer
    "verl": Fields(prompt=("prompt",), reference=("reward_model.ground_truth",)),
    "trl": Fields(
        prompt=("prompt",), completion=("completion",), messages=("messages",), reference=("solution",)
    ),
    "openai": Fields(messages=("messages",)),
    "sharegpt": Fields(messages=("conversations",)),
}
