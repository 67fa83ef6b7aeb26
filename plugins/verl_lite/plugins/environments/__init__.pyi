from .config import (
    EnvironmentConfig as EnvironmentConfig,
    ToolConfig as ToolConfig,
    ToolsConfig as ToolsConfig,
)
from .host import Environments as Environments
