"""Preference rows as published data sets have them, and under their own template variables."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.model import ChatTemplate
from verl_lite.engine.preference import DPOConfig, RewardModelConfig, chat_ids, read_rankings, reply_ids
from verl_lite.engine.preference.data import Tokenise
from verl_lite.errors import DataError


def config(folder: Path, rows: list[dict[str, Any]], **options: Any) -> DPOConfig:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": {"path": str(path), **options}, "held_out_fraction": 0, "max_tokens": 10_000}
    return DPOConfig.model_validate({"model": {"path": "any"}, "data": data})


@pytest.mark.parametrize("tokenise", [reply_ids, chat_ids])
def test_a_row_s_variables_reach_the_template(tokenise: Tokenise, tmp_path: Path, chat_families: Any) -> None:
    """DPO's replies and a reward model's conversations; Arrow gives every object the keys of all others."""
    values = [{"date_string": "1 Jan 1970"}, '{"date_string": "1 Jan 1970"}', {"date_string": None}, None]
    rows = [{"prompt": f"q{at}", **TEXTS, "chat_template_kwargs": value} for at, value in enumerate(values)]
    template = chat_families["llama3.2"].template()
    found = read_rankings(config(tmp_path, rows), template, tokenise).train
    prompts = [template.tokenizer.decode(ranking.samples[0].prompt_ids) for ranking in found]
    assert ["1 Jan 1970" in prompt for prompt in prompts] == [True, True, False, False]


def test_a_variable_that_the_template_never_reads_is_refused_with_the_row(
    tmp_path: Path, chat_families: Any
) -> None:
    rows = [
        {"prompt": "q", **TEXTS, "chat_template_kwargs": given} for given in (None, {"enable_thinkin": 0})
    ]
    with pytest.raises(DataError, match=r"row 1, column 'chat_template_kwargs': .*enable_thinkin"):
        read_rankings(config(tmp_path, rows), chat_families["qwen3"].template(), reply_ids)


def said(*turns: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn; a text with "system:" is the system's."""
    found = [{"role": "system", "content": turn[7:]} for turn in turns if turn.startswith("system:")]
    roles = ("user", "assistant")
    rest = [turn for turn in turns if not turn.startswith("system:")]
    return found + [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(rest)]


SKY = "<|user|>sky?<|end|>"
TALK = f"<|user|>hi<|end|><|assistant|>hello<|end|>{SKY}"
BRIEF = f"<|system|>Be brief.<|end|>{SKY}"
BLUE, GREEN = ({"role": "assistant", "content": text} for text in ("blue", "green"))
TEXTS = {"chosen": "blue", "rejected": "green"}
WHOLE = {name: said("sky?", text) for name, text in TEXTS.items()}
LONGER = {name: said("hi", "hello", "sky?", text) for name, text in TEXTS.items()}
HH = {
    name: f"\n\nHuman: hi\n\nAssistant: hello\n\nHuman: sky?\n\nAssistant: {text}"
    for name, text in TEXTS.items()
}
SHAREGPT = {"from": "human", "value": "sky?"}


