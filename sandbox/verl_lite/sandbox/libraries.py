"""Libraries that programs of a sandbox find already imported: by name, or as a named set."""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence

from verl_lite.errors import SandboxError

LIBRARY_SETS = {
    "arrays": ("numpy",),
    "contests": ("sortedcontainers", "numpy"),
    "data": ("numpy", "pandas"),
    "science": ("numpy", "scipy", "sympy", "networkx"),
}


def find_libraries(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules that `names` stand for, and the folders of this environment that they are in.

    Raises SandboxError naming those that are not installed, for a program would get a wrong verdict.
    """
    modules = list(dict.fromkeys(module for name in names for module in LIBRARY_SETS.get(name, (name,))))
    folders, missing = [], []
    for module in modules:
        origin = _folder_of(module)
        if origin is None:
            missing.append(module)
        elif origin not in folders:
            folders.append(origin)
    if missing:
        sets = ", ".join(LIBRARY_SETS)
        raise SandboxError(
            f"libraries: {', '.join(missing)} not installed in this environment: `pip install` them here, "
            f"or name others (or one of the sets {sets})"
        )
    standard = os.path.realpath(sysconfig.get_path("stdlib"))
    return modules, [folder for folder in folders if folder != standard]


def missing_modules(imported: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Those of the top-level modules `imported` that a program with `folders` on its path does not find."""
    return [
        name
        for name in dict.fromkeys(name.partition(".")[0] for name in imported)
        if name not in sys.stdlib_module_names and not any(_holds(folder, name) for folder in folders)
    ]


def _folder_of(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    folder = os.path.dirname(os.path.realpath(spec.origin))
    return os.path.dirname(folder) if spec.submodule_search_locations else folder


def _holds(folder: str, name: str) -> bool:
    if os.path.isdir(os.path.join(folder, name)):
        return True
    return any(entry.split(".")[0] == name for entry in os.listdir(folder) if entry.endswith((".py", ".so")))
