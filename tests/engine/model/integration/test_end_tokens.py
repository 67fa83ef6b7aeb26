"""Answers end where the model was taught to end them: in every sampler, in pairs, in the folder it leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from verl_lite.engine import PromptRow, build, train
from verl_lite.engine.config import ClusterConfig, DatasetConfig, RolloutConfig, TrainConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.model import ChatTemplate, end_of_answer, end_token_ids, without_end
from verl_lite.engine.preference import reply_ids
from verl_lite.errors import DataError
from verl_lite.lab.preferences import to_preference
from verl_lite.plugins import Rollout, SamplerSettings, validate
from verl_lite.plugins.records import read_records

TEMPLATES = Path(__file__).parents[3] / "fixtures" / "chat_templates"
END_OF_TURN = "<end_of_turn>"


def with_template(template: str) -> Any:
    """A tokenizer whose eos ends documents, not turns, as Gemma's does."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TEMPLATES / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<|pad|>",
    )
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    return tokenizer


@pytest.fixture(scope="module")
def gemma() -> Any:
    return with_template("gemma")


@pytest.fixture
def folder(gemma: Any, tmp_path: Path) -> Path:
    """A model that says itself what ends its turns."""
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(gemma), num_key_value_heads=1, head_dim=16, **shape))
    ends = [gemma.eos_token_id, gemma.convert_tokens_to_ids(END_OF_TURN)]
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def prompts(gemma: Any) -> list[PromptRow]:
    return read_prompts(
        DatasetConfig(task="arithmetic", num_rows=8), ChatTemplate(gemma), max_prompt_tokens=64, seed=0
    )


def rollouts_of(groups: Iterator[list[Rollout]]) -> list[Rollout]:
    return [rollout for group in groups for rollout in group]


def test_ends_come_from_the_tokenizer_the_folder_and_the_config(
    gemma: Any, folder: Path, tmp_path: Path
) -> None:
    eos, end = gemma.eos_token_id, gemma.convert_tokens_to_ids(END_OF_TURN)
    other = gemma.convert_tokens_to_ids("<|im_end|>")
    assert end_token_ids(gemma, str(folder)) == (eos, end)
    assert end_token_ids(gemma, Qwen3ForCausalLM.from_pretrained(folder)) == (eos, end)
    assert end_token_ids(gemma, str(folder), ["<|im_end|>"]) == (eos, end, other)
    (folder / "generation_config.json").unlink()
    assert end_token_ids(gemma, str(folder)) == (eos, end)  # the template writes it
    assert end_token_ids(gemma, None) == (eos, end)
    assert end_token_ids(gemma, str(folder), [END_OF_TURN]) == (eos, end)
    GenerationConfig(eos_token_id=[-1, end, len(gemma)]).save_pretrained(folder)
    assert end_token_ids(gemma, str(folder)) == (eos, end)
    with pytest.raises(DataError, match=r"sft\.end_of_turn: 'two words' is not one token"):
        end_token_ids(gemma, str(folder), ["two words"])
    assert without_end([5, end], (eos, end)) == [5]
    assert without_end([end, 5], (eos, end)) == [end, 5]


