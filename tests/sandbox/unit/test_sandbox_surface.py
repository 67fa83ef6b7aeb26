"""The public surface of verl_lite.sandbox and verl_lite.errors. A change here is a change for users."""

import dataclasses
import inspect
import re
from collections.abc import Callable

import verl_lite.errors
import verl_lite.sandbox
from verl_lite.errors import VerlLiteError
from verl_lite.sandbox import Limits, Result, Sandbox


def test_the_public_names_of_the_sandbox() -> None:
    names = [
        "LIBRARY_SETS",
        "REPLY_FD",
        "SANDBOX_VERSION",
        "Layer",
        "Limits",
        "Result",
        "RunFuture",
        "Sandbox",
        "SandboxSession",
        "SessionEnded",
        "State",
        "Status",
        "UnsafeSandboxWarning",
        "probe",
        "serve_sandbox",
    ]
    assert verl_lite.sandbox.__all__ == names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(getattr(verl_lite.sandbox, name) is not None for name in names)


def test_the_public_names_of_the_errors() -> None:
    names = [
        "CheckpointError",
        "ConfigError",
        "DataError",
        "EnvironmentFailed",
        "PluginError",
        "RankLost",
        "RewardError",
        "SandboxError",
        "TrainingError",
        "VerlLiteError",
    ]
    assert verl_lite.errors.__all__ == names == sorted(names)
    assert all(issubclass(getattr(verl_lite.errors, name), VerlLiteError) for name in names)


def signature(function: Callable[..., object]) -> str:
    """The signature without the modules of its types."""
    return re.sub(r"(?:[A-Za-z_]\w*\.)+", "", str(inspect.signature(function)))


def test_the_signatures_of_the_sandbox() -> None:
    options = (
        "*, stdin: bytes | str = b'', files: Mapping[str, bytes] = {}, args: Sequence[str] = (), "
        f"limits: Limits = {Limits()!r})"
    )
    assert signature(Sandbox) == (
        "(workers: int | None = None, backend: str = 'auto', unsafe: bool = False, *, "
        "read_only_paths: Sequence[str] = (), libraries: Sequence[str] = (), "
        "network_per_run: bool = False) -> None"
    )
    assert signature(Sandbox.run) == f"(self, language: str, source: str, {options} -> Result"
    assert signature(Sandbox.run_python) == f"(self, source: str, {options} -> Result"
    assert signature(Sandbox.submit_python) == f"(self, source: str, {options} -> RunFuture"
    assert signature(Sandbox.close) == "(self) -> None"
    assert signature(verl_lite.sandbox.probe) == "() -> list[Layer]"


def test_the_fields_of_limits_and_result() -> None:
    assert dataclasses.asdict(Limits()) == {
        "wall_s": 5.0,
        "cpu_s": None,
        "memory_mb": 512,
        "processes": 16,
        "file_size_mb": 16,
        "output_kb": 1024,
        "open_files": 64,
        "disk_mb": 64,
        "compile_wall_s": 30.0,
        "compile_memory_mb": 1024,
    }
    assert [field.name for field in dataclasses.fields(Result)] == [
        "status",
        "exit_code",
        "stdout",
        "stderr",
        "reply",
        "wall_s",
        "cpu_s",
        "peak_memory_mb",
        "message",
    ]
