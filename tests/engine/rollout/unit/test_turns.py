"""Trajectories are token-exact under every template family: what is trained is what the sampler saw."""

import asyncio
import copy
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.model import ChatTemplate
from verl_lite.engine.rollout import FinishedSequence, SequenceRequest
from verl_lite.engine.rollout.turns.rendering import TurnRenderer
from verl_lite.engine.rollout.turns.tool_calls import choose_tool_parser
from verl_lite.engine.rollout.turns.trajectory import Trajectory, TurnBudgets, TurnKit
from verl_lite.engine.types import PromptRow
from verl_lite.plugins import Rollout, SamplerSettings, Step
from verl_lite.plugins.testing import FakeEnvironments

FAMILIES = Path(__file__).parents[3] / "fixtures" / "chat_templates" / "families" / "families.json"
ABOUT = json.loads(FAMILIES.read_text(encoding="utf-8"))
WORDS = "the sum of two is not x^2 für 数学 \\frac{1}{2} f(x): a 7 'no' [1, 2] end".split()
REWRITES = {  # no reasoning in history, another end of turn or none there, tools before the last user turn
    "qwen3", "qwen3-no-think", "qwen3-thinking", "deepseek-r1", "glm4.5", "gpt-oss", "falcon", "mistral-v3",
    "deepseek-v3.1", "exaone4", "minimax-m2", "nemotron-nano", "olmo3-think", "qwen3.5", "qwen3.5-no-think",
}  # fmt: skip
SETTINGS = SamplerSettings(max_new_tokens=100_000, seed=7)


def look_up(word: str = "") -> str:
    """A word's meaning."""
    return f"meaning of {word}\n"


class Talk:
    """A model that says random things, with and without reasoning, spaces, tool calls and an end."""

    def __init__(self, family: Any, seed: int) -> None:
        self.family = family
        self.random = random.Random(seed)
        self.seen: list[tuple[SequenceRequest, list[int]]] = []
        tools = [look_up] if family.about.get("tools") and family.name not in NO_CALLS else []
        self.host = FakeEnvironments(tools=tools, reply=self.reply)
        renderer = TurnRenderer(family.template(), end_ids=family.end_ids)
        parser = choose_tool_parser("auto", family.tokenizer) if tools else None
        budgets = TurnBudgets(context_tokens=100_000, max_turns=5, max_tool_s=9.0)
        self.kit = TurnKit(renderer=renderer, parser=parser, budgets=budgets)

    def words(self) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randint(1, 9)))

    def reply(self, message: Any) -> Step:
        return Step(messages=[{"role": "user", "content": self.words()}])

    def says(self) -> str:
        text = self.random.choice(["", " ", "\n"]) + self.words()
        if self.random.random() < 0.3:
            text = f"<think>\n{self.words()}\n</think>\n\n{text}"
        return text + self.random.choice(["", "\n", "  "])

    def calls(self) -> str:
        return CALLS[self.family.about.get("template", self.family.name)].format(word=self.words().split()[0])

    def write(self) -> list[int]:
        """A turn's tokens; the sampler's end tokens include those of tool calls."""
        about, call = self.family.about, bool(self.host.tools) and self.random.random() < 0.5
        text = self.calls() if call else self.says()
        ends = CALL_ENDS if call else {}
        end = ends.get(self.family.name, about["end"])
        return [*self.family.tokenizer(text, add_special_tokens=False)["input_ids"], *self.family.ids([end])]


# granite3's template shows tools, but neither calls nor results; the others need vLLM's parser by name
NO_CALLS = ("granite3", "minimax-m2", "lfm2", "apertus")
CALL_ENDS = {"gpt-oss": "<|call|>", "glm4.5": "<|observation|>"}
JSON_CALL = '<tool_call>\n{{"name": "look_up","arguments": {{"word":"{word}"}}}}\n</tool_call>'
CALLS = {
    "qwen2.5": JSON_CALL,
    "qwen3": JSON_CALL,
    "exaone4": JSON_CALL,
    "qwen3.5": "<tool_call>\n<function=look_up>\n<parameter=word>\n{word}\n</parameter>\n</function>\n"
    "</tool_call>",
    "mistral-v11": '[TOOL_CALLS]look_up[ARGS]{{"word": "{word}"}}',
    "llama3.2": '{{"name": "look_up", "parameters": {{"word": "{word}"}}}}',
    "mistral-v3": '[TOOL_CALLS] [{{"name": "look_up", "arguments": {{"word": "{word}"}}}}]',
    "glm4.5": "\n<tool_call>look_up\n<arg_key>word</arg_key>\n<arg_value>{word}</arg_value>\n</tool_call>",
    "kimi-k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.look_up:0"
    '<|tool_call_argument_begin|>{{"word": "{word}"}}<|tool_call_end|><|tool_calls_section_end|>',
    "gpt-oss": ' to=functions.look_up<|channel|>commentary json<|message|>{{"word": "{word}"}}',
}


