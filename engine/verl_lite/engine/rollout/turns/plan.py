"""The environment and the tools of a config: checked against the chat template, then put over a sampler."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.rollout.turns.rendering import TurnRenderer
from verl_lite.engine.rollout.turns.sampler import InnerSampler, TurnsSampler
from verl_lite.engine.rollout.turns.tool_calls import choose_tool_parser
from verl_lite.engine.rollout.turns.trajectory import TurnBudgets, TurnKit
from verl_lite.engine.types import PromptRow, Sampler
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import Message, RewardCatalog, ToolCall, ToolSchema
from verl_lite.plugins.composite.config import ScoringConfig
from verl_lite.plugins.environments import EnvironmentConfig, Environments, ToolsConfig


class HasTurns(Protocol):
    """A config with the sections that turns follow from."""

    @property
    def environment(self) -> EnvironmentConfig | None: ...

    @property
    def tools(self) -> ToolsConfig: ...

    @property
    def rollout(self) -> RolloutConfig: ...

    @property
    def scoring(self) -> ScoringConfig: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsPlan:
    """The checked turns of a run. `tools` are those that every prompt shows."""

    environment: EnvironmentConfig
    config_tools: ToolsConfig
    tools: Sequence[ToolSchema]
    catalog: RewardCatalog
    kit: TurnKit

    def host(self, *, debug_inline: bool = False) -> Environments:
        """The environment and the tools, ready to be asked; the caller closes them."""
        return Environments(
            self.environment, self.config_tools, catalog=self.catalog, debug_inline=debug_inline
        )

    def check(self, row: PromptRow) -> None:
        """Open the environment on one row: it starts, and the template shows its prompt and its tools.

        Raises ConfigError, and EnvironmentFailed if it does not start.
        """
        if not self.environment.use:
            return
        with closing(self.host()) as host:
            session = host.open({**row.columns, "prompt": list(row.messages)}, seed=0)

            async def opened() -> Sequence[Message]:
                try:
                    return await session.reset()
                finally:
                    await session.close()

            messages = asyncio.run(opened())
            tools = session.tools
        _check_template(self.kit.renderer, messages, tools)
        if tools and self.kit.parser is None:
            names = ", ".join(tool["function"]["name"] for tool in tools)
            raise ConfigError(
                f"environment.use={self.environment.use} offers the tools {names}, but "
                "rollout.tool_parser=auto finds no known way to write calls in this chat template: name one"
            )


def plan_turns(
    config: HasTurns, template: ChatTemplate, catalog: RewardCatalog, *, end_ids: Sequence[int]
) -> TurnsPlan | None:
    """The turns of `config`; None if it has single completions.

    Raises ConfigError or PluginError for an environment or tool that there is not, and for a chat template
    without tools.
    """
    if config.environment is None and not config.tools:
        return None
    environment, rollout = config.environment or EnvironmentConfig(), config.rollout
    with closing(Environments(environment, config.tools, catalog=catalog)) as host:
        tools = host.schemas
    renderer = TurnRenderer(template, end_ids=end_ids)
    if tools:
        _check_template(renderer, [Message(role="user", content="question")], tools)
    try:
        parser = choose_tool_parser(rollout.tool_parser, template.tokenizer)
    except ConfigError:
        if tools or rollout.tool_parser != "auto":  # an environment without tools needs none
            raise
        parser = None
    budgets = TurnBudgets(
        context_tokens=rollout.context_tokens,
        max_turns=environment.max_turns,
        max_tool_s=environment.max_tool_s,
        max_turn_tokens=rollout.max_turn_tokens,
    )
    max_failed = config.scoring.max_error_fraction
    kit = TurnKit(renderer=renderer, parser=parser, budgets=budgets, max_failed=max_failed)
    return TurnsPlan(
        environment=environment, config_tools=config.tools, tools=tools, catalog=catalog, kit=kit
    )


def with_turns(
    sampler: InnerSampler, plan: TurnsPlan | None, *, in_step: bool = False, debug_inline: bool = False
) -> Sampler:
    """The sampler itself, or one of trajectories over it; see TurnsSampler."""
    if plan is None:
        return sampler
    host = plan.host(debug_inline=debug_inline)
    return TurnsSampler(sampler, host, plan.kit, in_step=in_step)


def _check_template(renderer: TurnRenderer, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> None:
    """Refuse a template that does not show the tools, a call, or its result."""
    shown: list[Message] = list(messages)
    try:
        prompt = renderer.first(shown, tools)
        if not tools:
            return
        name = tools[0]["function"]["name"]
        call = ToolCall(id="call00000", type="function", function={"name": name, "arguments": "{}"})
        asks = Message(role="assistant", content="", tool_calls=[call])
        result = Message(role="tool", content="verlresult", tool_call_id="call00000", name=name)
        after = renderer.next(prompt, shown, asks, [result], tools, said="", sampled_ids=())
    except DataError as error:
        raise ConfigError(_NO_TOOLS.format(why=str(error))) from None
    if "verlresult" not in after.text:
        raise ConfigError(_NO_TOOLS.format(why="it does not show what a tool answered"))


_NO_TOOLS = (
    "the chat template of this model cannot show a conversation with this environment or these tools: {why}; "
    "choose a model whose template has tools, or name such a template in data.chat_template"
)
