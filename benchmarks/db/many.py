"""`create_many`: batches of 10,000 models that were made beforehand, each into an empty table."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.bench import Bench
from benchmarks.profiling import profiled
from benchmarks.worker import Station

from .contestants import find
from .table import check_rows, clear, fresh_table

__all__ = ["create", "profile", "sample"]

ROWS = 10_000
FEWEST = 3
"""Batches, of which the first one warms up."""


async def create(station: Station, *, seconds: float, profile: bool = False) -> None:
    """Write batches until the time is over; only the writing is counted."""
    await fresh_table(station.url)
    elapsed_s = cpu_s = 0.0
    batches, top = 0, str
    async with find(station.contestant).opened(station.url) as opened:
        until = time.perf_counter() + seconds
        while batches < FEWEST or time.perf_counter() < until:
            built = opened.build(ROWS)
            with profiled(profile and batches > 0) as top:
                begun, cpu = time.perf_counter(), time.process_time()
                await opened.create_many(built)
                took_s, used_s = time.perf_counter() - begun, time.process_time() - cpu
            await check_rows(station.url, ROWS)
            await clear(station.url)
            if batches:
                elapsed_s, cpu_s = elapsed_s + took_s, cpu_s + used_s
            batches += 1
    rows = (batches - 1) * ROWS
    station.say(
        rows={"create_many": rows / elapsed_s, "create_many_cpu": cpu_s / (batches - 1) * 1000},
        profile=top(),
    )


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Rows per second, and processor time for each batch."""
    rows: dict[str, float] = _facts(bench, contestant)["rows"]
    return rows


def profile(bench: Bench, contestant: str) -> str:
    """Return the profile of the client writing the last batch."""
    return str(_facts(bench, contestant, profile=True)["profile"])


def _facts(bench: Bench, contestant: str, *, profile: bool = False) -> dict[str, Any]:
    with bench.worker("db.many:create", contestant, seconds=bench.seconds, profile=profile) as worker:
        return worker.hear()
