"""One of three NATS servers is ended by `kill -9` while durable events flow: the one that leads their stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cliffracer_nats import NatsTransport

from cliffracer_core import ClientProxy
from cliffracer_core.testing import eventually

from .cluster import cluster
from .conftest import Start
from .forms import Form
from .load import Load
from .records import Records
from .traffic import handled, sales_through, stored_sales


async def test_every_event_is_handled_when_the_leader_of_its_stream_is_killed(
    start: Start, records: Records, form: Form, report: Callable[[str], None]
) -> None:
    """What was confirmed by a stream of three copies is handled, whichever of them dies."""
    with cluster() as servers:
        await servers.ready()
        async with ClientProxy(servers.url) as proxy:
            await start("shop", servers.url, 2)
            transport = proxy.caller.transport()
            assert isinstance(transport, NatsTransport)
            stream = await transport.jetstream.ask("STREAM.INFO.SALE")
            assert stream["config"]["num_replicas"] == 3
            async with Load(sales_through(proxy), "s", count=form.cluster_events) as sales:
                await eventually(lambda: sales.done >= form.cluster_events // 3, 120)
                leader = (await transport.jetstream.ask("STREAM.INFO.SALE"))["cluster"]["leader"]
                killed_at = time.monotonic()
                await asyncio.to_thread(servers.nodes[leader].kill)
                await sales.finish()
            assert sales.failures == []
            assert len(sales.answers) == form.cluster_events
            await eventually(lambda: handled(records) >= set(sales.answers), 120)
            done_s = time.monotonic() - killed_at
            assert await stored_sales(proxy) == dict.fromkeys(sales.answers, 1)
    again = sum(count > 1 for count in records.times("record", "began").values())
    report(
        f"{form.cluster_events} events over {leader}'s death, all stored once and handled, {again} delivered again; "
        f"slowest confirmation {sales.slowest_s:.1f} s, all handled {done_s:.1f} s after it"
    )