@pytest.mark.parametrize(
    ("template", "end"),
    [("gemma", END_OF_TURN), ("llama3", "<|eot_id|>"), ("qwen3", "<|im_end|>"), ("mistral", "</s>")],
)
def test_the_end_of_a_reply_is_the_template_s(template: str, end: str) -> None:
    tokenizer = with_template(template)
    ends = [tokenizer.eos_token_id, *map(tokenizer.convert_tokens_to_ids, [END_OF_TURN, "<|eot_id|>"])]
    ends.append(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert tokenizer.decode(end_of_answer(tokenizer, ends)) == end
    assert end_of_answer(tokenizer, [tokenizer.eos_token_id]) == tokenizer.eos_token_id


def test_a_pair_s_reply_is_the_conversation_that_the_template_renders(gemma: Any, folder: Path) -> None:
    row = to_preference({"prompt": "1+1=", "chosen": "2", "rejected": "23"})
    end_id = end_of_answer(gemma, end_token_ids(gemma, str(folder)))
    for (prompt, reply), text in zip(
        reply_ids(ChatTemplate(gemma), row, end_id=end_id), ("2", "23"), strict=True
    ):
        chat = [*row.prompt, {"role": "assistant", "content": text}]
        assert gemma.decode([*prompt, *reply]) == gemma.apply_chat_template(chat, tokenize=False).rstrip()


def test_the_transformers_sampler_stops_at_the_end_of_a_turn(
    gemma: Any, folder: Path, prompts: list[PromptRow]
) -> None:
    rollout = RolloutConfig(sampler="transformers")
    sampler = build.sampler_for(
        str(folder), gemma, rollout, canary_ids=prompts[0].prompt_ids, seed=0, cluster=ClusterConfig()
    )
    end = gemma.convert_tokens_to_ids(END_OF_TURN)
    settings = SamplerSettings(max_new_tokens=100, seed=1)
    found = rollouts_of(sampler.generate(prompts, num_samples=16, settings=settings))
    ended = [one for one in found if one.completion_ids[-1] == end]
    assert len(ended) > 5  # 1 of 474 tokens each time
    assert all(one.finish_reason == "stop" for one in ended)
    assert all(end not in one.completion_ids[:-1] for one in found)
    assert all(len(one.logprobs) == len(one.completion_ids) for one in found)
    assert all(END_OF_TURN not in one.completion for one in found)


@pytest.mark.parametrize(
    ("options", "sampler"),
    [
        ({}, "verl_lite.engine.rollout.vllm_sampler.VllmSampler"),
        ({"num_engines": 2}, "verl_lite.engine.cluster.ray_sampler.RaySampler"),
        (
            {"sampler": "vllm-server", "server": {"url": "http://x"}},
            "verl_lite.engine.rollout.server_sampler.ServerSampler",
        ),
    ],
)
def test_every_sampler_is_told(
    gemma: Any,
    folder: Path,
    prompts: list[PromptRow],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    sampler: str,
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(sampler, lambda *_, **named: told.append(named))
    build.sampler_for(
        str(folder),
        gemma,
        RolloutConfig.model_validate(options),
        canary_ids=prompts[0].prompt_ids,
        seed=0,
        cluster=ClusterConfig(),
        end_of_turn=["<|im_end|>"],
    )
    assert gemma.decode(told[0]["end_ids"]) == "</s><end_of_turn><|im_end|>"


def test_a_run_ends_its_answers_where_its_warm_up_taught_it_and_says_so_in_its_model(
    small_run: dict[str, Any], tmp_path: Path, tokenizer: Any
) -> None:
    config = validate(
        TrainConfig,
        {**small_run, "steps": 1, "sft": {"steps": 1, "batch_rows": 4, "end_of_turn": ["+"]}},
        source="test",
    )
    train(config, run_dir=tmp_path / "run", show="quiet")
    (plus,) = tokenizer.encode("+", add_special_tokens=False)
    (file,) = (tmp_path / "run" / "rollouts").glob("*.parquet")
    rows = [record.rollout for record in read_records(file)]
    ended = [row for row in rows if row.completion_ids[-1] == plus]
    assert ended
    assert all(row.finish_reason == "stop" and "+" not in row.completion for row in ended)
    assert all(plus not in row.completion_ids[:-1] for row in rows)
    saved = GenerationConfig.from_pretrained(tmp_path / "run" / "model")
    assert saved.eos_token_id == [tokenizer.eos_token_id, plus]
    with pytest.raises(DataError, match=r"sft\.end_of_turn: '<stop>' is not one token"):
        train(validate(TrainConfig, {**small_run, "sft": {"end_of_turn": ["<stop>"]}}, source="test"))
