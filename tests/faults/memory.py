"""What a process holds, by Linux's /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

__all__ = ["MIB", "needs_proc", "private_bytes", "sockets"]

MIB = 1024 * 1024
needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads memory from Linux's /proc")


def private_bytes(pid: int) -> int:
    """Return the memory that a process shares with no other."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(each) * 1024 for each in re.findall(r"Private_(?:Clean|Dirty):\s+(\d+)", text))


def sockets(pid: int) -> int:
    """Count the sockets that a process has open."""
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += os.readlink(each).startswith("socket:")
        except FileNotFoundError:
            pass  # closed meanwhile
    return count
