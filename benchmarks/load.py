"""`load`: keeps calls in flight and checks every reply."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable

from .payload import FIRST, TEXT, Numbered, check_reply

__all__ = ["Call", "Load", "load"]

Call = Callable[[Numbered], Awaitable[Numbered]]
_RING = 8_000_000


class Load:
    """What came of it."""

    def __init__(self, count: int, elapsed_s: float, cpu_s: float, latencies_s: array[float]) -> None:
        self.count = count
        """Calls made."""
        self.elapsed_s = elapsed_s
        self.cpu_s = cpu_s
        """Of this process, user and system."""
        self.latencies_s = latencies_s

    def percentile_us(self, percent: float) -> float:
        """Return the latency that `percent` of the calls did not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e6


async def load(
    call: Call,
    model: Callable[..., Numbered],
    *,
    in_flight: int,
    seconds: float = 3600.0,
    count: int = 2_000_000,
    latencies: bool = False,
) -> Load:
    """Call until `seconds` or `count` are over, whichever comes first.

    Latencies are kept only where asked for: a growing array disturbs a measure of memory.

    Raises:
        ValueError: a reply is wrong.
    """
    took: array[float] = array("d")
    done = 0
    clock = time.perf_counter
    begun, cpu = clock(), time.process_time()
    until = begun + seconds

    async def repeat(number: int) -> None:
        nonlocal done
        while (sent := clock()) < until and done + in_flight <= count:
            reply = await call(model(number=FIRST + number, text=TEXT))
            if latencies:
                took.append(clock() - sent)
            check_reply(FIRST + number, reply)
            done += 1
            number = (number + in_flight) % _RING

    await asyncio.gather(*(repeat(number) for number in range(in_flight)))
    return Load(done, clock() - begun, time.process_time() - cpu, took)
