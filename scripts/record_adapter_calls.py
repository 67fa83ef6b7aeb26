"""Run the real trainers on our adapters and write down what they call; the tests replay it.

    python scripts/record_adapter_calls.py trl          in an environment with trl, torch and verl-lite
    python scripts/record_adapter_calls.py verl         with verl and torch
    python scripts/record_adapter_calls.py openrlhf     with openrlhf and torch
    python scripts/record_adapter_calls.py verifiers    with verifiers 0.4 (tasks) or 0.3 (Rubric)

Each writes tests/plugins/fixtures/adapter_calls_<peer>.json: the calls as the trainer made them and
what our adapter answered; and the dump that the trainer's own code writes to
tests/lab/fixtures/. None of the trainers is needed by anything else here.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from verl_lite.plugins import RewardsConfig, Rollout, Scorer
from verl_lite.plugins.adapters import (
    as_openrlhf_reward_func,
    as_trl_reward_func,
    as_verifiers_reward,
    as_verifiers_rubric,
    as_verl_compute_score,
)
from verl_lite.plugins.testing import fake_group, fake_rollout

ROOT = Path(__file__).resolve().parents[1]
CALLS = ROOT / "tests" / "plugins" / "fixtures"
DUMPS = ROOT / "tests" / "lab" / "fixtures"

# `short` abstains (no value) on completions that a test below wants dropped: see adapter_rewards.py
CONFIG = {
    "rewards": {
        "correct": {"use": "exact"},
        "brevity": {"use": f"{CALLS / 'adapter_rewards.py'}:brevity", "weight": 0.5},
    },
    "scoring": {"on_abstain": "drop"},
}
QUESTIONS = [("What is 2 + 2?", "4"), ("What is 3 + 3?", "6")]


class Recorder:
    """Calls `function` and keeps what it was called with and what it answered or raised."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls: list[dict[str, Any]] = []
        self.__name__ = getattr(function, "__name__", "recorder")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call: dict[str, Any] = {"args": _plain(args), "kwargs": _plain(kwargs)}
        self.calls.append(call)
        try:
            result = self.function(*args, **kwargs)
        except Exception as error:
            call["raised"] = type(error).__name__
            raise
        call["result"] = _plain(result)
        return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if hasattr(value, "global_step"):
        return {"global_step": value.global_step}
    return value if isinstance(value, (str, int, float, bool, type(None))) else f"<{type(value).__name__}>"


def _write(peer: str, package: str, content: dict[str, Any]) -> None:
    CALLS.mkdir(parents=True, exist_ok=True)
    path = CALLS / f"adapter_calls_{peer}.json"
    path.write_text(json.dumps({"made_with": f"{package} {version(package)}", **content}, indent=1) + "\n")
    print(f"{path.relative_to(ROOT)}: {package} {version(package)}")


def tiny_tokenizer() -> Any:
    """A character tokenizer with a chat template, made here: nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: at for at, token in enumerate(["<pad>", "<eos>", "<unk>", *characters])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    return tokenizer


def record_trl() -> None:
    """Two real GRPO steps on the CPU, once with messages and once with text."""
    conversational, dump = _train_with_trl(as_messages=True)
    text, text_dump = _train_with_trl(as_messages=False)
    _check_wrapped_trl()
    _write("trl", "trl", {"conversational": conversational, "text": text})
    DUMPS.mkdir(parents=True, exist_ok=True)
    (DUMPS / "trl_completions.parquet").write_bytes(dump)
    (DUMPS / "trl_completions_text.parquet").write_bytes(text_dump)


def _scores(use: str, rollouts: list[Rollout], **options: Any) -> list[float | None]:
    config = RewardsConfig.model_validate({"rewards": {"it": {"use": use, "options": options}}})
    with Scorer(config, workers=1) as scorer:
        return [row.components["it"].score.value for row in scorer.score(rollouts).rows]


def _check_wrapped_trl() -> None:
    """TRL's own reward function through `use: trl:...` answers what it answers when called by hand."""
    from trl.rewards import think_format_reward

    texts = ["<think>\nhm\n</think>\n4", "4", "<think>hm"]
    expected = think_format_reward([[{"role": "assistant", "content": text}] for text in texts])
    found = _scores("trl:trl.rewards.think_format_reward", fake_group(texts))
    assert found == expected == [1.0, 0.0, 0.0], (found, expected)
    print(f"trl:trl.rewards.think_format_reward: {found}")


def _check_wrapped_verl() -> None:
    """verl's default reward through `use: verl:...` answers what it answers when called by hand."""
    from verl.utils.reward_score import default_compute_score

    columns = {"data_source": "openai/gsm8k", "reward_model": {"ground_truth": "4"}, "extra_info": {}}
    texts = ["so #### 4", "so #### 5", "4"]
    expected = [default_compute_score("openai/gsm8k", text, "4") for text in texts]
    use = "verl:verl.utils.reward_score.default_compute_score"
    found = _scores(use, [fake_rollout(text, columns=columns) for text in texts])
    assert found == expected == [1.0, 0.0, 0.0], (found, expected)
    print(f"{use}: {found}")


