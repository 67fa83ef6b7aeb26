"""Describe a component so that another process finds the same reward, and find it there.

Functions and classes are sent by module and name, never as code. A module that a worker cannot import
by name (a script, a test file, a local file) is loaded from its path under that name.
"""

import importlib
import pickle
import pickletools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from verl_lite.errors import PluginError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.local_files import load_module


@dataclass(frozen=True, slots=True)
class Spec:
    """Something as it is sent: `modules` are (name, file) of everything the pickle refers to."""

    name: str
    modules: tuple[tuple[str, str], ...]
    pickled: bytes


def spec_of(component: Component) -> Spec:
    """The spec of `component`; raises PluginError where a worker could not find the reward."""
    parts = component.definition, component.options, component.timeout_s
    return packed(parts, name=component.name, what=f"reward {component.name!r}")


def packed(value: object, *, name: str, what: str) -> Spec:
    """`value` for another process; raises PluginError, calling it `what`, where that could not find it."""
    try:
        pickled = pickle.dumps(value, 5)
    except Exception as error:  # noqa: BLE001 - pickling runs code of the plugin, which may raise anything
        raise PluginError(
            f"{what} cannot be sent to a worker process: {error}; expected a function or "
            "class at the top level of a module, with options that pickle can store. Move it there, or "
            "declare it with isolate=False to run it in the trainer's own process"
        ) from None
    return Spec(name, tuple(_files(what, _module_names(pickled))), pickled)


def _module_names(pickled: bytes) -> list[str]:
    strings = {arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, str)}
    return sorted(strings & set(sys.modules))


def _files(what: str, names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        file = getattr(sys.modules[name], "__file__", None)
        if name == "__main__":
            spec = getattr(sys.modules[name], "__spec__", None)
            if file is None:
                raise PluginError(
                    f"{what} was defined in an interactive session: a worker process cannot find "
                    "it there. Put it into a file, or declare it with isolate=False"
                )
            if spec is not None and spec.name != "__main__":
                yield spec.name, str(Path(file).resolve())  # started with `python -m package.module`
        if file is not None:
            yield name, str(Path(file).resolve())


def load(spec: Spec) -> Component:
    """The component in this process, without its needs. Exceptions raised on import pass through."""
    definition, options, timeout_s = unpacked(spec)
    return Component(name=spec.name, definition=definition, options=options, timeout_s=timeout_s)


def unpacked(spec: Spec) -> Any:
    """What was packed, in this process. Exceptions raised on import pass through."""
    for name, file in spec.modules:
        if name not in sys.modules or name == "__main__":
            sys.modules[name] = _import(name, file)
    return pickle.loads(spec.pickled)


def _import(name: str, file: str) -> ModuleType:
    if name == "__main__":
        # as multiprocessing does: under another name, so that the script's main part does not run
        known = (module for module in sys.modules.values() if getattr(module, "__file__", None) == file)
        return next(known, None) or load_module("__mp_main__", Path(file))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the module is there, one that it imports is not
        return load_module(name, Path(file))
    found = getattr(module, "__file__", None)
    same = found is not None and Path(found).resolve() == Path(file)
    return module if same else load_module(name, Path(file))