def run(talk: Any, kit: TurnKit | None = None, settings: SamplerSettings = SETTINGS) -> Rollout:
    """The trajectory in the order in which the loop of turns calls it."""
    row = PromptRow(id="p", messages=[{"role": "user", "content": "who?"}], prompt_ids=())
    session = talk.host.open({"prompt": list(row.messages)}, seed=0)
    kit = kit or talk.kit
    one = Trajectory(row, key="0/0", sample_index=0, settings=settings, kit=kit, session=session)
    one.begin(asyncio.run(session.reset()))
    while not one.reason:
        request = one.next_request(())
        ids = talk.write()
        cut = ids[: request.settings.max_new_tokens]
        talk.seen.append((request, cut))
        finished = FinishedSequence(
            id="0/0",
            token_ids=cut,
            logprobs=[-0.5] * len(cut),
            token_versions=[3] * len(cut),
            finish_reason="stop" if cut == ids else "length",
        )
        message = one.sampled(finished, kit.renderer.text(cut))
        if message is not None:
            one.answered(asyncio.run(session.step(message)))
    return one.rollout()


def saw(rollout: Rollout) -> Iterator[tuple[list[int], list[int]]]:
    """Per assistant turn the tokens before it, and its own, by the training samples."""
    parts: Sequence[Any] = rollout.segments or [rollout]
    for part in parts:
        ids, mask = list(part.completion_ids), list(part.sampled_mask)
        starts = [at for at, bit in enumerate(mask) if bit and (at == 0 or not mask[at - 1])]
        for start in starts:
            end = next((at for at in range(start, len(mask)) if not mask[at]), len(mask))
            yield [*part.prompt_ids, *ids[:start]], ids[start:end]


@pytest.mark.parametrize("name", list(ABOUT))
def test_what_is_trained_is_what_the_sampler_saw(name: str, chat_families: Any) -> None:
    splits = 0
    for seed in range(6):
        talk = Talk(chat_families[name], seed)
        rollout = run(talk)
        assert rollout.finish_reason == "turns", rollout.columns
        assert list(saw(rollout)) == [(list(request.prompt_ids), ids) for request, ids in talk.seen]
        assert rollout.logprobs == [-0.5 if bit else 0.0 for bit in rollout.sampled_mask]
        spans = [turn for turn in rollout.turns if turn.role == "assistant"]
        for turn, (_, ids) in zip(spans, talk.seen, strict=True):
            assert list(rollout.completion_ids[turn.start : turn.end]) == ids
        assert [id for part in rollout.segments for id in part.completion_ids] == (
            list(rollout.completion_ids) if rollout.segments else []
        )
        assert [at for part in rollout.segments for at in part.turns] == (
            [at for at, turn in enumerate(rollout.turns) if turn.role == "assistant"]
            if rollout.segments
            else []
        )
        splits += bool(rollout.segments)
    assert bool(splits) == (name in REWRITES)


@pytest.mark.parametrize("name", [name for name in ABOUT if name not in REWRITES])
def test_appended_turns_are_the_template_s_own_tokens(name: str, chat_families: Any) -> None:
    """Where the model writes as the template would, the tokens are those of the whole conversation."""
    family = chat_families[name]
    talk = Talk(family, 0)
    talk.host.tools = {}
    before, gap = ABOUT[name].get("before", "").strip("\n"), ABOUT[name].get("gap", "")
    end = family.ids([family.about["end"]])
    text = f"{before}I say yes{gap}"
    talk.write = lambda: [*family.tokenizer(text, add_special_tokens=False)["input_ids"], *end]  # type: ignore[method-assign]
    rollout = run(talk)
    history: list[Any] = [{"role": "user", "content": "who?"}]
    history += [{"role": turn.role, "content": turn.content.strip()} for turn in rollout.turns[:-2]]
    whole = family.template().render(history, where="", for_inference=True)
    seen, _ = list(saw(rollout))[-1]
    assert family.tokenizer.decode(seen) == whole


@pytest.mark.parametrize("name", list(ABOUT))
def test_text_is_encoded_as_the_tokenizer_does(name: str, chat_families: Any) -> None:
    """Also where somebody has set truncation, padding or the splitting of special tokens."""
    tokenizer = copy.deepcopy(chat_families[name].tokenizer)
    template, talk = ChatTemplate(tokenizer), Talk(chat_families[name], 1)
    texts = ["", " ", "\n\n", *(talk.says() + ABOUT[name]["end"] + talk.words() for _ in range(20))]
    expected = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert [template.encode(text) for text in texts] == expected
    assert [template.decode(ids) for ids in expected] == [tokenizer.decode(ids) for ids in expected]
    tokenizer.backend_tokenizer.enable_padding(length=40)
    tokenizer.backend_tokenizer.enable_truncation(3)
    assert [template.encode(text) for text in texts] == expected
    tokenizer.split_special_tokens = True
    expected = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert [template.encode(text) for text in texts] == expected
