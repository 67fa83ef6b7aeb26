"""Rewards in a plain file (`use: ./my_rewards.py:brevity`): no packaging, for quick trials."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from verl_lite.errors import PluginError


def import_file(path: Path) -> ModuleType:
    """The module in the Python file `path`, loaded once per process under a unique name.

    Raises PluginError if the file is missing; exceptions raised by the file itself pass through.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise PluginError(f"there is no file {path}; a relative path starts at the working folder")
    name = f"verl_lite_local_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return sys.modules.get(name) or load_module(name, path)


def load_module(name: str, path: Path) -> ModuleType:
    """The module in the file `path`, loaded under `name`. Raises PluginError for other than Python files."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle and dataclasses look the module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
