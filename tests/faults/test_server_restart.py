"""The NATS server is stopped, or killed, and started again while two replicas serve 64 callers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice, pairwise

from cliffracer_nats import EmbeddedNats

from cliffracer_core import ClientProxy, ConnectionError, DeadlineExceeded, NoHandler, client
from cliffracer_core.testing import eventually

from .conftest import Start
from .forms import Form
from .load import Load
from .records import Records
from .traffic import TIMEOUT_S, calls_to, check_answers, handled, sales_through, stored_sales
from .workers.shop import Priced, Shop


async def test_all_goes_on_when_the_server_restarts(
    nats: EmbeddedNats, proxy: ClientProxy, start: Start, records: Records, form: Form, report: Callable[[str], None]
) -> None:
    """Subscriptions come back, readiness shows the gap, each event is stored once and handled at least once."""
    replicas = await start("shop", nats.url, 2)
    pids = {each.pid for each in replicas}
    shop = client(Shop, proxy.caller, timeout=TIMEOUT_S)
    gaps_s: list[float] = []
    outages: list[tuple[float, float]] = []
    async with Load(calls_to(shop), "c") as calls, Load(sales_through(proxy), "s", callers=8) as sales:
        for number in range(form.restarts):
            await calls.more(form.calls)
            down_at = time.monotonic()
            await asyncio.to_thread(nats.kill if number % 2 else nats.stop)
            went = [await each.until(ready=False, timeout_s=10) for each in replicas]
            up_at = time.monotonic()
            await asyncio.to_thread(nats.start)
            came = [await each.until(ready=True, timeout_s=30) for each in replicas]
            assert all(down_at < gone.at < up_at < back.at for gone, back in zip(went, came, strict=True))
            outages.append((down_at, max(back.at for back in came)))
            gaps_s += [back.at - gone.at for gone, back in zip(went, came, strict=True)]
            before = len(calls.answers)
            await eventually(lambda: pids <= _answering(calls, since=before), 30)  # noqa: B023  # awaited here
        await calls.more(form.calls)
        await calls.stop()
        await sales.stop()

    check_answers(calls, by=pids)
    for failure in calls.failures:
        assert isinstance(failure.error, NoHandler | DeadlineExceeded | ConnectionError), failure
    assert sales.failures == []
    await eventually(lambda: handled(records) >= set(sales.answers), 60)
    assert await stored_sales(proxy) == dict.fromkeys(sales.answers, 1)
    assert _repeated_without(outages, records) == []
    again = sum(count > 1 for count in records.times("record", "began").values())
    report(
        f"{form.restarts} restarts, not ready for {min(gaps_s):.2f} to {max(gaps_s):.2f} s; "
        f"{calls.done} calls, {calls.errors}; {sales.done} durable events, all handled, {again} delivered again"
    )


def _answering(calls: Load[Priced], since: int) -> set[int]:
    """Return the processes that gave the answers past the first `since`."""
    return {answer.pid for answer in islice(calls.answers.values(), since, None)}


def _repeated_without(outages: list[tuple[float, float]], records: Records) -> list[str]:
    """Return the events that came again although no outage lay between, which could have cost an ack.

    The attempts they say are no help: a server that is killed forgets deliveries it had not yet written down.
    """
    began = defaultdict[str, list[float]](list)
    for each in records.entries("record", "began"):
        began[each.id].append(each.at)
    return [
        id
        for id, times in began.items()
        for first, again in pairwise(sorted(times))
        if not any(first < back_at and down_at < again for down_at, back_at in outages)
    ]
