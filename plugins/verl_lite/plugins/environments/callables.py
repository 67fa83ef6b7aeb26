"""What stands behind a callable: partials, bound methods, decorated functions, objects with `__call__`."""

import functools
import inspect
from collections.abc import Callable, Iterator

from verl_lite.errors import PluginError

Anything = Callable[..., object]


def layers(call: Anything) -> Iterator[Anything]:
    """`call` and what it wraps; the last is the function with the hints and the docstring.

    Raises PluginError for a class without `__call__`.
    """
    while True:
        yield call
        if isinstance(call, functools.partial):
            call = call.func
        elif hasattr(call, "__wrapped__"):
            call = call.__wrapped__
        elif inspect.isroutine(call):
            return
        else:
            call = _bound_call(call)


def _bound_call(call: Anything) -> Anything:
    """`__call__` as of an instance, without `self`; of a class, as of one that is not built."""
    kind, instance = (call, object()) if inspect.isclass(call) else (type(call), call)
    for base in kind.__mro__:
        if "__call__" in vars(base):
            method: Anything = vars(base)["__call__"].__get__(instance)
            return method
    raise PluginError(f"the class {kind.__name__} has no __call__, which the model would call")


def fixed_by_partial(call: Anything) -> frozenset[str]:
    """The names of the arguments that `functools.partial` has given already."""
    partials = (layer for layer in layers(call) if isinstance(layer, functools.partial))
    return frozenset(name for layer in partials for name in layer.keywords)


def is_called_by_class(call: Anything, *, not_of: str) -> bool:
    """Whether it is an object whose class has `__call__`, written in another module than `not_of`."""
    called = list(layers(call))[1:2]
    return any(getattr(one, "__name__", "") == "__call__" and one.__module__ != not_of for one in called)


def name_of(call: Anything) -> str:
    """The name of the function or class; of an object, that of its class."""
    kind = ""
    for layer in layers(call):
        name: str = getattr(layer, "__name__", "")
        if name:
            return kind if name == "__call__" else name
        kind = type(layer).__name__
    return kind
