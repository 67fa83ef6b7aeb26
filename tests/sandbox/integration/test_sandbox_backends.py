"""bubblewrap, the remote service, and what happens where nothing isolates."""

import base64
import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import (
    Limits,
    Sandbox,
    State,
    Status,
    UnsafeSandboxWarning,
    probe,
    sandbox as sandbox_module,
)


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("kill -9 $$", "killed"),
        ("sleep 60", "timeout"),
        ("while :; do :; done", "timeout"),
        ("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", "output_limit"),
        ("printf reply >&3", "ok"),
        ("cat /etc/shadow", "error"),
        ("cat < /dev/tcp/127.0.0.1/22", "error"),
        ("unshare -U true", "error"),
    ],
)
def test_bubblewrap_holds(program: str, status: str, bubblewrap: Sandbox) -> None:
    result = bubblewrap.run("bash", program, limits=Limits(wall_s=1, output_kb=64))
    assert result.status == status, result
    assert result.reply == (b"reply" if status == "ok" else b"")


def test_other_languages_beside_native_python(sandbox: Sandbox, bubblewrap: Sandbox) -> None:
    assert sandbox.backend == "native"
    assert sandbox.run("bash", "echo $((6 * 7))").stdout == b"42\n"
    with pytest.raises(SandboxError, match="cobol"):
        sandbox.run("cobol", "")


class Service:
    """Answers in SandboxFusion's shapes; what it should answer is set by the test."""

    def __init__(self, http_service: Callable[..., str]) -> None:
        self.answer: Any = None
        self.code = 200
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.url = http_service(self._answer)

    def _answer(self, path: str, headers: object, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self.seen.append((path, body))
        return self.code, {}, json.dumps(self.answer).encode()


@pytest.fixture
def service(http_service: Callable[..., str]) -> Service:
    return Service(http_service)


def answered(overall: str, **run: Any) -> dict[str, Any]:
    step = {"status": "Finished", "execution_time": 0.25, "return_code": 0, "stdout": "", "stderr": "", **run}
    unused = {"message": "", "compile_result": None, "executor_pod_name": None, "files": {}}
    return {"status": overall, "run_result": step, **unused}


def test_remote_request_and_answer(service: Service) -> None:
    service.answer = answered("Success", stdout="42\n", stderr="warned")
    limits = Limits(wall_s=2.5, memory_mb=64)
    with Sandbox(backend=service.url) as sandbox:
        result = sandbox.run_python("print(42)", stdin="in", files={"d.bin": b"\xff"}, limits=limits)
    assert (result.status, result.exit_code) == (Status.OK, 0)
    assert (result.stdout, result.stderr) == (b"42\n", b"warned")
    assert result.wall_s == 0.25
    [(path, body)] = service.seen
    assert path == "/run_code"
    assert body == {
        "code": "print(42)",
        "language": "python",
        "stdin": "in",
        "files": {"d.bin": base64.b64encode(b"\xff").decode()},
        "compile_timeout": 30.0,
        "run_timeout": 2.5,
        "memory_limit_MB": 64,
        "fetch_files": [],
    }


COMPILE_ERROR = {
    "status": "Failed",
    "message": "",
    "compile_result": {
        "status": "Finished",
        "execution_time": 0.1,
        "return_code": 1,
        "stdout": "",
        "stderr": "error: x",
    },
    "run_result": None,
}


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (answered("Failed", return_code=1, stderr="Traceback"), 200, "error"),
        (answered("Failed", status="TimeLimitExceeded", return_code=None), 200, "timeout"),
        (answered("Failed", status="Error", return_code=None), 200, "sandbox_error"),
        (answered("SandboxError"), 200, "sandbox_error"),
        (COMPILE_ERROR, 200, "error"),
        (answered("Success", stdout="x" * 2048), 200, "output_limit"),
        ({"detail": "no"}, 200, "sandbox_error"),
        ({"detail": "no"}, 500, "sandbox_error"),
        ([], 200, "sandbox_error"),
    ],
)
def test_remote_statuses(answer: Any, code: int, status: str, service: Service) -> None:
    service.answer, service.code = answer, code
    with Sandbox(backend=service.url) as sandbox:
        assert sandbox.run("cpp", "int main(){}", limits=Limits(output_kb=1)).status == status


def test_a_service_that_is_not_there_is_our_fault() -> None:
    with Sandbox(backend="http://127.0.0.1:9") as gone:
        result = gone.run_python("print(1)")
    assert result.status is Status.SANDBOX_ERROR
    assert "127.0.0.1:9" in result.message


def test_who_chose_a_service_runs_nothing_here() -> None:
    with Sandbox(backend="http://127.0.0.1:9") as gone:
        with pytest.raises(SandboxError, match=r"http://127\.0\.0\.1:9 does not run 'c': .*cpp"):
            gone.run("c", "int main(void) { return 0; }")
        with pytest.raises(SandboxError, match="command-line arguments"):
            gone.run_python("print(1)", args=["one"])


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_makes_no_sense(workers: int) -> None:
    with pytest.raises(ValueError, match=f"workers={workers}: expected at least 1"):
        Sandbox(workers=workers)


def cannot(*_: object, **__: object) -> None:
    raise SandboxError("user namespace: Operation not permitted")


def test_refuses_where_it_cannot_isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "NativeBackend", cannot)
    monkeypatch.setattr(sandbox_module, "BubblewrapBackend", cannot)
    with pytest.raises(SandboxError, match=r"native: user namespace.*bubblewrap: user namespace.*doctor"):
        Sandbox()


def test_unsafe_is_explicit_and_never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(workers=1, unsafe=True) as isolated:
        assert isolated.backend in ("native", "bubblewrap")  # isolation is still preferred
    monkeypatch.setattr(sandbox_module, "NativeBackend", cannot)
    monkeypatch.setattr(sandbox_module, "BubblewrapBackend", cannot)
    with pytest.warns(UnsafeSandboxWarning, match="WITHOUT isolation"):
        opened = Sandbox(unsafe=True)
    with opened:
        assert opened.backend == "unsafe"
        result = opened.run_python(
            "import os\nos.write(3, b'r')\nprint(input())", stdin="x", files={"f": b"1"}
        )
        assert (result.status, result.stdout, result.reply) == (Status.OK, b"x\n", b"r"), result
        slow = opened.run_python("while True: pass", limits=Limits(wall_s=0.5))
        assert slow.status is Status.TIMEOUT
        assert opened.run_python("b = bytearray(1 << 40)").status is Status.MEMORY


def test_falls_back_to_bubblewrap(monkeypatch: pytest.MonkeyPatch, bubblewrap: Sandbox) -> None:
    monkeypatch.setattr(sandbox_module, "NativeBackend", cannot)
    with Sandbox() as opened:
        assert opened.backend == "bubblewrap"


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(SandboxError, match="docker"):
        Sandbox(backend="docker")


def test_probe_names_each_layer(sandbox: Sandbox) -> None:
    layers = {layer.name: layer for layer in probe()}
    for name in ("pid namespace", "mount namespace", "network namespace", "seccomp", "python backend"):
        assert layers[name].state is State.ACTIVE, layers[name]
    assert (layers["javascript"].state is State.ACTIVE) == (shutil.which("node") is not None)
