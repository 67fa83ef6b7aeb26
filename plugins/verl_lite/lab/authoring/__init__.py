"""For people who write rewards: start a package (template), describe a reward, check it (checks).

Names are imported when they are first used: worker processes load purity.py and nothing else.
"""

from typing import TYPE_CHECKING

from verl_lite.lazy import lazy_exports

if TYPE_CHECKING:
    from verl_lite.lab.authoring.checks import PluginReport, check_plugin
    from verl_lite.lab.authoring.describe import OptionDescription, RewardDescription, describe_reward
    from verl_lite.lab.authoring.template import PluginNames, write_plugin
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".checks": ("PluginReport", "check_plugin"),
            ".describe": ("OptionDescription", "RewardDescription", "describe_reward"),
            ".template": ("PluginNames", "write_plugin"),
        },
    )

__all__ = [
    "OptionDescription",
    "PluginNames",
    "PluginReport",
    "RewardDescription",
    "check_plugin",
    "describe_reward",
    "write_plugin",
]
