"""Faults in SFT's rows and masks, collected and shown decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from verl_lite.errors import DataError


class FaultKind(StrEnum):
    PROMPT_TRAINED = "prompt tokens would be trained on"
    RESPONSE_LOST = "tokens of the response would not be trained on"
    TEMPLATE_DIFFERS = "the template renders the prompt of inference and of training differently"
    LOST = "the template drops a part of the answer, so it would not be trained on"
    TOKENS_DIFFER = "the prompt has other tokens in training than at inference"
    NO_END = "the response has no end-of-turn token"
    EMPTY = "nothing of the response would be trained on but its end"
    PADDING = "padding tokens are in the row"
    DOUBLE_START = "the row begins with the start token twice"


ADVICE = {
    FaultKind.PROMPT_TRAINED: "set sft.mask: prompt, which trains on the response alone; or, in the chat "
    "template, move {% generation %} behind the header of the turn",
    FaultKind.RESPONSE_LOST: "let {% generation %} ... {% endgeneration %} enclose the whole response and "
    "its end of turn, or set sft.mask: prompt",
    FaultKind.TEMPLATE_DIFFERS: "add_generation_prompt must add exactly how an assistant turn begins: "
    "otherwise the model is trained on text it never continues at inference. Where it opens reasoning that "
    "the answers lack: write the reasoning into them (it ends with </think>), or set sft.without_reasoning: "
    "close, which trains on an empty block, or name a template that opens none in data.chat_template",
    FaultKind.LOST: "put what is in reasoning_content into the content, as the model writes it "
    "(<think>...</think>); or name a template that keeps it in data.chat_template",
    FaultKind.TOKENS_DIFFER: "let the generation prompt end with a separate token (a special token or a line "
    "break), so that no token spans prompt and response",
    FaultKind.NO_END: "the model would never learn to stop: put the end-of-turn token in the template, or "
    "name one in sft.end_of_turn, which is then written behind every answer",
    FaultKind.EMPTY: "remove empty answers; where the evidence shows an answer, let {% generation %} "
    "in the template enclose it (or set sft.mask: prompt), and no rule of sft.loss.spans weigh it 0",
    FaultKind.PADDING: "remove the padding from the column: rows are plain text",
    FaultKind.DOUBLE_START: "remove the start token from the column: the template writes it",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one row. `evidence` is the decoded text that shows it."""

    kind: FaultKind
    row: str
    evidence: str


def raise_faults(faults: Sequence[Fault], *, source: str) -> None:
    """Raise DataError with every kind of fault, its number of rows, and the first evidence."""
    if not faults:
        return
    lines = []
    for kind in FaultKind:
        found = [fault for fault in faults if fault.kind == kind]
        if found:
            rows = len({fault.row for fault in found})
            lines.append(
                f"  {kind} ({rows} {'row' if rows == 1 else 'rows'})\n"
                f"    row {found[0].row}: {found[0].evidence}\n    {ADVICE[kind]}"
            )
    raise DataError(f"{source}: SFT would train on the wrong tokens\n" + "\n".join(lines))
