"""Public names of a room that are imported when they are first used.

A room whose names pull in something heavy writes in its `__init__.py`:

    if TYPE_CHECKING:  # the type checker sees plain imports, and so reports names that do not exist
        from verl_lite.plugins.scorer import Scorer, ScoringSession
    else:
        __getattr__, __dir__ = lazy_exports(__name__, {".scorer": ("Scorer", "ScoringSession")})
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence

__all__ = ["lazy_exports"]


def lazy_exports(
    room: str, names_by_module: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for the package `room` (its `__name__`).

    A module's name starts with "." when it is relative to `room`. The value is kept in the room's
    namespace, so each name is looked up once. No name may be that of a submodule of `room`: Python
    binds a submodule there when it is imported.
    """
    module_of = {name: module for module, names in names_by_module.items() for name in names}

    def __getattr__(name: str) -> object:
        module = module_of.get(name)
        if module is None:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module, room), name)
        setattr(sys.modules[room], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[room]), *module_of})

    return __getattr__, __dir__
