"""The sandbox isolates with the Linux kernel; elsewhere its import says so, and what to do instead."""

import sys
from importlib.util import find_spec

from verl_lite.errors import SandboxError


def require_linux() -> None:
    """Raise SandboxError on a system that cannot isolate programs."""
    if sys.platform == "linux" and sys.modules.get("resource", "") is not None and find_spec("resource"):
        return
    raise SandboxError(
        f"programs are run in a sandbox that needs Linux, and this is {sys.platform}: score them in WSL 2 or "
        "a Linux container, or start `verl-lite rewards serve` on a Linux machine and write "
        "`use: http://HOST:PORT/NAME` here"
    )
