"""One sandbox for the tests that only need one, so that its fork servers start once."""

from collections.abc import Iterator

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    try:
        opened = Sandbox(workers=2, backend="native")
    except SandboxError as error:
        pytest.skip(f"no isolation on this machine: {error}")
    with opened:
        yield opened
