"""RPC: a server process that echoes, and a client process that keeps calls in flight."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contestants import find
from benchmarks.load import load
from benchmarks.profiling import profiled
from benchmarks.worker import Station

WARM_UP = 0.25
"""Part of the measured time."""


async def serve(station: Station, *, profile: bool = False) -> None:
    """Answer until the parent wants no more."""
    async with find(station.contestant).serve(station.url):
        station.say(ready=True)
        with profiled(profile) as top:
            await station.hear()
        station.say(profile=top())


async def call(station: Station, *, in_flight: int, seconds: float, profile: bool = False) -> None:
    """Warm up, then measure."""
    contestant = find(station.contestant)
    one = in_flight == 1
    async with contestant.caller(station.url) as send:
        await load(send, contestant.Item, in_flight=in_flight, seconds=seconds * WARM_UP)
        with profiled(profile) as top:
            done = await load(send, contestant.Item, in_flight=in_flight, seconds=seconds, latencies=one)
    percentiles = {"p50_us": done.percentile_us(50), "p99_us": done.percentile_us(99)} if one else {}
    station.say(calls_per_s=done.count / done.elapsed_s, **percentiles, profile=top())


def sample_64(bench: Bench, contestant: str) -> dict[str, float]:
    """Calls per second with 64 in flight."""
    return {"rpc_64": _sample(bench, contestant, in_flight=64)["calls_per_s"]}


def sample_1(bench: Bench, contestant: str) -> dict[str, float]:
    """Latency of one call at a time."""
    facts = _sample(bench, contestant, in_flight=1)
    return {"rpc_1": facts["p50_us"], "rpc_1_p99": facts["p99_us"]}


def _sample(bench: Bench, contestant: str, in_flight: int) -> dict[str, float]:
    with bench.worker("measures.rpc:serve", contestant) as server:
        server.hear()
        with bench.worker("measures.rpc:call", contestant, in_flight=in_flight, seconds=bench.seconds) as client:
            return client.hear()


def profile(bench: Bench, contestant: str, side: str) -> str:
    """Return the profile of one side, `server` or `client`, under 64 calls in flight."""
    with bench.worker("measures.rpc:serve", contestant, profile=side == "server") as server:
        server.hear()
        with bench.worker(
            "measures.rpc:call", contestant, in_flight=64, seconds=bench.seconds, profile=side == "client"
        ) as client:
            facts = client.hear()
        if side == "server":
            server.say("enough")
            facts = server.hear()
    return str(facts["profile"])
