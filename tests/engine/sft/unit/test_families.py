"""What SFT trains on under the templates of real families: the answers of the row, and one end of turn."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.config import SFTConfig, SFTRowsConfig
from verl_lite.engine.sft import Conversation, ExampleBuilder, FaultKind, ResponseFinder, SFTExample
from verl_lite.errors import DataError

FAMILIES = Path(__file__).parents[3] / "fixtures" / "chat_templates" / "families" / "families.json"
ABOUT = json.loads(FAMILIES.read_text(encoding="utf-8"))
NAMES = sorted(ABOUT)
OPENING = [name for name in NAMES if ABOUT[name].get("opens")]  # the prompt of inference opens <think>
WORDS = "the sum of two and 3.5 is not x^2 für 数学 \\frac{1}{2} def f(x): <b> a 7 ok 'no' [1, 2] end".split()


def build(
    family: Any, chat: list[dict[str, Any]], *, closes_reasoning: bool = False, **config: Any
) -> tuple[list[SFTExample], ExampleBuilder]:
    named = family.about.get("named", ())
    finder = ResponseFinder(
        family.template(), end_ids=family.end_ids, named=named, closes_reasoning=closes_reasoning
    )
    options = {"mask": family.about.get("mask", "checked"), **config}
    builder = ExampleBuilder(finder, SFTConfig(steps=1, **options), max_tokens=100_000)
    return builder.from_chat(Conversation(id="0", messages=chat), SFTRowsConfig()), builder  # type: ignore[arg-type]


def trained(family: Any, examples: list[SFTExample]) -> list[str]:
    """Each run of trained tokens, decoded."""
    runs: list[list[int]] = []
    for example in examples:
        before = False
        for token, weight in zip(example.input_ids, example.weights_T, strict=True):
            if weight and not before:
                runs.append([])
            if weight:
                runs[-1].append(token)
            before = weight > 0
    return [family.tokenizer.decode(run) for run in runs]


def random_chat(seed: int, *, system: bool) -> list[dict[str, Any]]:
    generator = random.Random(seed)

    def text() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(2, 12)))

    chat = [{"role": "system", "content": text()}] if system and generator.random() < 0.5 else []
    for _ in range(generator.randint(1, 4)):
        chat += [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
    return chat


def expected(family: Any, answers: list[str]) -> list[str]:
    about = family.about
    return [f"{about.get('before', '')}{text}{about.get('gap', '')}{about['end']}" for text in answers]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*OPENING, "mistral-v3")])
def test_trained_tokens_are_the_answers_and_one_end_of_turn(name: str, chat_families: Any) -> None:
    """`before` in families.json is what a template writes between its generation prompt and an answer."""
    family = chat_families[name]
    for seed in range(8):
        chat = random_chat(seed, system=family.about.get("system", True))
        answers = [turn["content"] for turn in chat if turn["role"] == "assistant"]
        examples, builder = build(family, chat)
        assert builder.faults == []
        assert trained(family, examples) == expected(family, answers)


def test_what_only_inference_shows_is_trained_behind_the_prompt_of_inference(chat_families: Any) -> None:
    """Mistral 3 puts the system message before the last user turn, if the chat ends with that turn."""
    family = chat_families["mistral-v3"]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1"}]
    examples, builder = build(family, [*chat, {"role": "assistant", "content": "2"}])
    assert builder.faults == []
    assert family.tokenizer.decode(examples[0].input_ids) == "<s>[INST] Be brief.\n\n1+1[/INST]2</s>"
    assert trained(family, examples) == ["2</s>"]


REASONED = "<think>\nadd them both\n</think>\n\nIt is four."


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("no-think")])
def test_reasoning_is_trained(name: str, chat_families: Any) -> None:
    """`reasoned` in families.json is what a template makes of it; the others leave it as it is."""
    family = chat_families[name]
    chat = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": REASONED}]
    examples, builder = build(family, chat)
    assert builder.faults == []
    before = "" if name.startswith(("qwen3", "glm", "exaone", "deepseek")) else family.about.get("before", "")
    text = before + family.about.get("reasoned", REASONED) + family.about.get("gap", "")
    assert trained(family, examples) == [text + family.about["end"]]


def test_r1_s_earlier_answers_are_trained_with_their_reasoning_too(chat_families: Any) -> None:
    family = chat_families["deepseek-r1"]
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>x</think>b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "y</think>d"},  # as vLLM returns it: the prompt has opened the block
    ]
    examples, builder = build(family, chat)
    assert builder.faults == []
    end = family.about["end"]
    assert trained(family, examples) == [f"x</think>b{end}", f"y</think>d{end}"]
    assert "x</think>" not in family.tokenizer.decode(examples[1].input_ids)  # as at inference


# OLMo 3's `<think>` is no token of its own: with `</think>` right behind it, other tokens than at inference
@pytest.mark.parametrize("name", [name for name in OPENING if name != "olmo3-think"])
def test_every_template_that_opens_reasoning_closes_it_if_told_to(name: str, chat_families: Any) -> None:
    family = chat_families[name]
    chat = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "It is four."}]
    assert [fault.kind for fault in build(family, chat)[1].faults] == [FaultKind.TEMPLATE_DIFFERS]
    examples, builder = build(family, chat, closes_reasoning=True)
    assert builder.faults == []
    assert trained(family, examples) == [f"</think>\n\nIt is four.{family.about['end']}"]


def test_the_other_way_out_is_a_template_that_opens_none(chat_families: Any) -> None:
    family = chat_families["deepseek-r1"]
    chat = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "It is four."}]
    other = family.tokenizer.chat_template.replace("<｜Assistant｜><think>\\n", "<｜Assistant｜>")
    family.tokenizer.chat_template, kept = other, family.tokenizer.chat_template
    try:
        examples, _ = build(family, chat)
        assert trained(family, examples) == [f"It is four.{family.about['end']}"]
    finally:
        family.tokenizer.chat_template = kept


@pytest.mark.parametrize("name", ["phi4-mini", "internlm2", "llama3", "zephyr", "deepseek-r1"])
def test_reasoning_content_that_a_template_drops_is_refused(name: str, chat_families: Any) -> None:
    family = chat_families[name]
    answer = {"role": "assistant", "content": "It is four.", "reasoning_content": "add them both"}
    _, builder = build(family, [{"role": "user", "content": "2+2"}, answer])
    assert builder.faults[0].kind in (FaultKind.LOST, FaultKind.TEMPLATE_DIFFERS)
    assert len(builder.faults) == 1


def test_reasoning_content_is_trained_where_the_template_knows_it(chat_families: Any) -> None:
    answer = {"role": "assistant", "content": "It is four.", "reasoning_content": "add them both"}
    for name in ("qwen3", "qwen3-thinking", "glm4.5"):
        examples, builder = build(chat_families[name], [{"role": "user", "content": "2+2"}, answer])
        assert builder.faults == []
        (text,) = trained(chat_families[name], examples)
        assert "add them both" in text


def test_smollm3_s_marks_are_refused_with_the_option_that_works(chat_families: Any) -> None:
    chat = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}]
    _, builder = build(chat_families["smollm3"], chat, mask="checked")
    assert [fault.kind for fault in builder.faults] == [FaultKind.PROMPT_TRAINED]
    examples, builder = build(chat_families["smollm3"], chat, mask="prompt")
    assert builder.faults == []
    assert trained(chat_families["smollm3"], examples) == ["4<|im_end|>"]


def test_a_template_without_an_end_of_turn_needs_a_named_one(chat_families: Any) -> None:
    family = chat_families["falcon"]
    chat = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}]
    finder = ResponseFinder(family.template(), end_ids=family.end_ids)
    builder = ExampleBuilder(finder, SFTConfig(steps=1), max_tokens=1000)
    builder.from_chat(Conversation(id="0", messages=chat), SFTRowsConfig())  # type: ignore[arg-type]
    assert [fault.kind for fault in builder.faults] == [FaultKind.NO_END]


TEXT = "the sum of two numbers is even when both are odd, so we add them"
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 17, "b": [25, "x y"]}}}


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_call_is_trained_or_refused(name: str, chat_families: Any) -> None:
    """Never an empty turn, as Phi's and InternLM's templates make of it."""
    family = chat_families[name]
    chat = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    examples: list[SFTExample] = []
    try:
        examples, builder = build(family, chat)
        refused = bool(builder.faults)
    except DataError:
        refused = True
    assert refused != ABOUT[name].get("calls", False)
    if not refused:
        (text,) = trained(family, examples)
        assert all(part in text for part in ("add", "17", "25", "x y"))
        assert sum(text.count(token) for token in dict.fromkeys([family.about["end"], "<|call|>"])) == 1


def test_plain_text_begins_as_the_tokenizer_begins_it(chat_families: Any) -> None:
    """A start token where the tokenizer adds one, once, and eos at the end, once."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from verl_lite.engine.model import ChatTemplate

    fixtures = FAMILIES.parents[1]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(fixtures / "tokenizer.json"), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = (fixtures / "chatml.jinja").read_text()
    start = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=start)
    builder = ExampleBuilder(ResponseFinder(ChatTemplate(tokenizer)), SFTConfig(steps=1), max_tokens=8)
    for text in (TEXT, f"<s>{TEXT}"):
        rows = list(builder.from_text("0", text))
        whole = [token for row in rows for token in row.input_ids]
        assert len(rows) > 1
        assert tokenizer.decode(whole) == f"<s>{TEXT}</s>"
        assert [row.weights_T[0] for row in rows] == [0.0] * len(rows)


def test_an_answer_of_weight_0_is_shown_and_not_trained(chat_families: Any) -> None:
    """As OpenAI's fine-tuning files mark it."""
    family = chat_families["qwen2.5"]
    chat: list[dict[str, Any]] = []
    for text, weight in (("a", 1), ("b", 0), ("c", 1)):
        chat += [{"role": "user", "content": "q"}, {"role": "assistant", "content": text, "weight": weight}]
    examples, builder = build(family, chat)
    assert builder.faults == []
    assert trained(family, examples) == ["a<|im_end|>", "c<|im_end|>"]
    assert "b<|im_end|>" in family.tokenizer.decode(examples[0].input_ids)
    with pytest.raises(DataError, match="no assistant turn"):
        build(family, [{**turn, "weight": 0} for turn in chat])
