"""The exception tree. Every error a user can meet is a picklable VerlLiteError.

Each class also inherits the standard type it refines, so `except ValueError` keeps working.
A message says what was expected, what was found, where, and what to do.
"""

__all__ = [
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


class VerlLiteError(Exception):
    """Base of everything verl-lite raises on purpose."""


class ConfigError(VerlLiteError, ValueError):
    """An invalid configuration; the command exits with code 2."""


class DataError(VerlLiteError, ValueError):
    """A data set, rollout file or model folder that cannot be used; exit code 2."""


class PluginError(VerlLiteError, RuntimeError):
    """A reward plugin that cannot be found, loaded or registered; exit code 2."""


class RewardError(VerlLiteError, RuntimeError):
    """Scoring had to stop: `on_error: abort`, or too many rows failed."""


class EnvironmentFailed(VerlLiteError, RuntimeError):
    """An environment failed, hung or died: its trajectory is an error and gets no reward."""


class SandboxError(VerlLiteError, RuntimeError):
    """The sandbox cannot isolate programs on this machine, or the sandbox itself failed."""


class CheckpointError(VerlLiteError, RuntimeError):
    """A checkpoint that is missing, damaged or belongs to another run."""


class TrainingError(VerlLiteError, RuntimeError):
    """Training stopped itself: stale weights, diverging loss, or a failed stage."""


class RankLost(TrainingError):
    """A learner rank died or did not answer within cluster.call_timeout_s; its state is lost.

    The other ranks cannot continue. Training resumes from the last checkpoint with new ranks.
    """
