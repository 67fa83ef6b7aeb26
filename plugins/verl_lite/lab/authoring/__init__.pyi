from .checks import PluginReport as PluginReport, check_plugin as check_plugin
from .describe import (
    RewardDescription as RewardDescription,
    describe_reward as describe_reward,
)
from .template import PluginNames as PluginNames, write_plugin as write_plugin
