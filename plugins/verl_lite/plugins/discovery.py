"""Find reward plugins: the entry-point group `verl_lite`, each entry point loaded on its own.

A plugin that fails to load never stops the others: it gets a status and a message, and is fatal only
if a config uses it. VERL_LITE_LOAD_PLUGINS lists the plugins (entry points or distributions, separated
by commas) that may load; empty means none. The built-in rewards always load.
"""

import difflib
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

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
from verl_lite.plugins.environments import contract as environments_contract
from verl_lite.plugins.environments.contract import EnvironmentDefinition, ToolDefinition
from verl_lite.plugins.local_files import ByName, is_reference, named_object, one_line

LOAD_PLUGINS_ENV = "VERL_LITE_LOAD_PLUGINS"
HOOKS = ("register_rewards", "register_environments")
KINDS = ("reward", "environment", "tool")

Definition = RewardDefinition | EnvironmentDefinition | ToolDefinition
DefinitionT = TypeVar("DefinitionT", RewardDefinition, EnvironmentDefinition, ToolDefinition)


class PluginStatus(StrEnum):
    """What became of a plugin."""

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
    environments: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether it loaded."""
        return self.status is PluginStatus.OK

    def content_hash(self) -> str:
        """SHA-256 of the plugin's Python files (its package, or its single file); "" if not ok."""
        return content_hash(self.module) if self.is_ok else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCatalog:
    """Every reward, environment and tool found, and the status of every plugin.

    `rewards`, `environments` and `tools` are the usable ones. A name that two plugins claim is in
    `clashes`, under its kind and name ("reward exact"), with both owners.
    """

    rewards: Mapping[str, RewardDefinition]
    plugins: tuple[PluginInfo, ...] = ()
    clashes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    environments: Mapping[str, EnvironmentDefinition] = field(default_factory=dict)
    tools: Mapping[str, ToolDefinition] = field(default_factory=dict)

    def get(self, use: str) -> RewardDefinition:
        """The reward that `use` names: a registered name, `./file.py:function`, `package.module:function`, or
        a function written for another trainer (`trl:package.module.function`, adapters/foreign.py), or a
        reward of a server (`http://host:port/name`, serving/remote.py).

        Raises PluginError that says why there is none, and lists those there are.
        """
        if use.startswith(("http://", "https://")):
            from verl_lite.plugins.serving.remote import remote_reward  # it imports the contract

            return remote_reward(use)
        return _by_reference(use) if is_reference(use) else self.registered(self.rewards, "reward", use)

    def registered(self, definitions: Mapping[str, DefinitionT], kind: str, use: str) -> DefinitionT:
        """The one of `definitions`, all of `kind`, that is registered as `use`; raises as `get` does."""
        if use in definitions:
            return definitions[use]
        owners = self.clashes.get(f"{kind} {use}")
        if owners:
            raise PluginError(
                f"{kind} {use!r} is registered twice, by {' and '.join(owners)}: uninstall or disable one of "
                "them"
            )
        raise PluginError(self._missing(sorted(definitions), kind, use))

    def _missing(self, names: Sequence[str], kind: str, use: str) -> str:
        broken = [plugin for plugin in self.plugins if not plugin.is_ok and use == plugin.name]
        if broken:
            plugin = broken[0]
            where = f"plugin {plugin.name!r} of {plugin.distribution} {plugin.version}"
            return f"{kind} {use!r}: {where} is not usable: {plugin.status}: {plugin.message}"
        near = difflib.get_close_matches(use, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        failed = [f"{plugin.name} ({plugin.status})" for plugin in self.plugins if not plugin.is_ok]
        tail = f"; plugins that did not load: {', '.join(failed)}" if failed else ""
        return f"there is no {kind} {use!r}: {hint}There are: {', '.join(names) or 'none'}{tail}"

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
    found_now = [definition for _, definitions in loaded for definition in definitions]
    clashes: dict[str, tuple[str, ...]] = {}
    return RewardCatalog(
        rewards=_usable(found_now, RewardDefinition, clashes),
        environments=_usable(found_now, EnvironmentDefinition, clashes),
        tools=_usable(found_now, ToolDefinition, clashes),
        plugins=tuple(info for info, _ in loaded),
        clashes=clashes,
    )


def _usable(
    found: Iterable[Definition], kind: type[DefinitionT], clashes: dict[str, tuple[str, ...]]
) -> dict[str, DefinitionT]:
    """Those of one kind whose name one plugin claims, by name; adds the others to `clashes`."""
    owners: dict[str, list[DefinitionT]] = {}
    for definition in found:
        if isinstance(definition, kind):
            claims = owners.setdefault(definition.name, [])
            if all(definition.call is not known.call for known in claims):  # two entry points, one module
                claims.append(definition)
    for name, claims in owners.items():
        if len(claims) > 1:
            clashes[f"{kind.kind} {name}"] = tuple(
                f"{claim.distribution} ({claim.call.__module__})" for claim in claims
            )
    return {name: claims[0] for name, claims in sorted(owners.items()) if len(claims) == 1}


def _order(entry_point: EntryPoint) -> tuple[bool, str, str]:
    distribution = _distribution(entry_point)[0]
    return distribution != BUILTIN_DISTRIBUTION, distribution, entry_point.name


def _distribution(entry_point: EntryPoint) -> tuple[str, str]:
    dist = entry_point.dist
    return (dist.name, dist.version) if dist is not None else ("an unknown distribution", "")


def _load(entry_point: EntryPoint, *, load_plugins: bool) -> tuple[PluginInfo, list[Definition]]:
    distribution, version = _distribution(entry_point)

    def info(status: PluginStatus, message: str = "", found: Sequence[Definition] = ()) -> PluginInfo:
        names = {kind: tuple(one.name for one in found if one.kind == kind) for kind in KINDS}
        return PluginInfo(
            name=entry_point.name,
            distribution=distribution,
            version=version,
            module=entry_point.module,
            status=status,
            message=message,
            rewards=names["reward"],
            environments=names["environment"],
            tools=names["tool"],
        )

    disabled = _why_disabled(entry_point.name, distribution, load_plugins=load_plugins)
    if disabled:
        return info(PluginStatus.DISABLED, disabled), []
    try:
        plugin = entry_point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  the border: one plugin never stops the others
        return info(PluginStatus.FAILED_IMPORT, one_line(error)), []
    needed = getattr(plugin, "VERL_LITE_API_VERSION", API_VERSION)
    if needed != API_VERSION:
        message = f"written for version {needed!r} of the reward contract, this is {API_VERSION}"
        return info(PluginStatus.INCOMPATIBLE, message), []
    try:
        definitions = _registered(plugin, distribution)
    except (Exception, SystemExit) as error:  # noqa: BLE001  the border, as above
        return info(PluginStatus.FAILED_SIGNATURE, one_line(error)), []
    return info(PluginStatus.OK, found=definitions), definitions


def _why_disabled(name: str, distribution: str, *, load_plugins: bool) -> str:
    if distribution == BUILTIN_DISTRIBUTION:
        return ""
    if not load_plugins:
        return "plugins were switched off (--no-plugins)"
    allowed = os.environ.get(LOAD_PLUGINS_ENV)
    if allowed is None or {name, distribution} & {part.strip() for part in allowed.split(",")}:
        return ""
    return f"not named in {LOAD_PLUGINS_ENV}={allowed!r}"


def _registered(plugin: object, distribution: str) -> list[Definition]:
    """What the plugin's hooks register. Raises PluginError or pluggy's error for a wrong hook."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(contract)
    manager.add_hookspecs(environments_contract)
    manager.register(plugin)
    hooks = _checked_hooks(manager, plugin)
    definitions: list[Definition] = []

    def add(found: Definition) -> None:
        definition = replace(found, distribution=distribution)
        if any((definition.kind, definition.name) == (known.kind, known.name) for known in definitions):
            raise PluginError(f"it registers the {definition.kind} {definition.name!r} twice")
        definitions.append(definition)

    for name in hooks:
        before = len(definitions)
        read = _READ[name]
        getattr(manager.hook, name)(register=lambda call, read=read: add(read(call)))
        if len(definitions) == before:
            raise PluginError(f"its {name} registered nothing: call register(it) for each of them")
    for definition in [] if hooks else _declared(plugin):
        add(definition)
    return definitions


_READ: Mapping[str, Callable[[Any], Definition]] = {
    "register_rewards": definition_of,
    "register_environments": environments_contract.environment_or_tool_of,
}


def _declared(plugin: object) -> list[Definition]:
    """What a module without hooks declares itself: not what it imports."""
    found: list[Definition] = []
    for value in vars(plugin).values() if isinstance(plugin, ModuleType) else ():
        own = getattr(value, "__module__", "") == getattr(plugin, "__name__", "")
        attributes = getattr(value, "__dict__", {}) if own else {}
        declared = [attributes.get(f"__verl_lite_{kind}__") for kind in KINDS]
        found += [one for one in declared if one is not None and one not in found]
    if not found:
        raise PluginError(
            "it has no hook and declares nothing: decorate a function of the module with @reward('name'), or "
            "write `@hookimpl def register_rewards(register): register(my_reward)`, or "
            "`register_environments` for environments and tools"
        )
    return found


def _checked_hooks(manager: pluggy.PluginManager, plugin: object) -> list[str]:
    """Its hooks. Reports misspelt ones and forgotten decorators, which pluggy would skip silently."""
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec():
            near = difflib.get_close_matches(caller.name, HOOKS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the hooks are: {', '.join(HOOKS)}"
            raise PluginError(f"it implements the unknown hook {caller.name!r}: {hint}")
    names = [caller.name for caller in callers]
    for name in HOOKS:
        if name not in names and callable(getattr(plugin, name, None)):
            raise PluginError(f"its {name} lacks the @hookimpl decorator")
    return names


def _by_reference(use: str) -> RewardDefinition:
    """The reward in `./file.py:name` or `package.module:name`; a plain function gets the defaults."""
    # imported here because it imports this module
    from verl_lite.plugins.adapters.foreign import PEERS, foreign_reward

    prefix, _, rest = use.partition(":")
    peer = prefix if prefix in PEERS else ""
    found = named_object(use, rest if peer else use, kind="reward", peer=peer)
    call = found.value
    if peer:
        return foreign_reward(peer, call, name=found.name, source=found.source)
    is_declared = hasattr(call, "__verl_lite_reward__")
    definition = definition_of(call) if is_declared else RewardDefinition(name=found.name, call=call)
    definition = replace(contract.check_definition(definition), distribution=found.source)
    module, path = found.place
    is_sent_as_it_is = definition.is_async or not inspect.isroutine(call) or call.__qualname__ == path
    return definition if is_sent_as_it_is else replace(definition, call=ByName(module, path))


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
