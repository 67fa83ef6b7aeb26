"""Runs inside the sandbox: calls into the program and sends the results back as data.

The request arrives on descriptor 0 and holds no expected value; the reply goes to descriptor 3. The
program shares this process and can do anything to it: forge the reply, patch this code, exit early.
None of it helps, because the reply is only compared with the correct answer, outside.
"""

import json
import os
import sys
import types
from typing import Any

from verl_lite.verifiers.code.wire import NotPlainData, decode, encode

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
    module.__dict__["__prelude__"] = dict(module.__dict__)
    exec(compile(request["program"], "<program>", "exec"), module.__dict__)
    return module


def _resolve(module: types.ModuleType, path: str) -> Any:
    """What the program, not its prelude, defines: a function, or a method of a new object."""
    owner, dot, method = path.rpartition(".")
    if not dot:
        defined = module.__dict__.get(path)
        if defined is not None and defined is not module.__dict__["__prelude__"].get(path):
            return defined
        owner = "Solution"  # data sets that name only a function also accept a method of this class
    if owner not in module.__dict__:
        raise NameError(f"the program does not define {owner if dot else path}")
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


def main() -> None:
    request = read_request()
    try:
        module = load_program(request)
        if "class_name" in request:
            reply = _use_object(module, request)
        else:
            reply = _call(_resolve(module, request["function"]), request)
    except Exception as error:  # noqa: BLE001  whatever the program raises is its result
        reply = _raised(error)
    send_reply(reply)
    os._exit(0)  # atexit handlers and stray threads must not decide how this run ends


if __name__ == "__main__":
    main()
