"""What a worker process may use before it is replaced or killed."""

import os
from dataclasses import dataclass

from verl_lite.plugins.execution.wire import Health

LOAD_S = 120.0  # the longest that importing the rewards may take
BUILD_S = 120.0  # the longest that building a reward of class form may take


def _default_memory_mb() -> int:
    if not hasattr(os, "sysconf"):  # Windows
        return 4096
    total_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return min(4096, total_mb // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """memory_mb  resident memory at which a worker is killed; its current row is an "error"
    growth_mb     growth since its reward was built at which a worker is replaced; costs no row
    rows          rows after which a worker is replaced
    children      child processes a worker may have left between chunks
    threads       threads a worker may have left between chunks
    """

    memory_mb: int = _default_memory_mb()
    growth_mb: int = 256
    rows: int = 200_000
    children: int = 16
    threads: int = 64

    def worn_out(self, health: Health, rows_done: int) -> str:
        """Why a worker should be replaced before it gets more work, or ""."""
        grown_mb, children, threads, damage = health
        reasons = {
            damage: bool(damage),
            "memory growth": grown_mb > self.growth_mb,
            "rows": rows_done > self.rows,
            "child processes": children > self.children,
            "threads": threads > self.threads,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")
