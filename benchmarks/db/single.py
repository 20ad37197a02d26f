"""`get` and `create`: 16 tasks that read, or write, one row at a time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from benchmarks.bench import Bench
from benchmarks.profiling import profiled
from benchmarks.worker import Station

from .contestants import CONNECTIONS, find
from .table import check_rows, fresh_table

__all__ = ["create", "get", "profile", "sample"]

ROWS = 10_000
WARM_UP = 0.25
"""Part of the measured time."""
Step = Callable[[int], Awaitable[None]]


async def get(station: Station, *, seconds: float, profile: bool = False) -> None:
    """Read rows of a small table by their ids, and check each."""
    ids = await fresh_table(station.url, ROWS)
    async with find(station.contestant).opened(station.url) as opened:

        async def step(number: int) -> None:
            if await opened.get(ids[number % ROWS]) != number % ROWS:
                raise ValueError(f"row {number} has another amount")

        station.say(**(await _measure(step, "get", seconds, profile)).facts)


async def create(station: Station, *, seconds: float, profile: bool = False) -> None:
    """Write rows into an empty table, and count them."""
    await fresh_table(station.url)
    async with find(station.contestant).opened(station.url) as opened:

        async def step(number: int) -> None:
            await opened.create(number)

        found = await _measure(step, "create", seconds, profile)
    await check_rows(station.url, found.steps)
    station.say(**found.facts)


class _Found(NamedTuple):
    steps: int
    facts: dict[str, object]


async def _measure(step: Step, name: str, seconds: float, profile: bool) -> _Found:
    """Take steps, numbered from 0, for so long after warming up."""
    numbers = itertools.count()

    async def repeat(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            await step(next(numbers))
            done += 1
        return done

    async def together(length_s: float) -> tuple[int, float, float]:
        begun, cpu = time.perf_counter(), time.process_time()
        done = sum(await asyncio.gather(*(repeat(begun + length_s) for _ in range(CONNECTIONS))))
        return done, time.perf_counter() - begun, time.process_time() - cpu

    warmed = (await together(seconds * WARM_UP))[0]
    with profiled(profile) as top:
        done, elapsed_s, cpu_s = await together(seconds)
    rows = {name: done / elapsed_s, f"{name}_cpu": cpu_s / done * 1e6}
    return _Found(warmed + done, {"rows": rows, "profile": top()})


def sample(bench: Bench, contestant: str, *, name: str) -> dict[str, float]:
    """Rows per second, and processor time for each."""
    rows: dict[str, float] = _facts(bench, contestant, name)["rows"]
    return rows


def profile(bench: Bench, contestant: str, *, name: str) -> str:
    """Return the profile of the client."""
    return str(_facts(bench, contestant, name, profile=True)["profile"])


def _facts(bench: Bench, contestant: str, name: str, *, profile: bool = False) -> dict[str, Any]:
    with bench.worker(f"db.single:{name}", contestant, seconds=bench.seconds, profile=profile) as worker:
        return worker.hear()
