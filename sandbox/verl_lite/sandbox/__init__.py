"""Runs untrusted programs. A leaf: knows nothing of rewards."""

from verl_lite.sandbox.limits import REPLY_FD, SANDBOX_VERSION, Limits, Result, Status
from verl_lite.sandbox.probe import Layer, State, probe
from verl_lite.sandbox.sandbox import Sandbox, UnsafeSandboxWarning

__all__ = [
    "REPLY_FD",
    "SANDBOX_VERSION",
    "Layer",
    "Limits",
    "Result",
    "Sandbox",
    "State",
    "Status",
    "UnsafeSandboxWarning",
    "probe",
]
