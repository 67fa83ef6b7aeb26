"""What a name on the command line means: a reward, an environment or a tool."""

from verl_lite.errors import ConfigError
from verl_lite.plugins import EnvironmentDefinition, RewardCatalog, ToolDefinition
from verl_lite.plugins.environments.binding import find_environment, find_tool
from verl_lite.plugins.local_files import is_reference, named_object

KINDS = ("reward", "environment", "tool")


def other_kind(use: str, kind: str, catalog: RewardCatalog) -> EnvironmentDefinition | ToolDefinition | None:
    """The environment or tool that `use` names; None where it is a reward, or nothing.

    A name of several kinds is a reward unless `kind` says which. Raises ConfigError for an unknown kind.
    """
    if kind and kind not in KINDS:
        raise ConfigError(f"--kind {kind}: expected {', '.join(KINDS)}")
    if kind == "environment" or (not kind and _is(use, "environment", catalog)):
        return find_environment(use, catalog)
    if kind == "tool" or (not kind and _is(use, "tool", catalog)):
        return find_tool(use, catalog)
    return None


def _is(use: str, kind: str, catalog: RewardCatalog) -> bool:
    if use.startswith(("openenv:", "verifiers:")):
        return False  # `verifiers:` may be a reward too: --kind says
    if is_reference(use):
        if use.startswith(("http://", "https://")) or use.removesuffix(":").endswith(".py"):
            return False
        prefix = use.partition(":")[0]
        if prefix in ("trl", "verl", "openrlhf"):
            return False
        return hasattr(named_object(use, use, kind=kind).value, f"__verl_lite_{kind}__")
    return use in {"environment": catalog.environments, "tool": catalog.tools}[kind] and (
        use not in catalog.rewards
    )
