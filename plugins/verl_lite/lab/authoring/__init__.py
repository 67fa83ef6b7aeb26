"""For people who write rewards: start a plugin package, describe a reward, check its contract."""

from verl_lite.lab.authoring.checks import PluginReport, check_plugin
from verl_lite.lab.authoring.describe import OptionDescription, RewardDescription, describe_reward
from verl_lite.lab.authoring.template import PluginNames, write_plugin

__all__ = [
    "OptionDescription",
    "PluginNames",
    "PluginReport",
    "RewardDescription",
    "check_plugin",
    "describe_reward",
    "write_plugin",
]
