"""Memory: how much the private bytes of server and client grow over many calls."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contestants import find
from benchmarks.load import load
from benchmarks.worker import Station, private_bytes

WARM_UP, CALLS = 20_000, 100_000
FULL_WARM_UP, FULL_CALLS = 200_000, 1_000_000
CALLS_TAKE_AT_MOST_S = 900


async def serve(station: Station) -> None:
    """Answer calls; say at each word how much memory is used."""
    async with find(station.contestant).serve(station.url):
        station.say(ready=True)
        while await station.hear():
            station.say(private=private_bytes())


async def call(station: Station, *, counts: list[int]) -> None:
    """Call so often, say how much memory is used, and wait for a word, again and again."""
    contestant = find(station.contestant)
    async with contestant.caller(station.url) as send:
        for count in counts:
            await load(send, contestant.Item, in_flight=64, count=count)
            station.say(private=private_bytes())
            await station.hear()


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Growth in kB after warm-up."""
    counts = [FULL_WARM_UP, FULL_CALLS] if bench.full else [WARM_UP, CALLS]
    found: list[tuple[int, int]] = []
    with bench.worker("measures.memory:serve", contestant) as server:
        server.hear()
        with bench.worker("measures.memory:call", contestant, counts=counts) as client:
            for _ in counts:
                at_client = client.hear(CALLS_TAKE_AT_MOST_S)["private"]
                server.say("how much")
                found.append((server.hear()["private"], at_client))
                client.say("go on")
    (server_before, client_before), (server_after, client_after) = found
    return {
        "memory_server": (server_after - server_before) / 1000,
        "memory_client": (client_after - client_before) / 1000,
    }
