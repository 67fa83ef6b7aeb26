"""The tier of every test, by its folder; and an environment of its own for tests that install packages."""

import contextlib
import importlib.util
import json
import multiprocessing.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, NoReturn

import pytest

TIERS = ("unit", "integration", "golden", "e2e")
SLOW_TIMEOUT_S = 900
# Files whose engines stay in one worker: their Ray sessions, and vLLM within the tests' own process.
TOGETHER = {
    "tests/engine/cluster/e2e/": "cluster",
    "tests/engine/cluster/integration/": "cluster",
    "tests/engine/rollout/e2e/": "vllm",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folder that a test file lies in names its tier; see README.md beside this file."""
    for item in items:
        tier = item.path.parent.name
        if tier not in TIERS:
            raise pytest.UsageError(f"{item.path}: has no tier: move it into a folder named {_or(TIERS)}")
        written = [name for name in TIERS if item.get_closest_marker(name)]
        if written:
            raise pytest.UsageError(
                f"{item.nodeid}: is marked {_or(written)}: remove that, its folder says {tier}"
            )
        item.add_marker(tier)
        if item.get_closest_marker("long"):
            item.add_marker("slow")
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
    if "PYTEST_XDIST_WORKER" in os.environ:  # the longest first, so that no worker ends alone
        items.sort(key=lambda item: -TIERS.index(item.path.parent.name))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes name no test: a compressed file holds the time, and two workers would collect two names."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay in one worker, so that what they share is made once; see TOGETHER."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((name for start, name in TOGETHER.items() if file.startswith(start)), file)

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)


@pytest.fixture(autouse=True)
def _unit_tests_start_no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("unit"):
        return

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a unit test starts no process: move this one to a folder named integration")

    for module, name in (
        (subprocess.Popen, "__init__"),
        (os, "fork"),
        (multiprocessing.util, "spawnv_passfds"),
    ):
        monkeypatch.setattr(module, name, refuse)


@pytest.fixture
def http_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., Any]], str]]:
    """Serves what a function of (path, headers, JSON) gives as (status, headers, bytes); returns the URL."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with contextlib.ExitStack() as ends:

        def serve(answer: Callable[..., tuple[int, dict[str, str], bytes]]) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    status, headers, data = answer(self.path, self.headers, body)
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
                        self.send_response(status)
                        for name, value in {**headers, "Content-Length": str(len(data))}.items():
                            self.send_header(name, value)
                        self.end_headers()
                        self.wfile.write(data)

                def log_message(self, *_: object) -> None: ...

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            for end in (server.server_close, thread.join, server.shutdown):  # the last one first
                ends.callback(end)
            return f"http://127.0.0.1:{server.server_port}"

        yield serve


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Loads a Python file by its path from the root of the project, such as one of benchmarks/."""

    def load(path: str) -> ModuleType:
        file = Path(__file__).parents[1] / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    return load


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees the packages of the one the tests run in, and keeps its own."""

    folder: Path
    home: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    @property
    def variables(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "VERL_"))}
        return {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "COLUMNS": "110",
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "error::UserWarning",
            # pip builds with the hatchling that is installed and asks no registry
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(
        self, *command: str | Path, cwd: Path, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment; its output is text, its exit code is not looked at."""
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def make_environment(folder: Path) -> Environment:
    command = [sys.executable, "-m", "venv", "--without-pip", folder / "venv"]
    subprocess.run(command, check=True, timeout=60)
    environment = Environment(folder / "venv", folder / "home")
    outer = sysconfig.get_path("purelib")
    (environment.packages / "outer_environment.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    environment.home.mkdir()
    script = f"#!{environment.bin / 'python'}\nfrom verl_lite.cli import main\nmain()\n"
    (environment.bin / "verl-lite").write_text(script)
    (environment.bin / "verl-lite").chmod(0o755)
    return environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A fresh environment below the test's folder."""
    return make_environment(tmp_path)


@pytest.fixture(scope="session")
def new_environment() -> Callable[[Path], Environment]:
    """Makes environments, for fixtures that share one between tests."""
    return make_environment


@pytest.fixture(scope="session")
def alive() -> Callable[[Iterable[int]], set[int]]:
    """Which of some processes still run; one that is dead and only not yet waited for does not."""

    def state_of(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    return lambda pids: {pid for pid in pids if state_of(pid) not in "ZX"}
