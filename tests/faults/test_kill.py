"""A replica is ended by `kill -9` while both serve 64 callers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from cliffracer_nats import EmbeddedNats

from cliffracer_core import ClientProxy, ConnectionError, DeadlineExceeded, NoHandler, client
from cliffracer_core.testing import eventually

from .conftest import Start
from .forms import Form
from .load import Load
from .records import Records
from .traffic import TIMEOUT_S, calls_to, check_answers, handled, sales_through
from .workers.ledger import Step
from .workers.shop import Shop

STEPS: tuple[Step, ...] = ("began", "done")
NOTICED_WITHIN_S = 1.0
"""The kernel closes a dead process's socket at once, and the server reads that; a busy machine takes longer."""


async def test_a_killed_replica_takes_only_what_it_held(
    nats: EmbeddedNats, proxy: ClientProxy, start: Start, records: Records, form: Form, report: Callable[[str], None]
) -> None:
    """Callers of a killed replica get a typed error in time, all others their answer; no durable event is lost."""
    killed, survivor = await start("shop", nats.url, 2)
    shop = client(Shop, proxy.caller, timeout=TIMEOUT_S)
    async with Load(calls_to(shop), "c") as calls, Load(sales_through(proxy), "s", callers=8) as sales:
        await calls.more(form.calls)
        killed_at = time.monotonic()
        killed.kill()
        assert await killed.ended() == -signal.SIGKILL
        await calls.more(form.calls)
        await eventually(lambda: time.monotonic() > killed_at + NOTICED_WITHIN_S + TIMEOUT_S)
        await calls.stop()
        await sales.stop()

    check_answers(calls, by={killed.pid, survivor.pid})
    began = {each.id: each.pid for each in records.entries("price", "began")}
    left = {step: {each.id for each in records.entries("record", step) if each.pid == killed.pid} for step in STEPS}
    held = left["began"] - left["done"]
    assert calls.failures, "the killed replica held no call, so this run shows nothing"
    assert held, "the killed replica held no event, so this run shows nothing"
    for failure in calls.failures:
        assert isinstance(failure.error, NoHandler | DeadlineExceeded | ConnectionError), failure
        assert began.get(failure.id) in (killed.pid, None), f"{failure} though the other replica had it"
        assert failure.sent_at < killed_at + NOTICED_WITHIN_S, f"{failure} though it was sent long after the kill"
        assert failure.failed_at - failure.sent_at < TIMEOUT_S + 2.0, failure
    assert sales.failures == []
    await eventually(lambda: handled(records) >= set(sales.answers), 30)
    report(
        f"{calls.done} calls, {calls.errors} ({sum(each.id in began for each in calls.failures)} had begun); "
        f"{sales.done} durable events, all handled, {len(held)} of them held by the killed replica"
    )
