from __future__ import annotations

import asyncio

import pytest
from cliffracer_db import Database, DatabaseModel, IdempotencyConflict, InvalidValue, Repository, transactional
from cliffracer_db.inbox import Inbox
from cliffracer_nats.embedded import EmbeddedNats
from psycopg import sql

from cliffracer_core import CliffracerService, ServiceConfig, event, rpc
from cliffracer_core.errors import CliffracerError, ConfigurationError
from cliffracer_core.testing import eventually, unique

from .db_models import make_tables


class Charge(DatabaseModel):
    __tablename__ = "charges"

    amount: int


class Billing(CliffracerService):
    name = "billing"
    db = Database()
    charges = Repository(Charge)
    failing = 0
    slow: asyncio.Event | None = None

    @rpc(idempotent=True)
    async def charge(self, amount: int) -> Charge:
        made = await self.charges.create(Charge(amount=amount))
        if self.slow is not None:
            await self.slow.wait()
        if self.failing > 0:
            type(self).failing -= 1
            raise ValueError("no")
        return made

    @rpc(idempotent=True)
    @transactional(isolation="serializable")
    async def strict(self, amount: int) -> None:
        await self.charges.create(Charge(amount=amount))


@pytest.fixture
async def service(db: Database) -> Billing:
    await make_tables(db, Charge)
    Billing.failing, Billing.slow = 0, None
    assert db.settings is not None
    return Billing(ServiceConfig("billing", db={"url": db.settings.url, "pool_max_size": 30}))


async def charge(service: Billing, amount: int, key: str | None, method: str = "charge") -> object:
    return await service.caller.call("billing", method, {"amount": amount}, idempotency_key=key)


async def test_repeated_call_gets_the_first_result_and_has_no_further_effect(service: Billing) -> None:
    """Under one key a call runs once; other keys, and calls without one, run each time."""
    async with service:
        first = await charge(service, 5, "k1")
        assert await charge(service, 5, "k1") == first
        assert await service.charges.count() == 1
        assert await charge(service, 5, "k2") != first
        await charge(service, 5, None)
        await charge(service, 5, None)
        assert await service.charges.count() == 4
        for _ in range(2):
            assert await charge(service, 6, "k3", "strict") is None
        assert await service.charges.count(amount=6) == 1
        assert await charge(service, 7, "k1", "strict") is None  # a key is one handler's


async def test_call_is_refused_when_its_key_was_used_with_other_arguments(service: Billing) -> None:
    """Another body under the same key is a 422, and an unusable key a 400; nothing runs."""
    async with service:
        await charge(service, 5, "k")
        with pytest.raises(IdempotencyConflict) as caught:
            await charge(service, 6, "k")
        assert caught.value.status == 422
        for key in ("", "x" * 256):
            with pytest.raises(InvalidValue):
                await charge(service, 5, key)
        assert await service.charges.count() == 1


async def test_call_runs_again_when_the_first_has_failed(service: Billing) -> None:
    """What failed left nothing, the record included."""
    async with service:
        Billing.failing = 1
        with pytest.raises(CliffracerError):
            await charge(service, 5, "k")
        assert await service.charges.count() == 0
        await charge(service, 5, "k")
        assert await service.charges.count() == 1


async def test_concurrent_calls_under_one_key_run_once(service: Billing) -> None:
    """Twenty calls at once: one runs, the others wait for its result."""
    async with service:
        results = await asyncio.gather(*(charge(service, 5, "k") for _ in range(20)))
        assert all(each == results[0] for each in results)
        assert await service.charges.count() == 1


async def test_old_records_are_removed(db: Database, service: Billing) -> None:
    """After `inbox_keep_s` a key is forgotten, and may stand for another call; younger ones stay."""
    async with service:
        await charge(service, 5, "old")
        await charge(service, 5, "young")
        await db.execute(
            sql.SQL("update cliffracer_inbox set recorded_at = now() - interval '8 days' where key = 'old'")
        )
        await Inbox(service.db).prune(7 * 86400)  # the service itself may be faster
        assert await db.select(sql.SQL("select key from cliffracer_inbox")) == [{"key": "young"}]
        await charge(service, 6, "old")
        await charge(service, 5, "young")
        assert await service.charges.count() == 3


async def test_event_takes_effect_once_when_it_is_delivered_again(db: Database, nats_server: EmbeddedNats) -> None:
    """A delivery that comes again after its effect was committed is acknowledged without another."""
    await make_tables(db, Charge)
    subject = unique()
    runs: list[int] = []

    class Ledger(CliffracerService):
        name = "ledger"
        charges = Repository(Charge)

        @event(f"{subject}.paid", durable=True, idempotent=True, ack_wait_s=1.0, backoff_s=0.05)
        async def paid(self, amount: int) -> None:
            runs.append(amount)
            await self.charges.create(Charge(amount=amount))
            if len(runs) == 1:
                raise ValueError("after the write")

    assert db.settings is not None
    section = {"url": db.settings.url}
    async with Ledger(ServiceConfig("ledger", db=section, nats_url=nats_server.url)) as service:
        await service.publish(f"{subject}.paid", {"amount": 1}, durable=True, message_id=f"{subject}-1")
        await eventually(lambda: len(runs) == 2)

        async def charged() -> bool:
            return await service.charges.count() == 1

        await eventually(charged)
        # the same event again, past the broker's own duplicate check
        headers = {"X-Original-Message-ID": f"{subject}-1"}
        await service.publish(f"{subject}.paid", {"amount": 1}, durable=True, headers=headers)
        await service.publish(f"{subject}.paid", {"amount": 2}, durable=True)

        async def second() -> bool:
            return await service.charges.exists(amount=2)

        await eventually(second)
        assert await service.charges.count() == 2
        assert runs == [1, 1, 2]


async def test_idempotent_is_refused_where_it_cannot_hold(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    """A core event, a streaming handler, and a service without the plugin are errors at start or before."""
    with pytest.raises(ConfigurationError, match="durable=True"):
        event("a.b", idempotent=True)

    class Streams(CliffracerService):
        @rpc(idempotent=True)
        async def items(self) -> object:
            yield 1

    with pytest.raises(ConfigurationError, match="streams its reply"):
        await Streams(ServiceConfig("s", db={"url": postgres_url})).start()
    monkeypatch.setenv("CLIFFRACER_DISABLE", "db")
    with pytest.raises(ConfigurationError, match="cliffracer-db"):
        await Billing(ServiceConfig("billing")).start()
