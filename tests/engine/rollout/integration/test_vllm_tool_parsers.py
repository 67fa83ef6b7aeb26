"""Every tool parser of the installed vLLM reads its family's call, or is refused before sampling."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from verl_lite.engine.rollout.turns.tool_calls import choose_tool_parser
from verl_lite.errors import ConfigError
from verl_lite.plugins import ToolSchema

pytestmark = pytest.mark.slow  # imports vLLM and all of its parsers
TOKENIZER = Path(__file__).parents[3] / "fixtures" / "chat_templates" / "tokenizer.json"
TOOLS: list[ToolSchema] = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look a city up.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
            },
        },
    }
]
ARGUMENTS = '{"city": "Paris", "n": 3}'
OBJECT = '{"name": "look_up", "arguments": ' + ARGUMENTS + "}"
LLAMA = '{"name": "look_up", "parameters": ' + ARGUMENTS + "}"
PYTHON = 'look_up(city="Paris", n=3)'
HERMES = f"<tool_call>\n{OBJECT}\n</tool_call>"
CODER = (
    "<tool_call>\n<function=look_up>\n<parameter=city>\nParis\n</parameter>\n<parameter=n>\n3\n</parameter>\n"
    "</function>\n</tool_call>"
)
GLM = (
    "<tool_call>look_up\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>n</arg_key>\n"
    "<arg_value>3</arg_value>\n</tool_call>"
)
DSML = (
    '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="look_up">\n'
    '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="n" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    "</｜DSML｜tool_calls>"
)
CALLS = {
    "apertus": '<|tools_prefix|>[{"look_up": ' + ARGUMENTS + "}]<|tools_suffix|>",
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n"
    + ARGUMENTS
    + "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek_v31": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look_up<｜tool▁sep｜>"
    + ARGUMENTS
    + "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek_v32": DSML.replace("tool_calls", "function_calls"),
    "deepseek_v4": DSML,
    "ernie45": HERMES + "\n",
    "gemma4": '<|tool_call>call:look_up{city:<|"|>Paris<|"|>,n:3}<tool_call|>',
    "glm45": GLM,
    "granite": f"<|tool_call|>[{OBJECT}]",
    "granite-20b-fc": f"<function_call> {OBJECT}",
    "granite4": HERMES,
    "hermes": HERMES,
    "hunyuan_a13b": f"<tool_calls>[{OBJECT}]</tool_calls>",
    "internlm": f"<|action_start|><|plugin|>{LLAMA}<|action_end|>",
    "jamba": f"<tool_calls>[{OBJECT}]</tool_calls>",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.look_up:0"
    "<|tool_call_argument_begin|>" + ARGUMENTS + "<|tool_call_end|><|tool_calls_section_end|>",
    "lfm2": f"<|tool_call_start|>[{PYTHON}]<|tool_call_end|>",
    "llama3_json": LLAMA,
    "llama4_json": LLAMA,
    "llama4_pythonic": f"[{PYTHON}]",
    "longcat": f"<longcat_tool_call>\n{OBJECT}\n</longcat_tool_call>",
    "minimax_m2": '<minimax:tool_call>\n<invoke name="look_up">\n<parameter name="city">Paris</parameter>\n'
    '<parameter name="n">3</parameter>\n</invoke>\n</minimax:tool_call>',
    "olmo3": f"<function_calls>{PYTHON}</function_calls>",
    "phi4_mini_json": f"functools[{OBJECT}]",
    "pythonic": f"[{PYTHON}]",
    "qwen3_coder": CODER,
    "qwen3_xml": CODER,
    "seed_oss": CODER.replace("tool_call>", "seed:tool_call>"),
    "step3p5": CODER,
    "xlam": f"[{OBJECT}]",
}
BROKEN = (
    "",
    "hello",
    ARGUMENTS,
    "<tool_call>",
    "[f(",
    '{"name":',
    "[TOOL_CALLS]{",
    "<function=f>",
    "functools[",
)


@pytest.fixture(scope="module")
def registered() -> list[str]:
    import verl_lite.engine.rollout.vllm_engine  # noqa: F401  (sets the environment that vLLM reads on import)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("vllm")
        from vllm.tool_parsers import ToolParserManager

        for name in ToolParserManager.list_registered():
            ToolParserManager.get_tool_parser(name)
    return sorted(ToolParserManager.list_registered())


@pytest.fixture(scope="module")
def tokenizer(registered: list[str]) -> Any:
    """Every marker that a parser of vLLM names is a token, as in the tokenizer of its family."""
    import vllm

    assert registered
    folder = Path(vllm.__file__).parent
    sources = [*folder.glob("tool_parsers/*.py"), *folder.glob("parser/**/*.py")]
    marker = re.compile(r'"((?:<[^"\n<>]{1,40}>)|(?:\[[A-Z_/]+\]))"')
    found = {name for path in sources for name in marker.findall(path.read_text(encoding="utf-8"))}
    made = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER))
    made.add_tokens(sorted(found), special_tokens=True)
    return made


def test_each_family_s_call_is_read(registered: list[str], tokenizer: Any) -> None:
    names = [name for name in CALLS if name in registered]
    assert len(names) >= 25, "vLLM has renamed its parsers"
    read = {}
    for name in names:
        found = choose_tool_parser(f"vllm:{name}", tokenizer)(CALLS[name], TOOLS)
        read[name] = [(call["name"], json.loads(call["arguments"])) for call in found.calls]
    assert read == {name: [("look_up", {"city": "Paris", "n": 3})] for name in names}


def test_what_is_broken_is_text_or_a_mistake_and_never_an_exception(
    registered: list[str], tokenizer: Any
) -> None:
    usable, refused = 0, dict[str, str]()
    for name in registered:
        try:
            parser = choose_tool_parser(f"vllm:{name}", tokenizer)
        except ConfigError as error:
            refused[name] = str(error)
            continue
        usable += 1
        for text in (*BROKEN, *(call[: len(call) // 2] for call in CALLS.values())):
            for call in parser(text, TOOLS).calls:
                assert isinstance(json.loads(call["arguments"]), dict)
    assert usable >= 25
    assert [name for name, text in refused.items() if f"rollout.tool_parser=vllm:{name}" not in text] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such", "vLLM has no such parser; it has .*hermes"),
        ("openai", "reads tokens and no text: use harmony"),
    ],
)
def test_a_parser_that_is_not_there_or_reads_no_text(name: str, message: str, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_tool_parser(f"vllm:{name}", tokenizer)
