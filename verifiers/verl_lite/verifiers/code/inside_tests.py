"""Runs inside the sandbox: the tests' process.

In "separate" mode the program runs in another process (inside_program.py), forked before this one reads
its request, so it never held a test or an expected value. It cannot read this process either: that is
not dumpable, which hides its memory and descriptors. What the tests import of the program are stand-ins
that ask it through a pipe, so the tests stay plain Python.

In "together" mode the program is loaded into this process: the tests trust it.
"""

import builtins
import contextlib
import ctypes
import importlib
import os
import random
import re
import signal
import sys
import types
import warnings
from typing import Any

from verl_lite.verifiers.code.inside_collect import Step, test_steps
from verl_lite.verifiers.code.inside_link import PeerGone, Pipe
from verl_lite.verifiers.code.inside_numpy import numpy_stub
from verl_lite.verifiers.code.inside_program import load_program, read_request, send_reply, serve_program
from verl_lite.verifiers.code.inside_pytest import Skipped, pytest_stub
from verl_lite.verifiers.code.inside_remote import End, Remote, RemoteClass, error_class
from verl_lite.verifiers.code.wire import Encoder

_PR_SET_DUMPABLE, _CAPABILITY_VERSION = 4, 0x20080522
# Builtin functions that a program may be handed as a callback; others could reach beyond the call.
_CALLBACKS = frozenset(
    "abs all any bin chr divmod hash hex len max min oct ord pow print repr round sorted sum".split()
)
_NO_CALLBACKS = frozenset(
    "builtins code codeop ctypes importlib marshal multiprocessing os pickle posix pty runpy shutil"
    " signal socket subprocess sys types".split()
)


