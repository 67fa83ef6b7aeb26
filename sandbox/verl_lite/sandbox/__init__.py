"""Runs untrusted programs in isolation, with limits. Knows nothing about rewards."""

from verl_lite.sandbox.backend import RunFuture
from verl_lite.sandbox.layers import Layer, State, probe
from verl_lite.sandbox.limits import REPLY_FD, SANDBOX_VERSION, Limits, Result, Status
from verl_lite.sandbox.sandbox import Sandbox, UnsafeSandboxWarning

__all__ = [
    "Layer",
    "Limits",
    "REPLY_FD",
    "Result",
    "RunFuture",
    "SANDBOX_VERSION",
    "Sandbox",
    "State",
    "Status",
    "UnsafeSandboxWarning",
    "probe",
]
