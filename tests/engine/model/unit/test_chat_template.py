"""One way to render a conversation: nothing is missing, the date is the run's, refusals are one line."""

import json
import random
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.config import DatasetConfig, ModelConfig
from verl_lite.engine.data import read_prompts, to_messages
from verl_lite.engine.model import ChatTemplate, build_tiny_tokenizer, load_tokenizer, note_on_end
from verl_lite.errors import ConfigError, DataError

FAMILIES = Path(__file__).parents[3] / "fixtures" / "chat_templates" / "families" / "families.json"
ABOUT = json.loads(FAMILIES.read_text(encoding="utf-8"))
DATED = [name for name in ABOUT if ABOUT[name].get("dated")]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def random_chat(generator: random.Random, *, system: bool) -> list[dict[str, Any]]:
    """A chat as rows have it: text or parts, OpenAI's or ShareGPT's keys, every word different."""
    numbers = iter(range(10_000))

    def content() -> Any:
        words = [f"w{next(numbers)}" for _ in range(generator.randint(1, 6))]
        if generator.random() < 0.5:
            return " ".join(words)
        return [{"type": "text", "text": f"{word} "} for word in words]

    roles = ["system"] if system and generator.random() < 0.5 else []
    roles += ["user", "assistant"] * generator.randint(0, 3) + ["user"]
    if generator.random() < 0.3:
        names = {"user": "human", "assistant": "gpt", "system": "system"}
        return [{"from": names[role], "value": content()} for role in roles]
    return [{"role": role, "content": content()} for role in roles]


@pytest.mark.parametrize("name", list(ABOUT))
def test_every_word_of_a_conversation_is_in_the_prompt(name: str, chat_families: Any) -> None:
    template = chat_families[name].template()
    generator = random.Random(f"words:{name}")
    for _ in range(30):
        chat = random_chat(generator, system=ABOUT[name].get("system", True))
        text = template.render(to_messages(chat, where="row 0"), where="row 0", for_inference=True)
        words = re.findall(r"\bw\d+\b", json.dumps(chat))
        assert (
            re.findall(r"\bw\d+\b", text) == words or name == "mistral-v3"
        )  # which moves the system message
        assert set(words) <= set(re.findall(r"\bw\d+\b", text))
        assert "{'type'" not in text
        ids = template.prompt_ids(to_messages(chat, where=""), where="")
        assert chat_families[name].tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", list(ABOUT))
def test_tools_reach_the_template_or_are_refused(name: str, chat_families: Any) -> None:
    template = chat_families[name].template()
    chat: Any = [{"role": "user", "content": "who"}]
    if ABOUT[name].get("tools"):
        assert "look_up" in template.render(chat, where="row 4", tools=[TOOL], for_inference=True)
    else:
        with pytest.raises(DataError, match=r"row 4: the chat template leaves out the tool 'look_up'"):
            template.render(chat, where="row 4", tools=[TOOL])


@pytest.mark.parametrize("name", DATED)
def test_the_date_is_the_run_s(name: str, chat_families: Any) -> None:
    chat: Any = [{"role": "user", "content": "who"}]
    first, again, later = (
        chat_families[name].template(today=date(2031, month, 5)).render(chat, where="") for month in (3, 3, 9)
    )
    assert first == again != later
    assert "2031" in first
    own = chat_families["llama3.2"].template(arguments={"date_string": "1 Jan 1970"}).render(chat, where="")
    assert "1 Jan 1970" in own


def test_the_templates_with_a_date_are_these() -> None:
    assert set(DATED) == {
        *("llama3.2", "mistral-tekken", "smollm3", "smollm3-no-think", "granite3", "gpt-oss")
    }


def test_arguments_reach_the_template_and_a_typo_is_refused(chat_families: Any) -> None:
    chat: Any = [{"role": "user", "content": "who"}]
    qwen = chat_families["qwen3"]
    plain = qwen.template().render(chat, where="", for_inference=True)
    off = qwen.template(arguments={"enable_thinking": False}).render(chat, where="", for_inference=True)
    assert off == f"{plain}<think>\n\n</think>\n\n"
    with pytest.raises(
        ConfigError, match=r"template_kwargs: the chat template .* never reads 'enable_thinkin'"
    ):
        qwen.template(arguments={"enable_thinkin": False})