class TestsEnd(End):
    """The tests' end of a session. What comes from the program is never trusted."""

    __test__ = False

    def __init__(self, pipe: Pipe, request: dict[str, Any]) -> None:
        super().__init__(pipe, timeout_s=request["timeout_s"])
        self.made_calls = 0
        self.note = ""
        self.lacks = ""
        self.not_finite = _named_not_finite(request["source"] + request["setup"])
        self._sent = _surroundings()
        self._watched = _watched_names(request["source"])
        self._originals = {path: _look_up(path) for path in self._watched}
        self._patched_now = False

    def allows(self, operation: str, target: Any, name: Any) -> bool:
        """What the program may do with the tests' objects: nothing that reaches the tests' own code."""
        if operation == "call":
            return _may_be_called(target)
        if operation in ("get", "set", "del"):
            return _may_be_touched(operation, target, name)
        return not isinstance(target, types.ModuleType)

    def perform(self, operation: str, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if operation == "stdin":
            read = {"read": sys.stdin.read, "readline": sys.stdin.readline}[args[0]]
            return read(int(args[1]))
        if operation == "input":
            return builtins.input(args[0])
        return super().perform(operation, target, args, kwargs)

    def may_operate(self, left: object, right: object) -> bool:
        """Arithmetic is asked for between the program's own objects alone."""
        if isinstance(right, Remote):
            return True
        self.equal(left, right)
        return False

    def equal(self, left: Any, right: Any) -> bool:
        """Whether two values are equal by their data; what only the program could decide is not asked."""
        if not hasattr(type(left), "_peer"):
            return False
        self.note = f"returned an instance of {type(left).__name__}; plain data is expected"
        return False

    def before(self, message: dict[str, Any]) -> None:
        """Add what the tests changed around the program since the last message."""
        self.made_calls += message.get("do") not in (None, "load", "resolve", "seed")
        for name, value in _surroundings().items():
            if value != self._sent[name]:
                message[name] = self._sent[name] = value
        values = {path: _look_up(path) for path in self._watched}
        patched = {path: value for path, value in values.items() if value is not self._originals[path]}
        if patched or self._patched_now:
            self._patched_now = bool(patched)
            encoder = Encoder(self._refer)
            message["patched"] = {path: encoder.encode(value) for path, value in patched.items()}

    def after(self, message: dict[str, Any]) -> None:
        for stream, text in zip((sys.stdout, sys.stderr), message.get("printed", ()), strict=False):
            stream.write(str(text))
        for mro, text in message.get("warned", ()):
            category: Any = error_class(mro)
            warnings.warn_explicit(str(text), category, "solution.py", 1)
        for name, level, text in message.get("logged", ()):
            _log(str(name), int(level), str(text))


def _surroundings() -> dict[str, object]:
    return {"environ": dict(os.environ), "folder": os.getcwd(), "argv": list(sys.argv)}


def _log(name: str, level: int, text: str) -> None:
    import logging

    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        logger.log(level, "%s", text)


def _forward_seeds(end: TestsEnd) -> None:
    """Tests that seed the random numbers mean the program's too."""
    own = random.seed

    def seed(*args: Any) -> None:
        own(*args)
        end.ask("seed", None, *args)

    random.seed = seed  # type: ignore[assignment]


def _named_not_finite(source: str) -> frozenset[str]:
    """Which of nan and inf the tests name: a test that names neither must not meet one."""
    names = {
        name.lower()
        for name in re.findall(r"(?<![a-zA-Z])(?:is)?(inf|nan|finite)(?:ity)?(?![a-zA-Z])", source)
    }
    return frozenset({"nan", "inf"} if "finite" in names else names)


def _watched_names(source: str) -> list[str]:
    """What the tests may patch of modules that the program uses too: "time.sleep", "builtins.print"."""
    paths = re.findall(r"""\bpatch(?:\.dict)?\(\s*["']([\w.]+)["']""", source)
    pairs = re.findall(r"""(?:\bpatch\.object|\bsetattr)\(\s*([\w.]+)\s*,\s*["'](\w+)["']""", source)
    paths += re.findall(r"""\bsetattr\(\s*["']([\w.]+)["']""", source)
    paths += [f"{owner}.{name}" for owner, name in pairs]
    found = []
    for path in dict.fromkeys(paths):
        module = path.rpartition(".")[0]
        outside = module.partition(".")[0] in sys.stdlib_module_names and path != "builtins.input"
        if outside and module != "sys" and _look_up(path) is not None:
            found.append(path)
    return found


def _look_up(path: str) -> object:
    module, _, name = path.rpartition(".")
    with contextlib.suppress(ImportError):
        return getattr(importlib.import_module(module), name, None)
    return None


def _may_be_called(target: object) -> bool:
    if isinstance(target, types.BuiltinFunctionType) and target.__module__ in ("builtins", "_io", "io"):
        return target.__name__ in _CALLBACKS
    if isinstance(target, type):
        return target is not type and target.__module__ not in (_NO_CALLBACKS | {"operator"}) - {"builtins"}
    return str(getattr(target, "__module__", "")).partition(".")[0] not in _NO_CALLBACKS


def _may_be_touched(operation: str, target: object, name: object) -> bool:
    """Public attributes of instances; no method of a class may be replaced."""
    kind = type(target)
    if type(name) is not str or name.startswith("_"):
        return False
    if kind.__module__ == "unittest.mock":
        return operation == "get" and name not in dir(kind())
    if kind.__module__ not in ("tests", "_io", "tempfile") or isinstance(target, type):
        return False
    replaced = getattr(kind, name, None)
    return operation == "get" or not (callable(replaced) or isinstance(replaced, property))


class _Module(types.ModuleType):
    """The program as the tests import it."""

    def __init__(self, name: str, end: TestsEnd, names: list[str]) -> None:
        super().__init__(name)
        self.__dict__.update(__end__=end, __all__=names, __file__=f"{name}.py")

    def __getattr__(self, name: str) -> object:
        end = self.__dict__["__end__"]
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            value = end.ask("resolve", None, name)
        except NameError as error:
            end.lacks = end.lacks or str(error)
            raise AttributeError(str(error)) from None
        if isinstance(value, (RemoteClass, types.FunctionType)):
            self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__["__end__"].ask("set_global", None, name, value)
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        self.__dict__["__end__"].ask("del_global", None, name)
        self.__dict__.pop(name, None)


def _prepare(request: dict[str, Any], end: TestsEnd | None) -> dict[str, Any]:
    """The namespace the tests run in, with the program or with what stands for it."""
    tests = types.ModuleType("tests")
    sys.modules["tests"] = tests
    namespace = tests.__dict__
    if "pytest" in request["source"]:
        sys.modules["pytest"] = pytest_stub()
    if "numpy" in request["source"] + request["setup"]:
        try:
            import numpy  # noqa: F401
        except ImportError:
            sys.modules["numpy"] = numpy_stub()
    if end is None:
        module = load_program(request)
        namespace.update({k: v for k, v in module.__dict__.items() if not k.startswith("__")})
    else:
        exec(compile(request["prelude"], "<setup>", "exec"), namespace)
        sys.modules[request["module"]] = module = _Module(request["module"], end, request["names"])
        for name in request["names"]:
            with contextlib.suppress(AttributeError):
                namespace[name] = getattr(module, name)
    exec(compile(request["setup"], "<setup>", "exec"), namespace)
    return namespace


def _run_tests(request: dict[str, Any], namespace: dict[str, Any], end: TestsEnd | None) -> dict[str, Any]:
    code = compile(request["source"], "<tests>", "exec")
    steps: list[Step] = [("", lambda: exec(code, namespace))]
    ran = collected = 0
    while steps:
        name, step = steps.pop(0)
        try:
            step()
        except Skipped:
            ran -= 1
        except PeerGone:
            raise
        except BaseException as error:  # noqa: BLE001  a test may fail with anything
            return _failure(request, name, error, end)
        if end is not None and end.broken:  # a bare `except` of the tests swallowed it
            raise PeerGone(end.broken)
        if name == "" and request["collect"]:
            steps = test_steps(namespace)
            collected = len(steps)
            ran -= bool(steps)
        ran += 1 if name or not request["collect"] else 0
    made, lacks = (end.made_calls, end.lacks) if end else (1, "")
    return {"status": "passed", "ran": ran, "made": made, "lacks": lacks, "collected": collected}


def _failure(
    request: dict[str, Any], name: str, error: BaseException, end: TestsEnd | None
) -> dict[str, Any]:
    """Why a test failed; "not_ready" where no program could have passed it."""
    message = _message(request, name, error)
    if end is not None and end.lacks and not end.made_calls:
        return {"status": "failed", "message": end.lacks}
    own = not hasattr(error, "from_program")
    if own and isinstance(error, ImportError) and _imports(request["source"], error.name or ""):
        return {"status": "not_ready", "message": f"the tests: {error}"}
    if end is None:
        return {"status": "failed", "message": message}
    if not end.made_calls:
        return {"status": "not_ready", "message": f"the tests fail before they call the program: {message}"}
    return {"status": "failed", "message": f"{message}: {end.note}" if end.note else message}


def _imports(source: str, name: str) -> bool:
    """Whether the tests themselves import the module `name`, rather than one the program named."""
    found = re.search(rf"^\s*(import|from)\s.*\b{re.escape(name)}\b", source, re.MULTILINE)
    return bool(name) and found is not None


def _message(request: dict[str, Any], name: str, error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    lines = request["source"].splitlines()
    if isinstance(error, AssertionError) and not str(error) and 0 < line <= len(lines):
        text = f"{text}: {lines[line - 1].strip()[:200]}"
    method = getattr(error, "__verl_lite_name__", "")
    name = f"{name}.{method}" if method else name
    return (f"{name}: {text}" if name else text)[:500]


def _fork_program() -> tuple[Pipe, int]:
    """A process for the program, which has nothing of this one's descriptors but its pipe."""
    to_program, from_tests = os.pipe()
    to_tests, from_program = os.pipe()
    pid = os.fork()
    if pid:
        os.close(to_program)
        os.close(from_program)
        return Pipe(to_tests, from_tests), pid
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.dup2(to_program, 3)
    os.dup2(from_program, 4)
    os.closerange(5, 256)
    with contextlib.suppress(OSError, AttributeError):  # outside of our sandbox a root may have them
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())
    return serve_program(Pipe(3, 4))


def _run_apart(request: dict[str, Any], pipe: Pipe) -> dict[str, Any]:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    end = TestsEnd(pipe, request)
    try:
        logs = "Logs" in request["source"] or "caplog" in request["source"]
        load = {name: request[name] for name in ("program", "prelude", "module")} | {"logs": logs}
        try:
            end.ask("load", None, load)
        except BaseException as error:
            if isinstance(error, PeerGone):
                raise
            return {"status": "failed", "message": f"the program: {_message(request, '', error)}"}
        _forward_seeds(end)
        try:
            namespace = _prepare(request, end)
        except Exception as error:  # noqa: BLE001  the tests' set-up may raise anything
            return {"status": "not_ready", "message": f"the tests' set-up: {_message(request, '', error)}"}
        return _run_tests(request, namespace, end)
    except PeerGone as gone:
        return {"status": "failed", "message": f"the program {gone}", "timed_out": str(gone) == "timed out"}


def _run_together(request: dict[str, object]) -> dict[str, object]:
    try:
        namespace = _prepare(request, None)
    except Exception as error:  # noqa: BLE001  the program may raise anything
        return {"status": "not_ready", "message": f"the program: {_message(request, '', error)}"}
    return _run_tests(request, namespace, None)


def main() -> None:
    pipe, program = _fork_program()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = read_request()
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:  # before the program gets to run
        reason = "the tests' process cannot be hidden from the program"
        send_reply({"status": "error", "message": reason, "key": request["key"]})
        os._exit(0)
    sys.path[:] = [path for path in sys.path if path and path != os.getcwd()]  # the program may write there
    random.seed(0)
    reply = _run_together(request) if request["mode"] == "together" else _run_apart(request, pipe)
    send_reply({**reply, "key": request["key"]})
    with contextlib.suppress(OSError):
        os.kill(program, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