WRAPPED_BY_TASK = """
async def right(task, trace):
    assert trace.num_turns == 1 and trace.messages[0].content == "What is 2 + 2?", trace
    return {"right": float(trace.last_reply == task.answer), "short": 0.5 * (not trace.is_truncated)}
"""


def _check_wrapped_task_reward() -> None:
    """A reward of verifiers' tasks gets a real Trace made from a rollout."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task_rewards.py"
        path.write_text(WRAPPED_BY_TASK)
        cut = fake_rollout("5", reference="4", finish_reason="length")
        found = _scores(f"verifiers:{path}:right", [fake_rollout("4", reference="4"), cut])
    assert found == [1.5, 0.0], found
    print(f"verifiers:...:right: {found}")


def _train_with_trl(*, as_messages: bool) -> tuple[list[dict[str, Any]], bytes]:
    import torch
    from datasets import Dataset
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **shape, **heads, **special))
    rows = [
        {"prompt": [{"role": "user", "content": q}] if as_messages else q, "reference": a, "level": at}
        for at, (q, a) in enumerate(QUESTIONS)
    ]
    recorder = Recorder(as_trl_reward_func(CONFIG))
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=6,
            log_completions=True,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            seed=0,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=[recorder],
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
        print([entry for entry in trainer.state.log_history if "reward" in entry][-1])
        dump = (Path(folder) / "completions" / "completions_00002.parquet").read_bytes()
    return recorder.calls, dump


def _verl_batch(tokenizer: Any, response: str, question: str, truth: str) -> Any:
    import numpy as np
    import torch
    from verl import DataProto

    prompt_ids = torch.tensor([tokenizer.encode(question)])
    response_ids = torch.tensor([tokenizer.encode(response)])
    tensors = {
        "prompts": prompt_ids,
        "responses": response_ids,
        "attention_mask": torch.ones(1, prompt_ids.shape[1] + response_ids.shape[1], dtype=torch.long),
    }
    extra = {"split": "train", "index": 0, "question": question}
    others = {
        "data_source": np.array(["sums"], dtype=object),
        "reward_model": np.array([{"style": "rule", "ground_truth": truth}], dtype=object),
        "extra_info": np.array([extra], dtype=object),
    }
    return DataProto.from_dict(tensors=tensors, non_tensors=others)


def record_verl() -> None:
    """verl's reward loop (the default one) and its older manager, on single samples, and its dump."""
    from omegaconf import OmegaConf
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager as LoopManager
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer
    from verl.workers.reward_manager.naive import NaiveRewardManager

    _check_wrapped_verl()
    tokenizer = tiny_tokenizer()
    recorder = Recorder(as_verl_compute_score(CONFIG))
    responses = [("4", 0), ("the answer is 5", 0), ("6", 1)]
    batches = [_verl_batch(tokenizer, text, *QUESTIONS[at]) for text, at in responses]

    async def through_the_loop() -> list[dict[str, Any]]:
        manager = LoopManager(OmegaConf.create({}), tokenizer, recorder)
        return [await manager.run_single(batch) for batch in batches]

    loop = [_plain(result) for result in asyncio.run(through_the_loop())]
    manager = NaiveRewardManager(tokenizer, num_examine=0, compute_score=recorder)
    naive = [_plain(manager(batch, return_dict=True)) for batch in batches]
    _write("verl", "verl", {"calls": recorder.calls, "reward_loop": loop, "naive_manager": naive})
    with tempfile.TemporaryDirectory() as folder:
        extra = [item["reward_extra_info"] for item in loop]
        RayPPOTrainer._write_generations(
            inputs=[QUESTIONS[at][0] for _, at in responses],
            outputs=[text for text, _ in responses],
            gts=[QUESTIONS[at][1] for _, at in responses],
            scores=[item["reward_score"] for item in loop],
            reward_extra_infos_dict={key: [item[key] for item in extra] for key in extra[0]},
            dump_path=folder,
            global_steps=7,
        )
        (DUMPS / "verl_rollouts.jsonl").write_bytes((Path(folder) / "7.jsonl").read_bytes())


def record_openrlhf() -> None:
    """OpenRLHF's single-turn executor with a generator of fixed answers in the place of vLLM."""
    from types import SimpleNamespace
    from unittest.mock import MagicMock

    if find_spec("vllm") is None:  # imported there, but not used by what runs here
        sys.modules.update({name: MagicMock() for name in ("vllm", "vllm.inputs", "vllm.utils")})
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    tokenizer = tiny_tokenizer()
    recorder = Recorder(as_openrlhf_reward_func(CONFIG, end_tokens=["<eos>"]))
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "my_reward.py"
        script.write_text("def reward_func(queries, prompts, labels):\n    raise NotImplementedError\n")
        executor = SingleTurnAgentExecutor(str(script))
    executor.reward_func = recorder
    for text, at in [("4<eos>", 0), ("the answer is 5<eos>", 0), ("drop me<eos>", 1)]:
        answer = SimpleNamespace(token_ids=tokenizer.encode(text), finish_reason="stop", logprobs=None)

        async def generate(*_: Any, _answer: Any = answer, **__: Any) -> Any:
            return SimpleNamespace(outputs=[_answer])

        sampling = SimpleNamespace(max_tokens=32, logprobs=None)
        engine = SimpleNamespace(generate=generate)
        question, label = QUESTIONS[at]
        response = asyncio.run(executor.execute(question, label, sampling, 128, tokenizer, engine))
        experience = SamplesGenerator._process_response_into_experience(
            SimpleNamespace(tokenizer=tokenizer), response
        )
        outcomes.append({"rewards": _plain(experience.rewards), "info": _plain(experience.info)})
    _write("openrlhf", "openrlhf", {"calls": recorder.calls, "experiences": outcomes})


