"""Guards the namespace: `verl_lite` has one portion a room, so it must have no `__init__.py`."""

from pathlib import Path

from hypothesis import HealthCheck, settings

ROOMS = ("sandbox", "verifiers", "plugins", "engine")

for room in ROOMS:
    stray = Path(__file__).parent / room / "verl_lite" / "__init__.py"
    if stray.exists():
        raise RuntimeError(f"{stray} hides the other rooms of the verl_lite namespace: delete it")

# A time limit for an example would measure what else the machine is doing.
settings.register_profile("verl_lite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("verl_lite")
