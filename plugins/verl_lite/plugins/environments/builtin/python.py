"""The tool `python`: an interpreter per trajectory that keeps variables and files, in the sandbox."""

import json
import threading
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.environments.contract import CutText, ToolError, tool

if TYPE_CHECKING:
    from verl_lite.sandbox import Sandbox, SandboxSession

_KILL_S = 1.0  # code that ignores its own deadline for so long loses its interpreter
_SESSION_S = 5_000_000.0  # an interpreter may wait that long for the next call
_START_S = 3600.0  # a trajectory may wait that long for an interpreter while others have all of them


class PythonOptions(ConfigModel):
    """Limits of the interpreter, as those of the sandbox's programs."""

    timeout_s: float = Field(default=10.0, gt=0, le=3600, description="wall time of one call")
    cpu_s: float = Field(default=600.0, gt=0, description="CPU time of all calls of a trajectory")
    memory_mb: int = Field(default=512, gt=0, description="memory of all processes of a trajectory")
    processes: int = Field(default=16, gt=0, description="processes and threads of a trajectory")
    disk_mb: int = Field(default=64, gt=0, description="files of a trajectory")
    max_output_chars: int = Field(default=10_000, gt=0, description="longer output of a call is cut")
    libraries: tuple[str, ...] = Field(
        default=(), description="installed packages that the code may import, such as numpy"
    )
    interpreters: int = Field(
        default=64, gt=0, description="interpreters at a time; further trajectories wait for one"
    )
    unsafe: bool = Field(default=False, description="run without isolation where the sandbox does not work")


@tool("python", options=PythonOptions, isolate=False, timeout_s=2 * _START_S)
class Python:
    """Run Python code in an interpreter that keeps variables and files between calls.

    What it prints is returned, and the value of the last line if that is an expression.
    """

    def __init__(self, options: PythonOptions) -> None:
        self._options = options
        self._sandbox: Sandbox | None = None
        self._lock = threading.Lock()
        self._program = (files(__package__) / "interpreter_program.py").read_text(encoding="utf-8")

    def open(self) -> "Interpreter":
        return Interpreter(self, self._options)

    def __call__(self, code: Annotated[str, Field(description="the Python code")]) -> str:
        return self.open()(code)

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()

    def prepare(self) -> "Sandbox":
        """Open the sandbox. Raises SandboxError where programs cannot be isolated."""
        from verl_lite.sandbox import Sandbox

        options = self._options
        with self._lock:
            if self._sandbox is None:
                self._sandbox = Sandbox(
                    options.interpreters, unsafe=options.unsafe, libraries=options.libraries
                )
            return self._sandbox

    def start(self) -> "SandboxSession":
        """A new interpreter."""
        from verl_lite.sandbox import Limits

        options, sandbox = self._options, self.prepare()
        limits = Limits(
            wall_s=_SESSION_S,
            cpu_s=options.cpu_s,
            memory_mb=options.memory_mb,
            processes=options.processes,
            disk_mb=options.disk_mb,
        )
        return sandbox.open_python(self._program, limits=limits)


class Interpreter:
    """One trajectory's interpreter; it starts with the first call."""

    def __init__(self, factory: Python, options: PythonOptions) -> None:
        self._factory = factory
        self._options = options
        self._session: SandboxSession | None = None

    def __call__(self, code: str) -> str:
        from verl_lite.sandbox import SessionEnded

        options = self._options
        try:
            if self._session is None:
                self._session = self._factory.start()
                self._ask("", _START_S)  # it may have to wait for a worker
            reply = self._ask(code, options.timeout_s + _KILL_S)
        except TimeoutError:
            self._session = None
            lost = "the interpreter was stopped, and lost its variables and files"
            raise TimeoutError(f"no result within {options.timeout_s:g} s; {lost}") from None
        except SessionEnded as ended:
            self._session = None
            why = f"{ended.result.status}: {ended.result.message or 'it left'}"
            lost = "it lost its variables and files"
            raise ToolError(f"Error: the interpreter ended ({why}); {lost}") from None
        outcome, output = reply["outcome"], reply["output"]
        if outcome == "timeout":
            raise TimeoutError(output)
        if outcome == "error":
            raise ToolError(output)
        return CutText(output) if outcome == "truncated" else output

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _ask(self, code: str, wait_s: float) -> dict[str, str]:
        options = self._options
        assert self._session is not None
        request = {"code": code, "timeout_s": options.timeout_s, "max_bytes": options.max_output_chars}
        reply = self._session.ask(json.dumps(request).encode(), wait_s)
        found: dict[str, str] = json.loads(reply)
        return found
