"""The sections `environment:` and `tools:` of a config. No torch: offline tools read them too."""

from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue

from verl_lite.plugins.config_file import ConfigModel


class EnvironmentConfig(ConfigModel):
    """Which environment answers the model, and the budgets of one trajectory.

    Without `use` the tools alone are the environment: a message without a tool call ends the trajectory.
    """

    use: str = Field(
        default="",
        description="a registered environment, ./file.py:Class, package.module:Class, verifiers:NAME or "
        "openenv:http://host:port; empty for tools alone",
    )
    options: dict[str, JsonValue] = Field(default_factory=dict, description="of the environment")
    timeout_s: float | None = Field(
        default=None, gt=0, description="of one reset or step; by default what the environment declares"
    )
    max_turns: int = Field(default=16, gt=0, description="assistant messages per trajectory")
    max_tool_s: float = Field(
        default=120.0, gt=0, description="seconds that a trajectory may spend in tools and its environment"
    )
    workers: int = Field(
        default=256, gt=0, description="processes at most, for environments and for tools each"
    )
    max_result_chars: int = Field(
        default=16_000, gt=0, description="a longer tool result or environment message is cut"
    )


class ToolConfig(ConfigModel):
    """One tool. In a list, a text stands for `{use: text}`."""

    use: str = Field(description="a registered tool, ./file.py:function or package.module:function")
    name: str = Field(
        default="",
        description="what the model calls it; by default the tool's own name",
        pattern=r"^[A-Za-z0-9_-]*$",
    )
    options: dict[str, JsonValue] = Field(default_factory=dict, description="of a tool that has some")
    timeout_s: float | None = Field(
        default=None, gt=0, description="of one call; by default what the tool declares"
    )


def _short_form(value: object) -> object:
    return {"use": value} if isinstance(value, str) else value


ToolsConfig = tuple[Annotated[ToolConfig, BeforeValidator(_short_form)], ...]
