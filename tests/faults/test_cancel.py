"""A caller gives up: its callee's handler is cancelled, and so is the call which that one made."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from cliffracer_nats import EmbeddedNats

from cliffracer_core import ClientProxy, CliffracerService, DeadlineExceeded, ServiceConfig, client
from cliffracer_core.testing import eventually, unique

from .conftest import Start
from .forms import Form
from .records import Records
from .workers.kitchen import Kitchen
from .workers.ledger import Entry, Ledger
from .workers.waiter import Waiter

PATIENCE_S = 0.05
PROMISED_S = 0.1
ALLOWED_S = 1.0
"""Ten times the promise, for single ones on a machine that is busy with something else; half of them keep it."""
HANDLERS = ("order", "cook")
GiveUp = Callable[[ClientProxy, Records, str], Awaitable[float]]
"""Order a meal, give up, and return when that was, on `time.monotonic()`."""


@pytest.fixture(params=["memory", "nats"])
async def restaurant(request: pytest.FixtureRequest, start: Start, records: Records) -> AsyncIterator[ClientProxy]:
    """A guest of a waiter who has a kitchen behind him; over NATS these are three processes."""
    async with contextlib.AsyncExitStack() as running:
        if request.param == "nats":
            url = request.getfixturevalue("nats").url
            await start("kitchen", url)
            await start("waiter", url)
        else:
            url = f"memory://{unique()}"
            for service in (Kitchen, Waiter):
                config = ServiceConfig(service.name, transport=url)
                await running.enter_async_context(service(config, replace={"ledger": Ledger(str(records.path))}))
        yield await running.enter_async_context(ClientProxy(url))


async def is_cancelled(proxy: ClientProxy, records: Records, meal: str) -> float:
    """The caller's task is cancelled while both handlers run."""
    calling = asyncio.create_task(client(Waiter, proxy.caller).order(meal=meal))
    await eventually(lambda: meal in records.times("cook", "began"))
    at = time.monotonic()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    return at


async def loses_patience(proxy: ClientProxy, records: Records, meal: str) -> float:
    """The caller stops waiting by itself; its callee was promised more time."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await client(Waiter, proxy.caller).order(meal=meal)
    return time.monotonic()


async def has_a_deadline(proxy: ClientProxy, records: Records, meal: str) -> float:
    """The caller said at once how long it would wait."""
    with pytest.raises(DeadlineExceeded):
        await client(Waiter, proxy.caller, timeout=PATIENCE_S).order(meal=meal)
    return time.monotonic()


def ended(records: Records, handler: str) -> list[Entry]:
    """Return how a handler ended: cancelled, or failed since the call it waited for was out of time too."""
    return records.entries(handler, "cancelled") + records.entries(handler, "failed")


def all_ended(records: Records) -> bool:
    """Tell whether every handler that began was cut short."""
    return all(len(ended(records, each)) == len(records.entries(each, "began")) for each in HANDLERS)


@pytest.mark.parametrize("give_up", [is_cancelled, loses_patience, has_a_deadline])
async def test_handlers_are_cancelled_when_the_caller(
    give_up: GiveUp, restaurant: ClientProxy, records: Records, form: Form, report: Callable[[str], None]
) -> None:
    """A caller that gives up ends its callee's handler, and the call which that one waits for."""
    gave_up_at: dict[str, float] = {}
    for number in range(form.cancellations):
        meal = f"m{number}"
        gave_up_at[meal] = await give_up(restaurant, records, meal)
        await eventually(lambda: all_ended(records))
    figures = []
    for handler in HANDLERS:
        took_s = [each.at - gave_up_at[each.id] for each in ended(records, handler)]
        assert took_s, f"no {handler!r} ever began, so this run shows nothing"
        assert statistics.median(took_s) < PROMISED_S
        assert max(took_s) < ALLOWED_S
        late = sum(each > PROMISED_S for each in took_s)
        median_ms, most_ms = statistics.median(took_s) * 1000, max(took_s) * 1000
        figures.append(f"{handler} {median_ms:.1f} ms, at most {most_ms:.1f} ms, {late} of {len(took_s)} late")
    report("; ".join(figures))


@pytest.mark.parametrize("frozen", ["waiter", "kitchen"])
async def test_nothing_runs_on_when_the_callee_was_busy_meanwhile(
    frozen: str, nats: EmbeddedNats, proxy: ClientProxy, start: Start, records: Records
) -> None:
    """A callee that reads a request and its cancellation at once does not work for nobody."""
    workers = {module: (await start(module, nats.url))[0] for module in ("kitchen", "waiter")}
    workers[frozen].pause()
    await loses_patience(proxy, records, "given up")
    await proxy.caller.transport().flush()
    workers[frozen].resume()
    await is_cancelled(proxy, records, "next")  # comes after the first one on the same connections
    await eventually(lambda: all_ended(records), ALLOWED_S)


@pytest.mark.parametrize("transport", ["memory", "nats"])
async def test_a_call_never_begins_when_its_caller_gave_up_in_the_queue(
    transport: str, request: pytest.FixtureRequest
) -> None:
    """Who gives up before a slot was free costs no work, long as the deadline may be."""
    url = f"memory://{unique()}" if transport == "memory" else request.getfixturevalue("nats").url
    service, began, release = CliffracerService(ServiceConfig("oven", transport=url)), list[str](), asyncio.Event()

    @service.rpc(concurrency=1)
    async def bake(bread: str) -> None:
        began.append(bread)
        await release.wait()

    async with service, ClientProxy(url) as proxy:
        baking = asyncio.create_task(proxy.caller.call("oven", "bake", {"bread": "first"}))
        await eventually(lambda: began == ["first"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await proxy.caller.call("oven", "bake", {"bread": "given up"})
        last = asyncio.create_task(proxy.caller.call("oven", "bake", {"bread": "last"}))
        await eventually(lambda: len(service.runtime.handlers["bake"].gate.waiting) == 2)
        release.set()
        await asyncio.gather(baking, last)
    assert began == ["first", "last"]
