"""Replicas are ended by SIGTERM, one after the other, while 64 callers call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cliffracer_nats import EmbeddedNats

from cliffracer_core import ClientProxy, NoHandler, client
from cliffracer_core.testing import eventually

from .conftest import Start
from .forms import Form
from .load import Load
from .records import Records
from .traffic import TIMEOUT_S, calls_to, check_answers, handled, sales_through
from .workers.shop import Priced, Shop


async def test_nothing_is_lost_when_replicas_are_terminated(
    nats: EmbeddedNats, proxy: ClientProxy, start: Start, records: Records, form: Form, report: Callable[[str], None]
) -> None:
    """No caller that retries `NoHandler` sees an error; what was accepted ends, once; every event is handled."""
    replicas = await start("shop", nats.url, 2)
    shop = client(Shop, proxy.caller, timeout=TIMEOUT_S)
    price, unheard, pids = calls_to(shop), 0, {each.pid for each in replicas}

    async def retried(id: str, number: int) -> Priced:
        nonlocal unheard
        while True:
            try:
                return await price(id, number)
            except NoHandler:
                unheard += 1
                await asyncio.sleep(0.01)

    async with Load(retried, "c") as calls, Load(sales_through(proxy), "s", callers=8) as sales:
        for _ in range(form.terminations):
            await calls.more(form.calls // 10)
            leaving = replicas.pop(0)
            leaving.terminate()
            assert await leaving.ended() == 0
            assert leaving.errors == ""  # a call that was cut would stand there
            replicas += await start("shop", nats.url)
            pids.add(replicas[-1].pid)
        await calls.more(form.calls // 10)
        await calls.stop()
        await sales.stop()

    assert calls.failures == []
    check_answers(calls, by=pids)
    assert records.times("price", "began") == dict.fromkeys(calls.answers, 1)
    assert records.times("price", "done") == dict.fromkeys(calls.answers, 1)
    assert sales.failures == []
    await eventually(lambda: handled(records) >= set(sales.answers), 30)
    again = sum(count > 1 for count in records.times("record", "began").values())
    report(
        f"{form.terminations} SIGTERMs, {calls.done} calls, no error, {unheard} NoHandler retried; "
        f"{sales.done} durable events, all handled, {again} delivered again"
    )
