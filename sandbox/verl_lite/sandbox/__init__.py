"""Runs untrusted programs in isolation, with limits. Knows nothing about rewards."""

# isort: off
from verl_lite.sandbox._platform import require_linux

require_linux()  # before anything below imports what only Linux has
# isort: on

from verl_lite.sandbox.backend import RunFuture  # noqa: E402
from verl_lite.sandbox.layers import Layer, State, probe  # noqa: E402
from verl_lite.sandbox.libraries import LIBRARY_SETS  # noqa: E402
from verl_lite.sandbox.limits import REPLY_FD, SANDBOX_VERSION, Limits, Result, Status  # noqa: E402
from verl_lite.sandbox.sandbox import Sandbox, UnsafeSandboxWarning, serve_sandbox  # noqa: E402
from verl_lite.sandbox.session import SandboxSession, SessionEnded  # noqa: E402

__all__ = [
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
