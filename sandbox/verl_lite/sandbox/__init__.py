"""Runs untrusted programs. A leaf: knows nothing of rewards."""

from verl_lite.sandbox.limits import REPLY_FD, Limits, Result, Status
from verl_lite.sandbox.sandbox import Sandbox

__all__ = ["REPLY_FD", "Limits", "Result", "Sandbox", "Status"]
