"""Sandboxes for the tests that only need one, so that their processes start once."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Result, Sandbox
from verl_lite.sandbox._rootfs import base_python
from verl_lite.sandbox.languages import LANGUAGES, find_toolchain, visible_to_others

SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    yield from opened("native", workers=2)


@pytest.fixture(scope="module")
def public_python() -> Iterator[None]:
    """Root's sandboxes may switch to a user that cannot see our interpreter: then they get the system's."""
    if os.geteuid() != 0 or visible_to_others(base_python()):
        yield
        return
    if not os.path.exists(SYSTEM_PYTHON):
        pytest.skip(f"{base_python()} is private, and there is no {SYSTEM_PYTHON}")
    words = (os.path.realpath(SYSTEM_PYTHON), "-s", "-S", "main.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "_base_executable", SYSTEM_PYTHON)
        patch.setattr(sys, "base_prefix", "/usr")
        patch.setitem(LANGUAGES, "python", replace(LANGUAGES["python"], tools=words[:1], run=words))
        find_toolchain.cache_clear()
        yield
    find_toolchain.cache_clear()


@pytest.fixture(scope="module")
def bubblewrap(public_python: None) -> Iterator[Sandbox]:
    yield from opened("bubblewrap")


@pytest.fixture(scope="module")
def landlock(public_python: None) -> Iterator[Sandbox]:
    yield from opened("landlock", workers=4)


def opened(backend: str, workers: int | None = None) -> Iterator[Sandbox]:
    try:
        sandbox = Sandbox(workers=workers, backend=backend)
    except SandboxError as error:
        pytest.skip(f"no isolation on this machine: {error}")
    with sandbox:
        yield sandbox


@pytest.fixture
def run_language(bubblewrap: Sandbox) -> Callable[..., Result]:
    """`Sandbox.run` in bubblewrap; skips where the language's tools are missing."""

    def run(language: str, source: str, **options: object) -> Result:
        try:
            return bubblewrap.run(language, source, **options)  # type: ignore[arg-type]
        except SandboxError as error:
            pytest.skip(str(error))

    return run
