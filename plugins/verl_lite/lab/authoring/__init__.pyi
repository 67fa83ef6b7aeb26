from .checks import PluginReport as PluginReport, check_plugin as check_plugin
from .describe import Description as Description, describe as describe
from .template import PluginNames as PluginNames, write_plugin as write_plugin
