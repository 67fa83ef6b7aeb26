"""Runs inside the sandbox: the program's process.

For one call, the request arrives on descriptor 0 and holds no expected value; the reply goes to
descriptor 3 and is compared outside. In a session (`serve_program`), the tests' process asks. The
program shares this process and can do anything to it: forge results, patch this code, exit early. None
of it helps, because results are only data that someone else compares with the correct ones.
"""

import builtins
import importlib
import io
import json
import os
import random
import sys
import types
import warnings
from typing import Any, NoReturn

from verl_lite.verifiers.code.inside_link import Peer, Pipe
from verl_lite.verifiers.code.inside_remote import End, error_mro
from verl_lite.verifiers.code.wire import Decoder, NotPlainData, decode, encode

_REPLY_FD = 3


def read_request() -> dict[str, Any]:
    chunks = []
    while chunk := os.read(0, 1 << 20):
        chunks.append(chunk)
    request: dict[str, Any] = json.loads(b"".join(chunks))
    return request


def send_reply(reply: dict[str, Any]) -> None:
    data = json.dumps(reply, allow_nan=False).encode()
    while data:
        data = data[os.write(_REPLY_FD, data) :]


def load_program(request: dict[str, Any]) -> types.ModuleType:
    """The program as a module other than `__main__`, so its main guard does not run."""
    module = types.ModuleType(request.get("module", "solution"))
    sys.modules[module.__name__] = module
    exec(compile(request["prelude"], "<prelude>", "exec"), module.__dict__)
    _of_prelude.update(module.__dict__)
    exec(compile(request["program"], "<program>", "exec"), module.__dict__)
    return module


_of_prelude: dict[str, Any] = {}
_NOTHING = object()


def resolve(module: types.ModuleType, path: str) -> Any:
    """What the program, not its prelude, defines: a value, or a method of a new object."""
    owner, dot, method = path.rpartition(".")
    if not dot:
        defined = module.__dict__.get(path, _NOTHING)
        if defined is not _NOTHING and defined is not _of_prelude.get(path, _NOTHING):
            return defined
        owner = "Solution"  # data sets that name only a function also accept a method of this class
    if owner not in module.__dict__ or not hasattr(module.__dict__[owner], method):
        raise NameError(f"the program does not define {path}")
    return getattr(getattr(module, owner)(), method)


def _call(function: Any, request: dict[str, Any]) -> dict[str, Any]:
    args = [decode(arg) for arg in request["args"]]
    kwargs = {name: decode(value) for name, value in request["kwargs"].items()}
    reply = {"value": _plain(function(*args, **kwargs))}
    changed: dict[str, Any] = {}
    for index, arg in enumerate(args):
        if type(arg) in (list, dict, set):
            after = _plain(arg)
            if after != request["args"][index]:
                changed[str(index)] = after
    if changed:
        reply["changed"] = changed
    return reply


def _plain(value: Any) -> Any:
    try:
        return {"data": encode(value)}
    except NotPlainData as error:
        return {"not_plain": str(error)}


def _use_object(module: types.ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    owner = getattr(module, request["class_name"])(*[decode(arg) for arg in request["args"]])
    values = []
    for method, args in request["calls"]:
        values.append(_plain(getattr(owner, method)(*[decode(arg) for arg in args])))
    return {"values": values}


def _raised(error: BaseException) -> dict[str, Any]:
    builtin = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
    return {"raised": builtin[0], "type": type(error).__name__, "message": str(error)[:500]}


class _Input(io.TextIOBase):
    """The tests' `sys.stdin`, read through the session."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def read(self, size: int | None = -1) -> str:
        return str(self._peer.ask("stdin", None, "read", -1 if size is None else size))

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        return str(self._peer.ask("stdin", None, "readline", size))

    @property
    def buffer(self) -> io.BytesIO:
        return io.BytesIO(self.read().encode())


class ProgramEnd(End):
    """The program's end of a session: it does whatever the tests ask."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(pipe)
        self._module = types.ModuleType("solution")
        self._patched: dict[str, tuple[Any, str, Any]] = {}
        self._printed: list[io.BytesIO] = []
        for name in ("stdout", "stderr"):
            raw = io.BytesIO()
            stream = io.TextIOWrapper(raw, encoding="utf-8", errors="replace", write_through=True)
            self._printed.append(raw)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        self._warned: list[list[Any]] = []
        self._logged: list[list[Any]] = []
        warnings.simplefilter("always")
        warnings.showwarning = self._keep_warning  # type: ignore[assignment]
        sys.stdin = sys.__stdin__ = _Input(self)  # type: ignore[misc,assignment]
        builtins.input = lambda prompt="": str(self.ask("input", None, str(prompt)))

    def _keep_warning(self, text: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        self._warned.append([error_mro(category), str(text)])

    def _forward_logs(self) -> None:
        """Let the tests see what the program logs, of any level."""
        import logging  # slow to load, and few tests need it

        handler = logging.Handler()
        handler.emit = lambda record: self._logged.append(  # type: ignore[method-assign]
            [record.name, record.levelno, record.getMessage()]
        )
        logging.root.addHandler(handler)
        logging.root.setLevel(1)

    def before(self, message: dict[str, Any]) -> None:
        """What was printed, logged and warned of since the last message."""
        if self._logged:
            message["logged"], self._logged = self._logged, []
        if self._warned:
            message["warned"], self._warned = self._warned, []
        printed = []
        for raw in self._printed:
            printed.append(raw.getvalue().decode("utf-8", "replace"))
            raw.seek(0)
            raw.truncate()
        if any(printed):
            message["printed"] = printed

    def after(self, message: dict[str, Any]) -> None:
        """What the tests changed around the program: environment, folder, patched functions."""
        if "environ" in message:
            os.environ.clear()
            os.environ.update(message["environ"])
        if "folder" in message:
            os.chdir(message["folder"])
        if "argv" in message:
            sys.argv[:] = message["argv"]
        if "patched" in message:
            for owner, name, original in self._patched.values():
                setattr(owner, name, original)
            self._patched.clear()
            decoder = Decoder(self._resolve)
            for path, data in message["patched"].items():
                self._patch(path, decoder.decode(data))

    def _patch(self, path: str, value: Any) -> None:
        module_name, _, name = path.rpartition(".")
        owner: Any = importlib.import_module(module_name)
        self._patched[path] = (owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def perform(self, operation: str, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if operation == "load":
            if args[0]["logs"]:
                self._forward_logs()
            self._module = load_program(args[0])
            return None
        if operation == "resolve":
            return resolve(self._module, args[0])
        if operation == "set_global":
            return setattr(self._module, *args)
        if operation == "del_global":
            return delattr(self._module, *args)
        if operation == "seed":
            return random.seed(*args, **kwargs)
        return super().perform(operation, target, args, kwargs)


def serve_program(pipe: Pipe) -> NoReturn:
    """Answer the tests' process until it ends."""
    end = ProgramEnd(pipe)
    try:
        while True:
            message = pipe.receive(None)
            end.after(message)
            end.serve(message)
    except BaseException:  # noqa: BLE001  the tests' process ended
        os._exit(0)


def main() -> None:
    request = read_request()
    try:
        module = load_program(request)
        if "class_name" in request:
            reply = _use_object(module, request)
        else:
            reply = _call(resolve(module, request["function"]), request)
    except Exception as error:  # noqa: BLE001  whatever the program raises is its result
        reply = _raised(error)
    send_reply(reply)
    os._exit(0)  # atexit handlers and stray threads must not decide how this run ends


if __name__ == "__main__":
    main()
