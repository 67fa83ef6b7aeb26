"""The `data` section of the config: where rows come from, and how the chat template shows them."""

import datetime
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, model_validator

from verl_lite.plugins.config_file import ConfigModel

Task = Literal["arithmetic", "sums", "word_problems"]


class DatasetConfig(ConfigModel):
    """Rows to sample prompts from: a local file, a data set of the hub, or a generated task.

    path              a .jsonl or .parquet file
    hub, hub_subset   a data set of the hub, read with `datasets`
    task              `num_rows` generated rows: "arithmetic" (two-digit additions for the tiny model), "sums"
                      (What is 41 - 17?) or "word_problems" (two to four steps)
    split             the split: the hub's name for it, or "train" or "held_out" of the task
    prompt            the column with the user's message (text) or the chat (messages)
    prompt_template   text with {column} placeholders, instead of the plain column
    system_prompt     put before the prompt unless the chat has a system message
    tools             the column with the tools for the chat template, where a row has one
    reference         the column with the right answer; "" for none
    reference_after   keep only the part of the reference after the last occurrence of this text ("####")
    num_rows          use this many rows from the start (0: all)
    overlong          how to treat prompts longer than rollout.max_prompt_tokens
    ignore            columns to leave out, as if the rows did not have them
    """

    path: str | None = None
    hub: str | None = None
    hub_subset: str | None = None
    task: Task | None = None
    split: str = "train"
    prompt: str = "question"
    prompt_template: str = ""
    system_prompt: str = ""
    tools: str = "tools"
    reference: str = "reference"
    reference_after: str = ""
    num_rows: NonNegativeInt = 0
    overlong: Literal["error", "drop"] = "error"
    ignore: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetConfig":
        given = [name for name in ("path", "hub", "task") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of 'path', 'hub' and 'task', got {given or 'none'}")
        if self.path is not None and not self.path.endswith((".jsonl", ".parquet")):
            raise ValueError(f"path={self.path!r}: expected a .jsonl or .parquet file")
        if self.task is not None and self.split not in ("train", "held_out"):
            raise ValueError(f"split={self.split!r}: the task has 'train' and 'held_out'")
        return self


class ChatConfig(ConfigModel):
    """How the chat template is used, in every stage.

    chat_template    a file with the template to use instead of the model's own
    template_kwargs  variables of the template, such as {enable_thinking: false}
    date             the date that templates write into the prompt (2026-07-31); unset: the day a run began
    """

    chat_template: str | None = None
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    date: datetime.date | None = None


class DataConfig(ChatConfig):
    """`train` feeds the updates; `held_out` is never trained on and measures accuracy."""

    train: DatasetConfig
    held_out: DatasetConfig | None = None
