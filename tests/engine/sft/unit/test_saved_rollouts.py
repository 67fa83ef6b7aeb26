"""A teacher's saved rollouts: token ids as they were sampled, text as SFT reads it, others refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.config import TinyModelConfig, TrainConfig
from verl_lite.engine.data.store import RowStore
from verl_lite.engine.model import ChatTemplate, end_token_ids, tiny
from verl_lite.engine.sft import SavedRollout, read_saved_rollouts
from verl_lite.errors import ConfigError, DataError, VerlLiteError
from verl_lite.plugins import Rollout
from verl_lite.plugins.records import RecordWriter
from verl_lite.plugins.rollout import Segment, Turn

TOKENIZER = tiny.build_tiny_tokenizer()
TEMPLATE = ChatTemplate(TOKENIZER)
EOS = TOKENIZER.eos_token_id
ASKED = [{"role": "user", "content": "1+2="}]


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def rollout(completion: str = "3", **fields: Any) -> Rollout:
    given = {
        "id": "r",
        "group": "g",
        "prompt": ASKED,
        "prompt_ids": TEMPLATE.prompt_ids(ASKED, where="here"),
        "completion_ids": [*ids(completion), EOS],
        "logprobs": [-0.5] * (len(ids(completion)) + 1),
    }
    return Rollout(completion=completion, **{**given, **fields})


def config_of(path: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "steps": 1,
            "model": {"tiny": TinyModelConfig().model_dump()},
            "data": {"train": {"task": "arithmetic"}},
            "rewards": {"correct": {"use": "math"}},
            "rollout": {"max_prompt_tokens": 32, "max_new_tokens": 16},
            "distillation": {"rollouts": {"path": str(path)}},
            **changes,
        }
    )


def read(path: Path, rows: list[Rollout] | list[dict[str, Any]], **changes: Any) -> RowStore[SavedRollout]:
    if isinstance(rows[0], Rollout):
        file = path / "rollouts.parquet"
        with RecordWriter(file) as writer:
            writer.write_rollouts(rows)
    else:
        file = path / "rollouts.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ends = end_token_ids(TOKENIZER, None)
    return read_saved_rollouts(config_of(file, **changes), TEMPLATE, end_ids=ends)


def trained(example: SavedRollout) -> list[int]:
    return [token for token, weight in zip(example.input_ids, example.weights_T, strict=True) if weight]


def test_ids_are_taken_as_they_were_sampled_and_a_cut_answer_gets_no_end(tmp_path: Path) -> None:
    whole = rollout(columns={"data_source": "sums"})
    cut = rollout(
        "33", sample_index=1, completion_ids=ids("33"), logprobs=[-1.0, -2.0], finish_reason="length"
    )
    first, second = read(tmp_path, [whole, cut])
    assert first.input_ids == [*whole.prompt_ids, *whole.completion_ids]
    assert trained(first) == [*ids("3"), EOS]
    assert (first.source, first.teacher_logprob) == ("sums", -1.0)
    assert trained(second) == ids("33")
    assert second.teacher_logprob == -3.0


def test_only_what_the_teacher_sampled_is_trained_on_over_turns_and_segments(tmp_path: Path) -> None:
    said, heard = ids("3"), ids("no")
    turns = (
        Turn(role="assistant", content="3", start=0, end=1),
        Turn(role="tool", content="no", start=1, end=3),
        Turn(role="assistant", content="4", start=3, end=4),
    )
    tokens = [*said, *heard, *ids("4")]
    several = rollout("4", completion_ids=tokens, logprobs=[-1.0, 0.0, 0.0, -2.0], turns=turns)
    (example,) = read(tmp_path, [several])
    assert trained(example) == [*said, *ids("4")]
    assert example.teacher_logprob == -3.0
    parts = tuple(
        Segment(
            prompt_ids=[5, 6], completion_ids=one, logprobs=[-0.25] * len(one), sampled_mask=[1] * len(one)
        )
        for one in (said, ids("4"))
    )
    found = read(
        tmp_path, [rollout("4", completion_ids=[*said, *ids("4")], logprobs=[-1, -1], segments=parts)]
    )
    assert [(trained(one), one.teacher_logprob) for one in found] == [(said, -0.25), (ids("4"), -0.25)]


def test_text_without_ids_is_read_as_sft_reads_it(tmp_path: Path) -> None:
    (example,) = read(tmp_path, [{"prompt": "1+2=", "completion": "3"}])
    assert trained(example) == [*ids("3"), EOS]
    assert list(example.input_ids) == [*rollout().prompt_ids, *ids("3"), EOS]
    assert example.teacher_logprob is None


def test_failed_and_empty_rollouts_teach_nothing(tmp_path: Path) -> None:
    lost = rollout(sample_index=1, finish_reason="error")
    empty = rollout("", sample_index=2, completion_ids=[], logprobs=[])
    cut = rollout(sample_index=3, completion_ids=[], logprobs=[], finish_reason="length")
    kept = read(tmp_path, [rollout(), lost, empty, cut])
    assert len(kept) == 1
    assert kept.notes == ["distillation.rollouts: 3 are left out (failed, empty, or text cut off)"]
    with pytest.raises(DataError, match="every rollout failed, is empty or cut off"):
        read(tmp_path, [lost])


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (rollout(completion_ids=ids("4"), logprobs=[-1]), {}, "they read '4' here, but '3' there"),
        (rollout(completion_ids=[10**6], logprobs=[-1]), {}, "1000000 is not in its vocabulary"),
        (rollout("3" * 60), {}, "tokens, more than 48: raise sft.max_tokens"),
        (Rollout(id="r", group="g", completion="3"), {}, "r has no prompt: there is nothing to answer"),
        ({"prompt": "1+2=", "completion": "3" * 60}, {}, "tokens, more than 48"),
    ],
)
def test_what_the_policy_cannot_read_is_refused(
    row: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(VerlLiteError, match=message) as caught:
        read(tmp_path, [row], **changes)
    if "here, but" in message or "vocabulary" in message:
        assert isinstance(caught.value, ConfigError)
        assert "use demonstrations" in str(caught.value)