@pytest.mark.parametrize(
    ("row", "options", "prompt", "margin"),
    [
        pytest.param({"prompt": "sky?", **TEXTS}, {}, SKY, 0, id="trl-explicit"),
        pytest.param(
            {"prompt": said("sky?"), "chosen": [BLUE], "rejected": [GREEN]}, {}, SKY, 0, id="trl-chat"
        ),
        pytest.param(WHOLE, {}, SKY, 0, id="trl-implicit"),
        pytest.param({"prompt": "other", **WHOLE}, {"prompt": ""}, SKY, 0, id="no-prompt-column"),
        pytest.param({"prompt": said("hi", "hello", "sky?"), **TEXTS}, {}, TALK, 0, id="talk-in-prompt"),
        pytest.param(
            {
                "prompt": "hi",
                **{
                    k: said("hi", *v)[1:]
                    for k, v in {
                        "chosen": ("hello", "sky?", "blue"),
                        "rejected": ("hello", "sky?", "green"),
                    }.items()
                },
            },
            {},
            TALK,
            0,
            id="talk-in-answer",
        ),
        pytest.param({"prompt": "sky?", **LONGER}, {}, TALK, 0, id="prompt-is-the-last-turn"),
        pytest.param(
            {"prompt": "sky?", **{k: said("system:Be brief.", "sky?", v) for k, v in TEXTS.items()}},
            {},
            BRIEF,
            0,
            id="system-in-conversation",
        ),
        pytest.param(WHOLE, {"system_prompt": "Be brief."}, BRIEF, 0, id="system-of-config"),
        pytest.param(
            {"system": "Be brief.", "question": "sky?", **TEXTS}, {"prompt": "question"}, BRIEF, 0, id="orca"
        ),
        pytest.param(
            {"system": "x", "prompt": "sky?", **TEXTS}, {"ignore": ["system"]}, SKY, 0, id="ignored"
        ),
        pytest.param(HH, {}, TALK, 0, id="hh-rlhf"),
        pytest.param(
            {
                "prompt": "sky?",
                **WHOLE,
                "messages": WHOLE["chosen"],
                "score_chosen": 8.5,
                "score_rejected": 3.0,
            },
            {},
            SKY,
            5.5,
            id="ultrafeedback-binarized",
        ),
        pytest.param(
            {"prompt": "sky?", **WHOLE, "chosen-rating": 4.5, "rejected-rating": 2.0},
            {},
            SKY,
            2.5,
            id="argilla",
        ),
        pytest.param(
            {"prompt": "sky?", **TEXTS, "chosen_score": 5.0, "rejected_score": 2.0},
            {},
            SKY,
            3.0,
            id="openrlhf",
        ),
        pytest.param({"prompt": "sky?", **TEXTS, "margin": 2.0}, {}, SKY, 2.0, id="margin"),
        pytest.param(
            {
                "prompt": "\n\nHuman: sky?\n\nAssistant: ",
                "answers": [
                    {"answer": "blue", "model": "a", "rank": 1.0},
                    {"answer": "green", "model": "b", "rank": 2.0},
                ],
            },
            {},
            SKY,
            0,
            id="nectar",
        ),
        pytest.param(
            {
                "instruction": "sky?",
                "completions": [
                    {"response": "blue", "overall_score": 8.0},
                    {"response": "green", "overall_score": 3.0},
                ],
            },
            {"prompt": "instruction"},
            SKY,
            5.0,
            id="ultrafeedback",
        ),
        pytest.param(
            {"prompt": "sky?", "generations": ["blue", "green"], "ratings": [4, 1]},
            {},
            SKY,
            3.0,
            id="distilabel",
        ),
        pytest.param(
            {
                "conversations": [SHAREGPT],
                "chosen": {"from": "gpt", "value": "blue"},
                "rejected": {"from": "gpt", "value": "green"},
            },
            {"prompt": "conversations"},
            SKY,
            0,
            id="llama-factory",
        ),
        pytest.param({"a": "sky", "b": "?", **TEXTS}, {"prompt_template": "{a}{b}"}, SKY, 0, id="template"),
        pytest.param(
            {"prompt": "sky?", **{k: json.dumps(v) for k, v in WHOLE.items()}}, {}, SKY, 0, id="json-text"
        ),
        pytest.param(
            {"prompt": "sky?", "best": "blue", "other": {"text": "green"}},
            {"chosen": "best", "rejected": "other.text"},
            SKY,
            0,
            id="named-columns",
        ),
    ],
)
@pytest.mark.parametrize("tokenise", [reply_ids, chat_ids])
def test_published_schemas_are_the_same_pair(
    row: Any, options: Any, prompt: str, margin: float, tokenise: Tokenise, tmp_path: Path, tokenizer: Any
) -> None:
    (ranking,) = read_rankings(config(tmp_path, [row], **options), ChatTemplate(tokenizer), tokenise).train
    texts = [tokenizer.decode([*one.prompt_ids, *one.completion_ids]) for one in ranking.samples]
    assert texts == [f"{prompt}<|assistant|>{text}<|end|>" for text in TEXTS.values()]
    assert (ranking.pairs, ranking.margins) == ([(0, 1)], [margin])


CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "q", "completion": "a", "label": True},
            r"'chosen' and 'rejected'; got .*label, id: .*\(KTO\)",
        ),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            "there is no prompt: expected its column",
        ),
        (
            {"prompt": "q", "response_1": "a", "response_2": "b"},
            "expected 'completions' .*got response_1, resp",
        ),
        (
            {**WHOLE, "rejected": said("sky", "green")},
            "'chosen' and 'rejected' differ before their last message",
        ),
        ({**WHOLE, "chosen": said("sky?")}, "'chosen' ends with a user turn: expected the assistant's text"),
        (
            {"prompt": "q", "rejected": "a", "chosen": [{**BLUE, "tool_calls": [CALL]}]},
            "ends with the call of a",
        ),
        ({"prompt": "q", **TEXTS, "tools": [CALL]}, r"the row has tools, which .*ignore: \[tools\]"),
        ({**WHOLE, "images": ["x.png"]}, r"column 'images' has images of this row"),
        (
            {"prompt": "q", "completions": [{"text": "a", "rank": 1}, {"text": "b"}]},
            "expected 'ranks' for 2 compl",
        ),
    ],
)
def test_what_is_no_preference_is_one_line(row: Any, message: str, tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(DataError, match=rf"pairs\.jsonl, row 0[:,].*{message}") as caught:
        read_rankings(config(tmp_path, [row]), ChatTemplate(tokenizer), reply_ids)
    assert "\n" not in str(caught.value)


def test_margins_that_no_row_has_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    found = config(tmp_path, [WHOLE]).model_dump(include={"model", "data"})
    rewards = RewardModelConfig(**found, margin_scale=1.0)
    with pytest.raises(
        DataError, match=r"row 0: margin_scale above 0 needs 'margin' or 'scores' in every row"
    ):
        read_rankings(rewards, ChatTemplate(tokenizer), chat_ids)