def record_verifiers() -> None:
    import verifiers

    if hasattr(verifiers, "Rubric"):
        asyncio.run(_record_rubric())
    else:
        asyncio.run(_record_task())


async def _record_task() -> None:
    """Traces scored by verifiers' Task with our function plugged in by name, written as it writes them."""
    import verifiers.v1 as vf
    from verifiers.v1.configs.agent import WireAgentConfig
    from verifiers.v1.configs.task import RewardFunctionConfig

    await asyncio.to_thread(_check_wrapped_task_reward)
    module = type(sys)("recorded_rewards")
    module.ours = as_verifiers_reward(CONFIG)  # type: ignore[attr-defined]
    sys.modules["recorded_rewards"] = module
    plugged = {"verl_lite": RewardFunctionConfig(fn="recorded_rewards:ours")}
    outcomes, lines = [], []
    for text, at in [("4", 0), ("the answer is 5", 0), ("drop me", 1)]:
        question, answer = QUESTIONS[at]
        data = vf.WireTaskData(idx=at, prompt=question, answer=answer)
        task = vf.Task(data, vf.TaskConfig(rewards=plugged))
        nodes = [
            vf.MessageNode(message=vf.UserMessage(content=question), timestamp=0.0),
            vf.MessageNode(
                parent=0, sampled=True, message=vf.AssistantMessage(content=text), timestamp=0.0,
                token_ids=[9, 1, 2], mask=[False, True, True], logprobs=[-0.5, -0.25],
            ),
        ]  # fmt: skip
        described = vf.TraceTask(type="Task", data=data, key=task.key, hash=task.hash)
        trace = vf.Trace(
            id=f"trace-{len(lines)}", task=described, nodes=nodes,
            agent=vf.AgentInfo(config=WireAgentConfig()),
            timing=vf.Timing(start=0.0), is_completed=True, ok=True, stop_condition="agent_completed",
        )  # fmt: skip
        try:
            await task.score(trace)
        except vf.TaskError as error:
            trace.record_error(error)
            trace.errors[-1].traceback = None  # it names this machine's folders
        run = vf.TrainRunInfo(id="run", work=vf.TrainWorkInfo(step=3, policy=vf.PolicySpan(start=2, end=3)))
        episode = vf.Episode(
            id=f"episode-{len(lines)}", task=described, traces=[trace], group=vf.GroupInfo(id=f"g{at}"),
            run=run, ok=trace.ok,
        )  # fmt: skip
        outcomes.append({"reward": trace.reward, "info": _plain(trace.info), "ok": trace.ok, "answer": text})
        lines.append(json.dumps(episode.to_record()))
    _write("verifiers_task", "verifiers", {"outcomes": outcomes})
    (DUMPS / "verifiers_traces.jsonl").write_text("\n".join(lines) + "\n")


async def _record_rubric() -> None:
    """States scored by our Rubric as a classic environment does it, written by verifiers' own code."""
    from verifiers.types import RolloutInput, State
    from verifiers.utils.save_utils import state_to_output

    rubric = as_verifiers_rubric(CONFIG)
    states = []
    for text, at in [("4", 0), ("the answer is 5", 0), ("6", 1)]:
        question, answer = QUESTIONS[at]
        prompt = [{"role": "user", "content": question}]
        row = RolloutInput(prompt=prompt, answer=answer, example_id=at, info={"level": at})
        state = State(
            input=row, completion=[{"role": "assistant", "content": text}], trajectory=[],
            timing={"generation_ms": 0.0, "scoring_ms": 0.0, "total_ms": 0.0}, is_completed=True,
            is_truncated=False, metrics={}, reward=None,
        )  # fmt: skip
        states.append(state)
    await rubric.score_group(states)
    lines = [json.dumps(state_to_output(state), default=_plain) for state in states]
    scored = [{key: _plain(s[key]) for key in ("reward", "advantage", "metrics")} for s in states]
    _write("verifiers_rubric", "verifiers", {"states": [_plain(dict(s)) for s in states], "scored": scored})
    (DUMPS / "verifiers_results.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    peers = {
        "trl": record_trl,
        "verl": record_verl,
        "openrlhf": record_openrlhf,
        "verifiers": record_verifiers,
    }
    if len(sys.argv) != 2 or sys.argv[1] not in peers:
        sys.exit(f"usage: {sys.argv[0]} {' | '.join(peers)}")
    DUMPS.mkdir(parents=True, exist_ok=True)
    peers[sys.argv[1]]()
