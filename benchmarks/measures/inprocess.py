"""A call in one process, without a server: what the chain itself costs."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contestants import find
from benchmarks.load import load
from benchmarks.worker import Station


async def call(station: Station, *, seconds: float) -> None:
    """Measure CPU time per call, one at a time and with 64 in flight; the loop that calls is part of it."""
    contestant = find(station.contestant)
    found: dict[str, float] = {}
    async with contestant.inprocess() as send:
        for name, in_flight in (("inprocess_1", 1), ("inprocess_64", 64)):
            await load(send, contestant.Item, in_flight=in_flight, seconds=seconds / 4)
            done = await load(send, contestant.Item, in_flight=in_flight, seconds=seconds)
            found[name] = done.cpu_s / done.count * 1e6
    station.say(**found)


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """CPU microseconds per call; no plugin is installed."""
    with bench.worker(
        "measures.inprocess:call", contestant, env={"CLIFFRACER_PLUGINS": ""}, seconds=bench.seconds / 2
    ) as worker:
        return worker.hear()
