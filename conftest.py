"""Guards the namespace: `verl_lite` has one portion a room, so it must have no `__init__.py`."""

import os
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]  # only the outermost conftest.py may name plugins
ROOMS = ("sandbox", "verifiers", "plugins", "engine")

for room in ROOMS:
    stray = Path(__file__).parent / room / "verl_lite" / "__init__.py"
    if stray.exists():
        raise RuntimeError(f"{stray} hides the other rooms of the verl_lite namespace: delete it")

# Workers share the cores: more threads, and those that spin while idle, would take them from each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A time limit for an example would measure what else the machine is doing.
settings.register_profile("verl_lite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("verl_lite")

# A shell starts background jobs with Ctrl-C ignored, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
