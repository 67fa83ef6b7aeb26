"""Find reward plugins: the entry-point group `verl_lite`, each entry point loaded on its own.

A plugin that fails to load never stops the others: it gets a status and a message, and is fatal only
if a config uses it. VERL_LITE_LOAD_PLUGINS lists the plugins (entry points or distributions, separated
by commas) that may load; empty means none. The built-in rewards always load.
"""

import difflib
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from verl_lite.errors import PluginError
from verl_lite.plugins import contract
from verl_lite.plugins.contract import (
    API_VERSION,
    BUILTIN_DISTRIBUTION,
    PROJECT,
    RewardDefinition,
    definition_of,
)
from verl_lite.plugins.local_files import import_file

LOAD_PLUGINS_ENV = "VERL_LITE_LOAD_PLUGINS"


class PluginStatus(StrEnum):
    OK = "ok"
    FAILED_IMPORT = "failed (import)"
    FAILED_SIGNATURE = "failed (signature)"
    DISABLED = "disabled"
    INCOMPATIBLE = "incompatible API version"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """One entry point and its status. `message` says in one line why it is not ok."""

    name: str
    distribution: str
    version: str
    module: str
    status: PluginStatus
    message: str = ""
    rewards: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        return self.status is PluginStatus.OK

    def content_hash(self) -> str:
        """SHA-256 of the plugin's Python files (its package, or its single file); "" if not ok."""
        return content_hash(self.module) if self.is_ok else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCatalog:
    """Every reward found, and the status of every plugin.

    `rewards` are the usable ones; a name that two plugins claim is in `clashes`, with both owners.
    """

    rewards: Mapping[str, RewardDefinition]
    plugins: tuple[PluginInfo, ...] = ()
    clashes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def get(self, use: str) -> RewardDefinition:
        """The reward that `use` names: a registered name, `./file.py:function`, `package.module:function`, or
        a function written for another trainer (`trl:package.module.function`, adapters/foreign.py), or a
        reward of a server (`http://host:port/name`, serving/remote.py).

        Raises PluginError that says why there is none, and lists those there are.
        """
        if use.startswith(("http://", "https://")):
            from verl_lite.plugins.serving.remote import remote_reward  # it imports the contract

            return remote_reward(use)
        if ":" in use or use.endswith(".py"):
            return _by_reference(use)
        if use in self.rewards:
            return self.rewards[use]
        if use in self.clashes:
            owners = " and ".join(self.clashes[use])
            raise PluginError(
                f"reward {use!r} is registered twice, by {owners}: uninstall or disable one of them"
            )
        raise PluginError(self._missing(use))

    def _missing(self, use: str) -> str:
        broken = [
            plugin for plugin in self.plugins if not plugin.is_ok and use in (plugin.name, *plugin.rewards)
        ]
        if broken:
            plugin = broken[0]
            where = f"plugin {plugin.name!r} of {plugin.distribution} {plugin.version}"
            return f"reward {use!r}: {where} is not usable: {plugin.status}: {plugin.message}"
        names = sorted(self.rewards)
        near = difflib.get_close_matches(use, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        failed = [f"{plugin.name} ({plugin.status})" for plugin in self.plugins if not plugin.is_ok]
        tail = f"; plugins that did not load: {', '.join(failed)}" if failed else ""
        return f"there is no reward {use!r}: {hint}There are: {', '.join(names) or 'none'}{tail}"

    def environment(self) -> dict[str, dict[str, str]]:
        """Version and content hash of each loaded plugin, for a run's environment.json."""
        return {
            plugin.name: {
                "distribution": plugin.distribution,
                "version": plugin.version,
                "content_hash": plugin.content_hash(),
            }
            for plugin in self.plugins
            if plugin.is_ok
        }


def find_rewards(*, load_plugins: bool = True, extra: Iterable[EntryPoint] = ()) -> RewardCatalog:
    """Load every plugin of this environment (only the built-ins with `load_plugins=False`).

    `extra` entry points are treated like installed ones, for tests.
    """
    found = [*entry_points(group=PROJECT), *extra]
    loaded = [_load(entry_point, load_plugins=load_plugins) for entry_point in sorted(found, key=_order)]
    owners: dict[str, list[RewardDefinition]] = {}
    for _, definitions in loaded:
        for definition in definitions:
            claims = owners.setdefault(definition.name, [])
            if all(definition.call is not known.call for known in claims):  # two entry points, one module
                claims.append(definition)
    return RewardCatalog(
        rewards={name: claims[0] for name, claims in sorted(owners.items()) if len(claims) == 1},
        plugins=tuple(info for info, _ in loaded),
        clashes={
            name: tuple(f"{claim.distribution} ({claim.call.__module__})" for claim in claims)
            for name, claims in owners.items()
            if len(claims) > 1
        },
    )


def _order(entry_point: EntryPoint) -> tuple[bool, str, str]:
    distribution = _distribution(entry_point)[0]
    return distribution != BUILTIN_DISTRIBUTION, distribution, entry_point.name


def _distribution(entry_point: EntryPoint) -> tuple[str, str]:
    dist = entry_point.dist
    return (dist.name, dist.version) if dist is not None else ("an unknown distribution", "")


def _load(entry_point: EntryPoint, *, load_plugins: bool) -> tuple[PluginInfo, list[RewardDefinition]]:
    distribution, version = _distribution(entry_point)

    def info(status: PluginStatus, message: str = "", rewards: Iterable[str] = ()) -> PluginInfo:
        return PluginInfo(
            name=entry_point.name,
            distribution=distribution,
            version=version,
            module=entry_point.module,
            status=status,
            message=message,
            rewards=tuple(rewards),
        )

    disabled = _why_disabled(entry_point.name, distribution, load_plugins=load_plugins)
    if disabled:
        return info(PluginStatus.DISABLED, disabled), []
    try:
        plugin = entry_point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  the border: one plugin never stops the others
        return info(PluginStatus.FAILED_IMPORT, _one_line(error)), []
    needed = getattr(plugin, "VERL_LITE_API_VERSION", API_VERSION)
    if needed != API_VERSION:
        message = f"written for version {needed!r} of the reward contract, this is {API_VERSION}"
        return info(PluginStatus.INCOMPATIBLE, message), []
    try:
        definitions = _registered(plugin, distribution)
    except (Exception, SystemExit) as error:  # noqa: BLE001  the border, as above
        return info(PluginStatus.FAILED_SIGNATURE, _one_line(error)), []
    return info(PluginStatus.OK, rewards=(definition.name for definition in definitions)), definitions


def _why_disabled(name: str, distribution: str, *, load_plugins: bool) -> str:
    if distribution == BUILTIN_DISTRIBUTION:
        return ""
    if not load_plugins:
        return "plugins were switched off (--no-plugins)"
    allowed = os.environ.get(LOAD_PLUGINS_ENV)
    if allowed is None or {name, distribution} & {part.strip() for part in allowed.split(",")}:
        return ""
    return f"not named in {LOAD_PLUGINS_ENV}={allowed!r}"


def _registered(plugin: Any, distribution: str) -> list[RewardDefinition]:
    """The rewards the plugin's hook registers. Raises PluginError or pluggy's error for a wrong hook."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(contract)
    manager.register(plugin)
    _check_hooks(manager, plugin)
    definitions: list[RewardDefinition] = []

    def register(reward: Callable[..., Any]) -> None:
        definition = replace(definition_of(reward), distribution=distribution)
        if any(definition.name == known.name for known in definitions):
            raise PluginError(f"it registers the reward {definition.name!r} twice")
        definitions.append(definition)

    manager.hook.register_rewards(register=register)
    if not definitions:
        raise PluginError("its register_rewards registered nothing: call register(fn) for each reward")
    return definitions


def _check_hooks(manager: pluggy.PluginManager, plugin: Any) -> None:
    """Report misspelt hooks and forgotten decorators, which pluggy would skip silently."""
    known = ["register_rewards"]
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec():
            near = difflib.get_close_matches(caller.name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the hooks are: {', '.join(known)}"
            raise PluginError(f"it implements the unknown hook {caller.name!r}: {hint}")
    if not callers:
        forgot = callable(getattr(plugin, "register_rewards", None))
        raise PluginError(
            "its register_rewards lacks the @hookimpl decorator"
            if forgot
            else "it has no hook: write `@hookimpl def register_rewards(register): register(my_reward)`"
        )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _by_reference(use: str) -> RewardDefinition:
    """The reward in `./file.py:name` or `package.module:name`; a plain function gets the defaults."""
    # imported here because it imports this module
    from verl_lite.plugins.adapters.foreign import PEERS, foreign_reward

    prefix, _, rest = use.partition(":")
    peer = prefix if prefix in PEERS else ""
    reference = rest if peer else use
    if reference.removesuffix(":").endswith(".py"):
        raise PluginError(_choices(use.removesuffix(":"), reference.removesuffix(":")))
    source, _, name = reference.rpartition(":" if ":" in reference else ".")
    if peer and not (source and name):
        raise PluginError(
            f"use: {use}: expected {prefix}:package.module.function or {prefix}:./file.py:function"
        )
    call = _named_in(_imported(use, source), use, source, name)
    if peer:
        return foreign_reward(peer, call, name=name, source=source)
    if not hasattr(call, "__verl_lite_reward__"):
        contract.reward(name)(call)
    return replace(definition_of(call), distribution=source)


def _choices(use: str, source: str) -> str:
    """What a file without `:name` may mean: its rewards, else its functions."""
    found = vars(_imported(use, source))
    own = [name for name, value in found.items() if getattr(value, "__module__", "") == found["__name__"]]
    names = [name for name in own if hasattr(found[name], "__verl_lite_reward__")]
    names = names or [name for name in own if callable(found[name]) and name[0] != "_"]
    if not names:
        return f"use: {use}: expected {use}:function, and the file has no functions"
    return f"use: {use}: which reward? It has: {', '.join(f'{use}:{name}' for name in sorted(names))}"


def _imported(use: str, source: str) -> Any:
    is_file = source.endswith(".py") or "/" in source or os.sep in source
    try:
        return import_file(Path(source)) if is_file else _import_from_working_folder(source)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"use: {use}: {source} cannot be imported: {_one_line(error)}") from error


def _named_in(module: Any, use: str, source: str, name: str) -> Any:
    call = getattr(module, name, None)
    if call is None:
        functions = sorted(key for key, value in vars(module).items() if callable(value) and key[0] != "_")
        near = difflib.get_close_matches(name, functions, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(functions) or 'no functions'}"
        raise PluginError(f"use: {use}: {source} has no {name!r}: {hint}")
    if not callable(call):
        raise PluginError(
            f"use: {use}: {name} is {call!r:.80}, which is not a reward: expected a function or class"
        )
    return call


def _import_from_working_folder(name: str) -> Any:
    """Import `name`, also from the working folder, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    return importlib.import_module(name)


def content_hash(module_name: str) -> str:
    """SHA-256 of the Python files of the module's package, or of its single file.

    "" for a module that has no file or was not imported.
    """
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    origin = Path(file)
    root = origin.parent
    in_package = module is not None and bool(module.__package__) and (root / "__init__.py").exists()
    files = sorted(root.rglob("*.py")) if in_package else [origin]
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
