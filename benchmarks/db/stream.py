"""`stream`: a table of 1,000,000 rows read to its end, and the memory that takes."""

from __future__ import annotations

import os
import time

from benchmarks.bench import Bench
from benchmarks.worker import Station, private_bytes

from .contestants import find
from .table import fill, fresh_table

__all__ = ["read", "sample"]

LOOKS = 20
"""How often memory is looked at on the way."""
WITHIN_S = 300.0


async def read(station: Station) -> None:
    """Read a few rows to warm up, then all, and check them."""
    rows = int(os.environ["BENCH_ROWS"])
    await fresh_table(station.url, 2000)
    async with find(station.contestant).opened(station.url) as opened:
        async for _ in opened.stream():
            pass
        await fresh_table(station.url)
        await fill(station.url, rows)
        before = most = private_bytes()
        step = max(1, rows // LOOKS)
        read = total = 0
        looking_s = 0.0
        begun = time.perf_counter()
        async for amount in opened.stream():
            read += 1
            total += amount
            if read % step == 0:
                look = time.perf_counter()
                most = max(most, private_bytes())
                looking_s += time.perf_counter() - look
        elapsed_s = time.perf_counter() - begun - looking_s
    if (read, total) != (rows, rows * (rows - 1) // 2):
        raise ValueError(f"{read} of {rows} rows came, or not each once")
    station.say(stream=rows / elapsed_s, stream_memory=(most - before) / 1000)


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Rows per second, and by how much private bytes exceeded those before, in kB."""
    with bench.worker("db.stream:read", contestant) as worker:
        return worker.hear(WITHIN_S)
