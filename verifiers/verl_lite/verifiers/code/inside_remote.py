"""Runs inside the sandbox: the objects that stand for those of the session's other end.

A function, generator, coroutine or exception of the program is a real one in the tests, so that
`inspect` and `pytest.raises` see what they expect. An instance is a `Remote`: attributes, items and
calls are asked for; a comparison never is, since the program would decide it.
"""

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from verl_lite.verifiers.code.inside_link import _BINARY, OPERATIONS, Peer, _await, number_of, remember
from verl_lite.verifiers.code.wire import _LAZY, NotPlainData, _plain_base, decode, encode

# Special methods that are asked for, if the other end's class has them.
_SPECIAL = {
    f"__{name}__": name
    for name in (
        "call", "iter", "next", "len", "getitem", "setitem", "delitem", "enter", "exit", "int", "float",
        "index", "abs", "neg", "round", "aenter", "aexit", "anext", "await",
    )
} | {f"__{name.rstrip('_')}__": name for name in _BINARY}  # fmt: skip


def _ask(stand_in: Any, operation: str, *args: Any, **kwargs: Any) -> Any:
    peer = type(stand_in)._peer
    return peer.ask(operation, number_of(stand_in, peer), *args, **kwargs)


def _special_method(name: str, operation: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if operation in _BINARY and not type(self)._peer.may_operate(self, args[0]):
            return NotImplemented
        return _ask(self, operation, *args, **kwargs)

    async def later(self: Any, *_: Any) -> Any:
        return _ask(self, operation)

    def wait(self: Any) -> Any:
        yield from ()
        return _ask(self, "await")

    def leave(self: Any, kind: Any, error: Any, trace: Any) -> Any:
        return _ask(self, operation, None if error is None else describe_error(error))

    async def leave_later(self: Any, *raised: Any) -> Any:
        return leave(self, *raised)

    special = {"await": wait, "aenter": later, "anext": later, "exit": leave, "aexit": leave_later}
    found: Any = special.get(operation, method)
    found.__name__ = name
    return found  # type: ignore[no-any-return]


class RemoteClass(type):
    """The class of the instances that stand for those of one class of the other end."""

    _peer: Any

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        number = number_of(cls, cls._peer)
        if number is None:
            raise TypeError(f"{cls.__name__} derives from a class of the other process")
        return cls._peer.ask("call", number, *args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        number = None if name.startswith("_") else number_of(cls, cls._peer)
        if number is None:
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}")
        return cls._peer.ask("get", number, name)

    def __iter__(cls) -> Any:
        return iter(cls._peer.ask("iter", number_of(cls, cls._peer)))

    def __getitem__(cls, key: Any) -> Any:
        return cls._peer.ask("getitem", number_of(cls, cls._peer), key)

    def __len__(cls) -> int:
        return int(cls._peer.ask("len", number_of(cls, cls._peer)))

    def __bool__(cls) -> bool:
        return True


class Remote(metaclass=RemoteClass):
    """An instance at the other end."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "del", name)

    def __str__(self) -> str:
        return str(_ask(self, "str"))

    def __repr__(self) -> str:
        return str(_ask(self, "repr"))

    def __format__(self, how: str) -> str:
        return format(str(self), how)

    def __bool__(self) -> bool:
        return bool(_ask(self, "bool"))

    def __eq__(self, other: object) -> bool:
        return self is other or bool(type(self)._peer.equal(self, other))

    def __hash__(self) -> int:
        return id(self)

    def __lt__(self, other: object) -> bool:
        type(self)._peer.equal(self, other)
        raise TypeError(f"an instance of {type(self).__name__} is no plain data to compare")

    __gt__ = __le__ = __ge__ = __lt__

    def __contains__(self, item: object) -> bool:
        type(self)._peer.equal(self, item)
        return any(item is found or item == found for found in iter(self))


def describe(value: Any, peer: Peer) -> dict[str, Any]:
    """What the other end needs to make a stand-in for `value`."""
    if isinstance(value, type):
        return _describe_class(value, peer)
    name = str(getattr(value, "__name__", type(value).__name__))
    if isinstance(value, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        return {"kind": "function", "name": name, "async": inspect.iscoroutinefunction(value)}
    for kind, types_of in _KINDS:
        if isinstance(value, types_of):
            return {"kind": kind, "name": name}
    info: dict[str, Any] = {"kind": "instance", "class": peer._refer(type(value))}
    base = _plain_base(value, type(value))
    if base is not None:
        info["data"] = encode(base)
    return info


_KINDS: tuple[tuple[str, Any], ...] = (
    ("iterator", _LAZY),
    ("coroutine", types.CoroutineType),
    ("async iterator", types.AsyncGeneratorType),
)


def _describe_class(kind: type, peer: Peer) -> dict[str, Any]:
    if issubclass(kind, BaseException):
        return {"kind": "exception", "mro": error_mro(kind)}
    bases = [peer._refer(base) for base in kind.__bases__ if base.__module__ not in ("builtins", "abc")]
    defined = {name for part in kind.__mro__ for name in vars(part)}
    has = [name for name in _SPECIAL if name in defined]
    return {"kind": "class", "name": kind.__name__, "has": has, "bases": bases}


def stand_in(number: int, info: dict[str, Any], peer: Peer) -> Any:
    """The object that stands for the other end's object `number`."""
    kind = info["kind"]
    if kind == "exception":
        return error_class(info["mro"])
    if kind == "class":
        bases = [peer._resolve(base) for base in info["bases"]]
        bases = [base for base in bases if isinstance(base, RemoteClass)] or [Remote]
        special = {name: _special_method(name, _SPECIAL[name]) for name in info["has"] if name in _SPECIAL}
        return RemoteClass(str(info["name"]), tuple(dict.fromkeys(bases)), {**special, "_peer": peer})
    if kind == "instance":
        cls = peer._resolve(info["class"])
        if not isinstance(cls, RemoteClass):  # an exception as a value
            cls = RemoteClass(cls.__name__, (Remote,), {"_peer": peer})
        made: Any = object.__new__(cls)  # type: ignore[arg-type]
        remember(made, number, peer)
        return made
    made = _MAKERS_OF_KIND[kind](number, info, peer)
    made.__name__ = made.__qualname__ = str(info["name"])
    return made


def _function(number: int, info: dict[str, Any], peer: Peer) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return peer.ask("call", number, *args, **kwargs)

    async def call_later(*args: Any, **kwargs: Any) -> Any:
        return await peer.ask("call", number, *args, **kwargs)

    return call_later if info.get("async") else call


def _iterator(number: int, info: dict[str, Any], peer: Peer) -> Any:
    def iterate() -> Any:
        sent = None
        while True:
            try:
                item = peer.ask("next", number) if sent is None else peer.ask("send", number, sent)
            except StopIteration as stop:
                return stop.value
            sent = yield item

    return iterate()


def _async_iterator(number: int, info: dict[str, Any], peer: Peer) -> Any:
    async def iterate() -> Any:
        while True:
            try:
                item = peer.ask("anext", number)
            except StopAsyncIteration:
                return
            yield item

    return iterate()


def _coroutine(number: int, info: dict[str, Any], peer: Peer) -> Any:
    async def wait() -> Any:
        return peer.ask("await", number)

    return wait()


_MAKERS_OF_KIND = {
    "function": _function, "iterator": _iterator, "coroutine": _coroutine, "async iterator": _async_iterator,
}  # fmt: skip
OPERATIONS["send"] = lambda target, value: target.send(value)


# Of these libraries an exception would end a test as skipped or passed, were it the real one.
_NO_ERRORS_OF = frozenset({"unittest", "doctest", "bdb", "pdb", "_pytest", "pytest"})
_MAX_CAUSES = 3
_own_errors: dict[tuple[str, str], type] = {}
_made_errors: dict[tuple[str, str], type] = {}


def error_mro(kind: type) -> list[list[str]]:
    """The classes of an exception, by module and name, up to Exception's."""
    mro = [part for part in kind.__mro__ if issubclass(part, BaseException)]
    for part in mro:
        if part.__module__.partition(".")[0] not in sys.stdlib_module_names:
            _own_errors[part.__module__, part.__qualname__] = part
    return [[part.__module__, part.__qualname__] for part in mro]


def error_class(mro: list[list[str]]) -> type:
    """The exception class with this `error_mro`: this end's own, the standard library's, or a new one."""
    module, name = mro[0]
    if (module, name) in _own_errors:
        return _own_errors[module, name]
    if module.partition(".")[0] in sys.stdlib_module_names - _NO_ERRORS_OF:
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            found = None
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    if len(mro) == 1:
        return Exception
    if (module, name) not in _made_errors:
        _made_errors[module, name] = type(name, (error_class(mro[1:]),), {"__module__": module})
    return _made_errors[module, name]


def describe_error(error: BaseException, depth: int = 0) -> dict[str, Any]:
    try:
        text = str(error)[:2000]
    except Exception:  # noqa: BLE001  its own __str__
        text = ""
    known = type(error).__module__.partition(".")[0] in sys.stdlib_module_names
    reduced = error.__reduce__() if known else ()
    args = reduced[1] if len(reduced) > 1 and type(reduced[1]) is tuple else error.args
    own = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    cause = error.__cause__ if depth < _MAX_CAUSES else None
    return {
        "cause": None if cause is None else describe_error(cause, depth + 1),
        "mro": error_mro(type(error)),
        "args": _data_or(args, ["t", []]),
        "own": {name: _data_or(value, None) for name, value in own.items()},
        "text": text,
    }


def _raised_arguments(raised: dict[str, Any] | None) -> tuple[Any, Any, Any]:
    """What `__exit__` is given for an exception of the other end, or for none."""
    if raised is None:
        return None, None, None
    error = rebuild_error(raised)
    return type(error), error, None


OPERATIONS["exit"] = lambda target, raised: type(target).__exit__(target, *_raised_arguments(raised))
OPERATIONS["aexit"] = lambda target, raised: _await(
    type(target).__aexit__(target, *_raised_arguments(raised))
)


def _data_or(value: Any, otherwise: Any) -> Any:
    try:
        return encode(value)
    except (NotPlainData, RecursionError):
        return otherwise


def rebuild_error(raised: dict[str, Any]) -> BaseException:
    """The exception that `describe_error` describes; its constructor runs only if it is a known one."""
    kind = error_class([[str(module), str(name)] for module, name in raised["mro"]])
    args = decode(raised["args"])
    text = str(raised["text"])
    error: Any
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001  arguments that its constructor does not take
        error = BaseException.__new__(kind)
        error.args = (text,)
    if (kind.__module__, kind.__qualname__) in _made_errors and str(error) != text:
        setattr(kind, "__str__", lambda self: self.__dict__.get("_text", ""))  # noqa: B010
        error._text = text
    for name, value in raised["own"].items():
        setattr(error, name, decode(value))
    if raised.get("cause"):
        error.__cause__ = rebuild_error(raised["cause"])
    return error  # type: ignore[no-any-return]


class End(Peer):
    """An end of a session that shows its objects to the other one as this file describes them."""

    def describe(self, value: Any) -> dict[str, Any]:
        return describe(value, self)

    def stand_in(self, number: int, info: dict[str, Any]) -> Any:
        return stand_in(number, info, self)

    def raised(self, error: BaseException) -> dict[str, Any]:
        return describe_error(error)

    def rebuild(self, raised: dict[str, Any]) -> BaseException:
        return rebuild_error(raised)

    def may_operate(self, left: Any, right: Any) -> bool:
        return True

    def equal(self, left: Any, right: Any) -> bool:
        return False