def test_rows_may_have_arguments_of_their_own(chat_families: Any, tmp_path: Path) -> None:
    """TRL's column, as an object or as JSON; Arrow gives every object the keys of all others, as null."""
    qwen = chat_families["qwen3"].template()
    values = [{"enable_thinking": False}, '{"enable_thinking": false}', {"enable_thinking": None}, None]
    rows = [{"question": f"q{at}", "chat_template_kwargs": value} for at, value in enumerate(values)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DatasetConfig(path=str(file), reference="")
    prompts = read_prompts(data, qwen, max_prompt_tokens=10_000, seed=0)
    texts = [qwen.tokenizer.decode(prompt.prompt_ids) for prompt in prompts]
    assert [text.endswith("<think>\n\n</think>\n\n") for text in texts] == [True, True, False, False]
    without = data.model_copy(update={"ignore": ("chat_template_kwargs",)})
    prompts = read_prompts(without, qwen, max_prompt_tokens=10_000, seed=0)
    assert not any("<think>" in qwen.tokenizer.decode(prompt.prompt_ids) for prompt in prompts)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"enable_thinkin": 1},
            "row 3, column 'chat_template_kwargs': the chat template .* 'enable_thinkin'",
        ),
        ("no JSON", "row 3, column 'chat_template_kwargs': expected an object of template variables"),
        ([1], "row 3, column 'chat_template_kwargs': expected an object of template variables"),
    ],
)
def test_arguments_of_a_row_that_mean_nothing_are_refused(
    value: Any, message: str, chat_families: Any
) -> None:
    with pytest.raises(DataError, match=message):
        chat_families["qwen3"].template().of_row({"chat_template_kwargs": value}, where="row 3")


SYSTEM = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


@pytest.mark.parametrize(
    ("name", "chat", "message"),
    [
        (
            "gemma2",
            SYSTEM,
            r"row 7: the chat template refuses a chat of system, user: System role not supported",
        ),
        ("mistral-v1", SYSTEM, r"if it takes no system message, put that text into the user's"),
        ("llama2", [*SYSTEM[1:], *SYSTEM[1:]], r"must alternate .*join turns of the same role"),
        (
            "chatml",
            [{"role": "narrator", "content": "x"}],
            r"row 7: the chat template knows no role 'narrator'",
        ),
        (
            "phi3",
            [{"role": "developer", "content": "x"}, *SYSTEM[1:]],
            r"leaves out message 0 \(developer: 'x'\)",
        ),
        ("olmo2", [*SYSTEM[1:], {"role": "tool", "content": "42"}], r"leaves out message 1 \(tool: '42'\)"),
    ],
)
def test_a_refusal_is_one_message_with_the_row(
    name: str, chat: Any, message: str, chat_families: Any
) -> None:
    family = chat_families["qwen2.5" if name == "chatml" else name]
    with pytest.raises(DataError, match=message) as caught:
        family.template().render(chat, where="row 7", for_inference=True)
    assert "\n" not in str(caught.value)


def test_calls_are_given_as_each_template_reads_them(chat_families: Any) -> None:
    """OpenAI sends arguments as text; transformers' templates take an object; DeepSeek's joins text."""
    function = {"name": "add", "arguments": '{"a": 1}'}
    call = {"id": "c1", "type": "function", "function": function}
    chat = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    messages = to_messages(chat, where="")
    for name, shown in [
        ("qwen2.5", '{"a": 1}}'),
        ("llama3.2", '"parameters": {"a": 1}'),
        ("deepseek-r1", '{"a": 1}'),
    ]:
        text = chat_families[name].template().render(messages, where="", for_inference=True)
        assert shown in text
        assert '\\"' not in text


@pytest.mark.parametrize("name", list(ABOUT))
def test_a_model_that_does_not_know_its_template_s_end_gets_one_note(name: str, chat_families: Any) -> None:
    family = chat_families[name]
    ends = ABOUT[name].get("ends", [ABOUT[name]["eos"]])
    from types import SimpleNamespace

    model: Any = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=family.ids(ends)))
    note = note_on_end(family.tokenizer, model)
    assert bool(note) == ABOUT[name].get("note", False)
    if note:
        assert "ends a turn with '<|im_end|>'" in note
        assert "'<|endoftext|>'" in note
        assert family.ids(["<|im_end|>"])[0] in family.end_ids  # it ends answers all the same
        assert note_on_end(family.tokenizer, model, ["<|im_end|>"]) == ""


def test_a_template_file_replaces_the_model_s_own(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}")
    tokenizer = load_tokenizer(ModelConfig(tiny={}), chat_template=str(path))  # type: ignore[arg-type]
    chat: Any = [{"role": "user", "content": "who"}]
    assert ChatTemplate(tokenizer).render(chat, where="") == "user: who<|end|>"
    with pytest.raises(DataError, match=r"data\.chat_template: cannot read .*none\.jinja"):
        load_tokenizer(ModelConfig(tiny={}), chat_template=str(tmp_path / "none.jinja"))  # type: ignore[arg-type]
    path.write_text("{% for m in messages %}\n{{ m.content }")
    with pytest.raises(DataError, match=r"data\.chat_template: .*own\.jinja, line 2: "):
        load_tokenizer(ModelConfig(tiny={}), chat_template=str(path))  # type: ignore[arg-type]


def test_tokenizers_without_a_template_or_eos_are_refused(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "a")
    with pytest.raises(DataError, match=r"has no chat template: .*data\.chat_template"):
        load_tokenizer(ModelConfig(path=str(tmp_path / "a")))
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content }}")
    assert load_tokenizer(ModelConfig(path=str(tmp_path / "a")), chat_template=str(own)).chat_template
    config = json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
    with pytest.raises(DataError, match=r"has no eos token: .* set eos_token"):
        load_tokenizer(ModelConfig(path=str(tmp_path / "a")), chat_template=str(own))
