"""Generates the table of chat templates in docs/data.md by trying each template of the tests' families.

    python scripts/chat_templates_page.py           write the page
    python scripts/chat_templates_page.py --check   exit code 1 if it is stale

The table stands between `<!-- templates -->` and `<!-- end -->`.
"""

import importlib.util
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

from verl_lite.engine.config import SFTConfig, SFTRowsConfig
from verl_lite.engine.model import end_of_answer, note_on_end
from verl_lite.engine.model.chat_template import opened_block
from verl_lite.engine.sft import Conversation, ExampleBuilder, FaultKind, ResponseFinder
from verl_lite.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "data.md"
PART = re.compile(r"(?<=<!-- templates -->\n).*?(?=<!-- end -->)", re.DOTALL)
COLUMNS = (
    "template",
    "ends an answer",
    "system",
    "turns",
    "tools",
    "reasoning of earlier turns",
    "SFT",
    "date",
)
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def main() -> int:
    spec = importlib.util.spec_from_file_location("families", ROOT / "tests" / "engine" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["families"] = module
    spec.loader.exec_module(module)
    text = PAGE.read_text()
    fresh = PART.sub(lambda _: table(module.make_families()), text)
    if fresh == text:
        return 0
    if "--check" in sys.argv[1:]:
        print(f"{PAGE.name} is stale: run python scripts/chat_templates_page.py")
        return 1
    PAGE.write_text(fresh)
    return 0


def table(families: dict[str, Any]) -> str:
    """A row per family; columns are what its template does when it is tried."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(row(family) for family in families.values())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(family: Any) -> tuple[str, ...]:
    return (
        f"`{family.name}`",
        _end(family),
        _shown(family, chat("system", "user", "assistant", "user")),
        "any" if _shown(family, chat("user", "user")) == "yes" else "must alternate",
        _shown(family, chat("user"), tools=[TOOL]),
        _reasoning(family),
        _sft(family),
        _date(family),
    )


def chat(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"w{at}"} for at, role in enumerate(roles)]


def _end(family: Any) -> str:
    tokenizer, named = family.tokenizer, family.about.get("named", ())
    end = tokenizer.convert_ids_to_tokens(end_of_answer(tokenizer, family.end_ids, named))
    model = type("Model", (), {"generation_config": type("Ends", (), {"eos_token_id": None})})
    known = "" if not note_on_end(tokenizer, model) else ", if its eos or `generation_config.json` says so"
    if named:
        known = ", by `sft.end_of_turn`"
    return f"`{end}`".replace("|", "\\|") + known


def _shown(family: Any, messages: Any, **options: Any) -> str:
    """Whether the template shows these messages: yes, or why not."""
    try:
        text = family.template().render(messages, where="", for_inference=True, **options)
    except DataError as error:
        return "refused" if "refuses" in str(error) else "left out: refused"
    return "yes" if text.find("w0") <= text.find("w1") or len(messages) < 2 else "moved"


def _reasoning(family: Any) -> str:
    template = family.template()
    earlier = [*chat("user"), {"role": "assistant", "content": "<think>\nbecause\n</think>\n\nw1"}]
    kept = "because" in template.render([*earlier, *chat("user")], where="", for_inference=True)
    tag = opened_block(template.render(chat("user"), where="", for_inference=True))
    return ("kept" if kept else "removed") + (f"; the prompt opens `{tag}`" if tag else "")


def _sft(family: Any) -> str:
    """How a chat with two answers is trained on, and the settings it needs."""
    named, messages = family.about.get("named", ()), chat("user", "assistant", "user", "assistant")
    tries = {
        "": {},
        "`sft.mask: prompt`": {"mask": "prompt"},
        "`sft.without_reasoning: close`": {"closes": True},
    }
    for setting, options in tries.items():
        closes = bool(options.pop("closes", False))
        finder = ResponseFinder(
            family.template(), end_ids=family.end_ids, named=named, closes_reasoning=closes
        )
        builder = ExampleBuilder(finder, SFTConfig(steps=1, **options), max_tokens=10_000)
        found = list(builder.from_chat(Conversation(id="0", messages=messages), SFTRowsConfig()))
        if not builder.faults:
            rows = "one row" if len(found) == 1 else "a row per answer"
            return f"{rows}, with {setting}" if setting else rows
    return "refused: " + str(FaultKind(builder.faults[0].kind))


def _date(family: Any) -> str:
    texts = {family.template(today=date(2031, month, 5)).render(chat("user"), where="") for month in (1, 2)}
    return "written" if len(texts) > 1 else ""


if __name__ == "__main__":
    sys.exit(main())
