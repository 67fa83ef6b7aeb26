"""The memory of this machine, or of the container that the process runs in."""

from dataclasses import dataclass
from pathlib import Path

CGROUPS = (  # (limit, used, statistics) of a container, by version of cgroups
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


@dataclass(frozen=True, slots=True)
class Ram:
    """`free_bytes` counts what the kernel gives back, such as cached files."""

    total_bytes: int
    free_bytes: int


def local_ram(*, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Ram | None:
    """The machine's memory within its container's limit; None where the system does not say (macOS)."""
    if not meminfo.exists():
        return None
    kib = dict(line.split(":") for line in meminfo.read_text().splitlines() if ":" in line)
    total, free = (int(kib[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    for limit, used, statistics in CGROUPS:
        text = (cgroup / limit).read_text().strip() if (cgroup / limit).exists() else "max"
        if text != "max" and int(text) < total:
            cached = dict(line.split() for line in (cgroup / statistics).read_text().splitlines())
            held = int((cgroup / used).read_text()) - int(cached["inactive_file"])
            total, free = int(text), min(free, int(text) - held)
    return Ram(total, free)
