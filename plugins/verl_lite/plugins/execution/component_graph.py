"""Which component needs which, checked once at the start."""

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from verl_lite.errors import ConfigError
from verl_lite.plugins.contract import Component


@dataclass(frozen=True, slots=True)
class ComponentGraph:
    """`needed_by[i]` are the components that wait for component i, `num_needs[i]` how many it waits for."""

    components: tuple[Component, ...]
    needed_by: tuple[tuple[int, ...], ...]
    num_needs: tuple[int, ...]


def make_graph(components: Sequence[Component]) -> ComponentGraph:
    """Raises ConfigError for a name used twice, a need that does not exist, and cyclic needs."""
    index = {component.name: at for at, component in enumerate(components)}
    if len(index) < len(components):
        names = [component.name for component in components]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(f"component {twice[0]!r} is there twice: names must differ")
    for component in components:
        unknown = sorted(component.needs - index.keys())
        if unknown:
            known = ", ".join(sorted(index))
            raise ConfigError(f"component {component.name!r} needs {unknown[0]!r}, which is none of: {known}")
    try:
        TopologicalSorter({component.name: component.needs for component in components}).prepare()
    except CycleError as error:
        raise ConfigError(f"components need each other in a cycle: {' -> '.join(error.args[1])}") from None
    needed_by = tuple(
        tuple(at for at, other in enumerate(components) if component.name in other.needs)
        for component in components
    )
    return ComponentGraph(
        tuple(components), needed_by, tuple(len(component.needs) for component in components)
    )
