"""What the figures were measured on: versions, processor, load; nothing that names a host or a path."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .worker import Station

__all__ = ["interpreter", "processor"]


async def interpreter(station: Station, *, distributions: list[str]) -> None:
    """Say which versions this worker has, of what is installed."""
    versions = {}
    for name in distributions:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    station.say(
        python=platform.python_version(),
        eager=sys.version_info >= (3, 12),
        versions=versions,
    )


def processor() -> str:
    """Describe processor, cores and memory."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    kernel = platform.release().partition("-")[0]
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory_gb:.0f} GB, {platform.system()} {kernel}"
