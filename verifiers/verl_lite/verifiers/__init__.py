"""Text in, Verdict out: math, code and format. Pure; no plugins, no torch."""

from verl_lite.verifiers.verdict import Outcome, Verdict

__all__ = ["Outcome", "Verdict"]
