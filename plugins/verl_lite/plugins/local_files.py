"""`use: ./my_rewards.py:brevity` and `use: package.module:name`: what a config names without a plugin."""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from verl_lite.errors import PluginError


@dataclass(frozen=True, slots=True)
class Named:
    """What a reference names: `name` in `source`, at `place`: a module, and the path in it."""

    value: Callable[..., Any]
    name: str
    source: str
    place: tuple[str, str]


class ByName:
    """A callable that pickle sends as its place in a module, whatever it is itself."""

    def __init__(self, module: str, path: str) -> None:
        self._place = module, path
        self.__module__ = module  # its code is hashed for the score cache
        self.__wrapped__ = _attribute(sys.modules[module], path)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.__wrapped__)

    def __call__(self, *arguments: object, **keywords: object) -> object:
        return self.__wrapped__(*arguments, **keywords)

    def __reduce__(self) -> tuple[type["ByName"], tuple[str, str]]:
        return ByName, self._place


def is_reference(use: str) -> bool:
    """Whether `use` names something in a file or module, rather than by its registered name."""
    return ":" in use or use.endswith(".py")


def named_object(use: str, reference: str, *, kind: str, peer: str = "") -> Named:
    """The function or class of `reference`, the part of `use` behind its prefix, wanted as a `kind`.

    With a `peer`, `package.module.function` is understood too. Raises PluginError that says what is wrong.
    """
    if reference.removesuffix(":").endswith(".py"):
        raise PluginError(_choices(use.removesuffix(":"), reference.removesuffix(":"), kind))
    source, _, name = reference.rpartition(":" if ":" in reference else ".")
    if peer and not (source and name):
        raise PluginError(f"use: {use}: expected {peer}:package.module.function or {peer}:./file.py:function")
    module = _imported(use, source)
    value = _named_in(module, use, source, name, kind)
    return Named(value, name.rpartition(".")[2], source, (module.__name__, name))


def _choices(use: str, source: str, kind: str) -> str:
    """What a file without `:name` may mean: what it declares as a `kind`, else its functions."""
    found = vars(_imported(use, source))
    own = [name for name, value in found.items() if getattr(value, "__module__", "") == found["__name__"]]
    names = [name for name in own if hasattr(found[name], f"__verl_lite_{kind}__")]
    names = names or [name for name in own if callable(found[name]) and name[0] != "_"]
    if not names:
        return f"use: {use}: expected {use}:function, and the file has no functions"
    return f"use: {use}: which {kind}? It has: {', '.join(f'{use}:{name}' for name in sorted(names))}"


def _imported(use: str, source: str) -> ModuleType:
    is_file = source.endswith(".py") or "/" in source or os.sep in source
    try:
        return import_file(Path(source)) if is_file else _import_from_working_folder(source)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"use: {use}: {source} cannot be imported: {one_line(error)}") from error


def _attribute(module: object, path: str) -> Any:
    """What `path` names, dots and all; None where there is no such thing."""
    return functools.reduce(lambda found, name: getattr(found, name, None), path.split("."), module)


def _named_in(module: ModuleType, use: str, source: str, name: str, kind: str) -> Callable[..., object]:
    call = _attribute(module, name)
    if call is None:
        functions = sorted(key for key, value in vars(module).items() if callable(value) and key[0] != "_")
        near = difflib.get_close_matches(name, functions, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(functions) or 'no functions'}"
        raise PluginError(f"use: {use}: {source} has no {name!r}: {hint}")
    if not callable(call):
        raise PluginError(
            f"use: {use}: {name} is {call!r:.80}, which is not a {kind}: expected a function or class"
            + function_within(call, use, module.__name__)
        )
    found: Callable[..., object] = call
    return found


def function_within(value: object, use: str, module: str) -> str:
    """A hint for an object that another library made of a function of `module`: where that is; or ""."""
    for key in sorted(dir(value), key=lambda key: (key[0] == "_", len(key))):
        try:
            found = getattr(value, key)
            is_one = inspect.isroutine(found) and found.__module__ == module
        except Exception:  # noqa: BLE001 - a property of somebody else's
            continue
        if is_one:
            bare = ".__wrapped__" if "self" in inspect.signature(found).parameters else ""
            return f"; it holds one: use {use}.{key}{bare}"
    return ""


def one_line(error: BaseException) -> str:
    """An exception as one line: the message of a PluginError, else with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _import_from_working_folder(name: str) -> ModuleType:
    """Import `name`, also from the working folder, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    return importlib.import_module(name)


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
