"""The `data` section of the config: where rows come from, and how the chat template shows them."""

import datetime
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue, NonNegativeInt, model_validator

from verl_lite.engine.config.curriculum import CurriculumConfig
from verl_lite.lab.formats import DATA_SETS, DataSet
from verl_lite.plugins.composite.schedule import Weight, weights_of
from verl_lite.plugins.config_file import ConfigModel

TASKS = ("arithmetic", "sums", "word_problems", "products")
GYM = "reasoning_gym/"


class RowsConfig(ConfigModel):
    """Rows in files or on the hub, and how their prompts become chats."""

    path: str | tuple[str, ...] | None = None
    """A file (.jsonl, .json, .csv, .tsv, .parquet, .arrow; text also compressed), a folder of them, a folder
    saved by `datasets`, a glob, or a list of these."""
    hub: str | None = None
    """A data set of the hub by its id, read with `datasets`."""
    hub_subset: str | None = None
    """The subset (configuration) of the hub's data set."""
    split: str = "train"
    """The split: the hub's name for it, train or held_out of a task, or which files of a folder
    (train-00000.parquet)."""
    prompt: str = "question"
    """The column with the user's message (text) or the chat (messages). Dots lead into nested columns, here
    and in the other columns."""
    prompt_template: str = ""
    """Text with {column} placeholders, instead of the plain column."""
    system_prompt: str = ""
    """Put before the prompt unless the chat has a system message, or the row one in a column `system` or
    `system_prompt`."""
    num_rows: NonNegativeInt = 0
    """Use this many rows from the start; 0: all."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out, as if the rows did not have them."""


class DatasetConfig(RowsConfig):
    """Rows to sample prompts from: a local file, a data set of the hub, or a generated task."""

    task: str | None = None
    """Generate `num_rows` rows of this task instead of reading a file."""
    task_options: dict[str, JsonValue] = Field(default_factory=dict)
    """The settings of a reasoning_gym task, such as {min_terms: 2, max_terms: 3}."""
    format: DataSet | None = None
    """Whose columns these are: sets `prompt` and `reference` where they are not given."""
    tools: str = "tools"
    """The column with the tools for the chat template, where a row has one."""
    reference: str = "reference"
    """The column with the right answer; "" for none."""
    reference_after: str = ""
    """Keep only what follows the last occurrence of this text in the reference, such as "####" for GSM8K."""
    overlong: Literal["error", "drop"] = "error"
    """What a prompt longer than rollout.max_prompt_tokens is: an error before the run starts, or dropped and
    counted."""

    @model_validator(mode="before")
    @classmethod
    def _columns_of_format(cls, given: Any) -> Any:
        fields = DATA_SETS.get(str(given.get("format"))) if isinstance(given, Mapping) else None
        if fields is None:
            return given
        named = {"prompt": fields.prompt or fields.messages, "reference": fields.reference}
        return {**{name: next(iter(paths), "") for name, paths in named.items()}, **given}

    @property
    def source(self) -> str:
        """What to call the data set in messages."""
        if self.task is not None:
            return f"the task {self.task}"
        if self.hub is not None:
            return f"{self.hub} ({self.split})"
        return self.path if isinstance(self.path, str) else ", ".join(self.path or ())

    @property
    def has_whole_chats(self) -> bool:
        """Whether the prompt's column holds chats that end with the answer."""
        return self.format is not None and not DATA_SETS[self.format].prompt

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetConfig":
        given = [name for name in ("path", "hub", "task") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of 'path', 'hub' and 'task', got {given or 'none'}")
        if self.task is not None and self.split not in ("train", "held_out"):
            raise ValueError(f"split={self.split!r}: the task has 'train' and 'held_out'")
        is_gym = self.task is not None and self.task.startswith(GYM)
        if self.task is not None and self.task not in TASKS and not is_gym:
            raise ValueError(f"task={self.task!r}: expected one of {', '.join(TASKS)}, {GYM}NAME")
        if self.task_options and not is_gym:
            raise ValueError(f"task_options are for {GYM}NAME, not {self.source}")
        return self


class TrainSourceConfig(DatasetConfig):
    """One of several data sets to train on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Becomes the rows' `data_source`, unless they have that column: a reward with `sources: [name]` scores
    only these rows."""
    weight: Weight = 1.0
    """Its share of the prompts of every step, relative to the others'; constant or a schedule over steps."""

    @model_validator(mode="after")
    def _has_weight(self) -> "TrainSourceConfig":
        if min(weights_of(self.weight)) <= 0:
            raise ValueError(
                f"the data set {self.name} has weight {self.weight}: expected above 0 at every step"
            )
        return self


class ChatConfig(ConfigModel):
    """How the chat template is used, in every stage."""

    chat_template: str | None = None
    """A file with the chat template to use instead of the model's own."""
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template, such as {enable_thinking: false}."""
    date: datetime.date | None = None
    """The date that templates write into the prompt (2026-07-31). Unset: the day the run began, also after a
    resume."""


class DataConfig(ChatConfig):
    """`train` (one data set or several) feeds the updates; `held_out` is never trained on, and measures
    accuracy.
    """

    train: DatasetConfig | tuple[TrainSourceConfig, ...]
    """The prompts to train on: one data set, or a list of several with names and weights."""
    held_out: DatasetConfig | None = None
    """The prompts that accuracy is measured on; never trained on."""
    curriculum: CurriculumConfig | None = None
    """Which prompts a step takes, by how often they were solved."""

    @model_validator(mode="after")
    def _names_differ(self) -> "DataConfig":
        names = [source.name for source in self.train] if isinstance(self.train, tuple) else ["one"]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"train: expected data sets with names of their own, got {names}")
        return self
