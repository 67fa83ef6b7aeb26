"""Runs untrusted programs in isolation, with limits. Knows nothing about rewards."""

from verl_lite.sandbox.backend import RunFuture
from verl_lite.sandbox.layers import Layer, State, probe
from verl_lite.sandbox.limits import REPLY_FD, SANDBOX_VERSION, Limits, Result, Status
from verl_lite.sandbox.sandbox import Sandbox, UnsafeSandboxWarning

__all__ = [
    "REPLY_FD",
    "SANDBOX_VERSION",
    "Layer",
    "Limits",
    "Result",
    "RunFuture",
    "Sandbox",
    "State",
    "Status",
    "UnsafeSandboxWarning",
    "probe",
]
