"""The `distillation` section: teachers that the policy learns from, on its own rollouts or on saved ones."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from verl_lite.engine.config.sft import RowsPerStepConfig
from verl_lite.plugins.composite.schedule import Weight, weights_of
from verl_lite.plugins.config_file import ConfigModel


class TeacherConfig(ConfigModel):
    """A model with the policy's tokenizer; with neither `model` nor `server`, the policy itself."""

    model: str = ""
    """A folder or hub id, loaded beside the learner."""
    server: str = Field(default="", pattern=r"^(https?://.*)?$")
    """The address of a running `vllm serve`, which gives log-probabilities of prompts."""
    api_key_env: str = "VLLM_API_KEY"
    """The environment variable with the server's API key, if it needs one."""
    sources: tuple[str, ...] = ()
    """The data sources it teaches; empty: all that no other teacher names."""
    hint: str = ""
    """Text that only the teacher reads, after the last message: {columns} of the row, {reference}, {feedback}
    (the reasons that rewards gave), {solution} (the group's best other completion)."""

    @property
    def is_self(self) -> bool:
        return not self.model and not self.server

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.model and self.server:
            raise ValueError("a teacher has a model or a server, not both")
        if self.is_self and not self.hint:
            raise ValueError(
                "a teacher without model and server is the policy itself, which teaches only with a hint"
            )
        return self


class SavedRolloutsConfig(RowsPerStepConfig):
    """A teacher's saved rollouts beside the policy's own: KL(teacher, policy) at their tokens.

    With a model or server as teacher and estimate top_k or full it is computed; else it is the cross-entropy
    of the tokens, which is the same but for a constant.
    """

    path: str | tuple[str, ...]
    """Files, folders, globs or runs with rollouts, in any format that `verl-lite score` reads; token ids are
    taken as they are, and text without ids is read as SFT does."""


class DistillationConfig(ConfigModel):
    """Reverse KL(policy, teacher) at every token of the policy's own rollouts."""

    teachers: dict[str, TeacherConfig] = Field(default_factory=dict)
    """The teachers by name."""
    rollouts: SavedRolloutsConfig | None = None
    """Saved rollouts of teachers to learn from as well; unset: none."""
    weight: Weight = 1.0
    """Weight of the loss component, or per nat of the reward; constant or a schedule over steps. At 0 the
    policy's own rollouts are not distilled."""
    placement: Literal["loss", "reward"] = "loss"
    """loss: a component of its own. reward: log p_teacher - log p_sampler is added to each advantage."""
    estimate: Literal["sampled", "top_k", "full"] = "sampled"
    """sampled: from the sampled token alone. top_k: over the teacher's `top_k` tokens and all others
    together. full: over the vocabulary."""
    top_k: PositiveInt = 64
    """top_k: how many of the teacher's tokens."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if min(weights_of(self.weight)) < 0:
            raise ValueError(f"distillation.weight={self.weight}: expected at least 0")
        if self.placement == "reward" and self.estimate != "sampled":
            raise ValueError(
                f"distillation.placement=reward rewards the sampled token, so estimate={self.estimate} would "
                "be computed and not used: leave it out, or use placement: loss"
            )
        if self.estimate == "full" and any(teacher.server for teacher in self.teachers.values()):
            raise ValueError(
                "distillation.estimate=full needs the whole distribution, which a server does not give: use "
                "top_k or sampled, or load the teacher from a folder"
            )
        if self.rollouts is not None and self.estimate != "sampled":
            for name, teacher in self.teachers.items():
                if teacher.is_self:
                    raise ValueError(
                        f"distillation.rollouts are another model's, but teachers.{name} is the policy: name "
                        "a model or a server, or set estimate: sampled"
                    )
        self._check_sources()
        return self

    def _check_sources(self) -> None:
        named = [source for teacher in self.teachers.values() for source in teacher.sources or ("",)]
        twice = sorted({source or "any source" for source in named if named.count(source) > 1})
        if twice:
            raise ValueError(f"distillation.teachers: {', '.join(twice)}: more than one teacher for it")

    def teacher_of(self, source: str) -> str:
        """The name of the teacher of a data source; "" if it has none."""
        fallback = ""
        for name, teacher in self.teachers.items():
            if source in teacher.sources:
                return name
            fallback = fallback if teacher.sources else name
        return fallback

    def check_rollout(self, *, temperature: float, max_lag: int, num_ranks: int) -> None:
        """Raise ValueError, with the reason, for what the rest of the config rules out."""
        for name, teacher in self.teachers.items():
            if teacher.server and temperature != 1.0:
                raise ValueError(
                    f"rollout.temperature={temperature}: the server of distillation.teachers.{name} gives "
                    "log-probabilities at temperature 1, with which the policy's are compared: set it to 1"
                )
            if teacher.is_self and num_ranks > 1:
                raise ValueError(
                    f"learner.num_ranks={num_ranks}: distillation.teachers.{name} is the policy itself, "
                    "which no single process holds: name a model folder, or use one rank"
                )
        if self.teachers and self.placement == "reward" and max_lag > 1:
            raise ValueError(
                "distillation.placement=reward compares the teacher with the policy that sampled, which is "
                f"up to asynchrony.max_lag={max_lag} updates old: use placement: loss"
            )
