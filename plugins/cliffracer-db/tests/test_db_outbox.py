from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest
from cliffracer_db import Database, DatabaseModel, EmbeddedPostgres, Repository, transactional
from cliffracer_db.outbox import Outbox
from cliffracer_db.relay import Relay
from cliffracer_db.relaying import relayed
from cliffracer_db.settings import DbSettings
from cliffracer_db.store import PostgresStore
from cliffracer_nats.embedded import EmbeddedNats, embedded_nats
from msgspec.structs import replace
from psycopg import sql

from cliffracer_core import CliffracerService, MessageContext, ServiceConfig, event, injected, rpc
from cliffracer_core.errors import CliffracerError, ConfigurationError, EncodingError, InvalidHeader
from cliffracer_core.errors import ConnectionError as DisconnectedError
from cliffracer_core.interfaces import DurableTransport, Lease, Outgoing, Transport
from cliffracer_core.messages import Message
from cliffracer_core.testing import eventually, unique

from .db_models import make_tables


class Order(DatabaseModel):
    __tablename__ = "orders"

    number: int


class Shop(CliffracerService):
    db = Database()
    orders = Repository(Order)
    got: list[tuple[str, int, str | None]]

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.got = []

    @rpc
    @transactional
    async def place(self, subject: str, numbers: list[int], fail: bool = False, key: str = "") -> None:
        for number in numbers:
            await self.orders.create(Order(number=number))
            await self.publish(subject, {"number": number}, outbox=key or True)
        if fail:
            raise ValueError("no")


def listening(subject: str) -> type[Shop]:
    class Listening(Shop):
        @event(f"{subject}.>")
        async def hear(self, number: int, context: MessageContext = injected()) -> None:
            self.got.append((context.subject, number, context.correlation_id))

    return Listening


@pytest.fixture
async def url(db: Database) -> str:
    await make_tables(db, Order)
    assert db.settings is not None
    return db.settings.url


def outgoing(subject: str, payload: object, *, key: str = "") -> Outgoing:
    return Outgoing(kind="publish", service="shop", subject=subject, payload=payload, outbox=key or True, headers={})


async def waiting(db: Database) -> int:
    (row,) = await db.select(sql.SQL("select count(*) as n from cliffracer_outbox"))
    return int(row["n"])


async def test_event_is_sent_when_its_transaction_is_committed_and_never_otherwise(db: Database, url: str) -> None:
    """Committed orders' events arrive, in order and with their context; those of an undone transaction do not."""
    subject = unique()
    service = listening(subject)(ServiceConfig("shop", db={"url": url, "outbox": True, "outbox_poll_s": 60}))
    async with service:
        with pytest.raises(CliffracerError):
            await service.rpc_call("shop", "place", subject=f"{subject}.a", numbers=[100, 101], fail=True)
        await service.rpc_call("shop", "place", subject=f"{subject}.a", numbers=list(range(50)))
        await eventually(lambda: len(service.got) >= 50)
        assert [number for _, number, _ in service.got] == list(range(50))
        assert {correlation for _, _, correlation in service.got} - {None, ""}
        assert len({correlation for _, _, correlation in service.got}) == 1

        async def empty() -> bool:
            return await waiting(db) == 0

        await eventually(empty)
        assert await service.orders.count() == 50
    assert "shape db:outbox" in (await service.explain("place"))["publish"]


async def test_event_without_a_transaction_is_sent_too(db: Database, url: str) -> None:
    """Outside a transaction the outbox is one write, after which the event is sure to go out."""
    subject = unique()
    async with listening(subject)(ServiceConfig("shop", db={"url": url, "outbox": True})) as service:
        await service.publish(f"{subject}.b", {"number": 1}, outbox=True)
        await service.publish(f"{subject}.b", {"number": 2})
        await eventually(lambda: len(service.got) == 2)


async def test_polling_finds_events_when_no_notification_comes(db: Database, url: str) -> None:
    """An event whose notification was lost is sent by the next poll."""
    subject = unique()
    async with listening(subject)(
        ServiceConfig("shop", db={"url": url, "outbox": True, "outbox_poll_s": 0.05})
    ) as service:
        await db.execute(
            sql.SQL(
                "insert into cliffracer_outbox (service, message_id, subject, ordering_key, body, headers, transport, "
                "durable) values ('shop', 'x', %s, 'k', %s, '{}', 'default', false)"
            ),
            [f"{subject}.c", b'{"number": 7}'],
        )
        await eventually(lambda: [number for _, number, _ in service.got] == [7])


async def test_one_relay_at_a_time_sends_when_there_are_replicas(url: str) -> None:
    """Three replicas write at once; each event is sent once, by the one that holds the lease; another takes over."""
    subject = unique()
    config = {"url": url, "outbox": True, "outbox_poll_s": 0.05}
    replicas = [Shop(ServiceConfig("shop", db=config)) for _ in range(3)]
    watcher = listening(subject)(ServiceConfig("watcher", db={"url": url}))
    async with watcher:
        for each in replicas:
            await each.start()
        await asyncio.gather(
            *(each.publish(f"{subject}.d", {"number": n}, outbox=True) for n, each in enumerate(replicas * 50))
        )
        await eventually(lambda: len(watcher.got) >= 150)
        await replicas[0].stop()
        await replicas[1].stop()
        await replicas[2].publish(f"{subject}.d", {"number": 1000}, outbox=True)
        await eventually(lambda: len(watcher.got) >= 151)
        await replicas[2].stop()
    assert sorted(number for _, number, _ in watcher.got) == [*range(150), 1000]


class Flushing:
    """A transport, as far as the relay sees it, that says when a flush begins and lets it end when told."""

    def __init__(self) -> None:
        self.begun, self.done = asyncio.Event(), asyncio.Event()

    async def publish(self, message: Message) -> None: ...

    async def flush(self) -> None:
        self.begun.set()
        await self.done.wait()


async def test_event_is_sent_once_when_its_relay_stops_between_sending_and_removing(db: Database, url: str) -> None:
    """A stop waits for the removal of what was sent; a relay cut there would leave it for another to send again."""
    assert db.settings is not None
    transport, outbox = Flushing(), Outbox(db, "shop")
    async with Shop(ServiceConfig("shop", db={"url": url})) as service:
        assert service.runtime is not None
        wiring = replace(service.runtime.wiring, transports={"default": cast(Transport, transport)})
        sending = relayed(db, db.settings, wiring)
        await sending.__aenter__()
        await outbox.write(outgoing("a.b", 1))
        await transport.begun.wait()
        stopping = asyncio.create_task(sending.__aexit__(None, None, None))
        await asyncio.sleep(0)
        transport.done.set()
        await stopping
        assert await waiting(db) == 0


async def test_event_waits_when_the_broker_is_gone(db: Database, url: str) -> None:
    """While NATS is down orders are written; their events, in order of their key, follow when it is back."""
    with embedded_nats() as nats:
        subject = unique()
        config = ServiceConfig("shop", db={"url": url, "outbox": True, "outbox_poll_s": 0.05}, nats_url=nats.url)
        async with Shop(config) as service:
            await publish_all(service, subject, range(10))
            nats.kill()
            await publish_all(service, subject, range(10, 30))
            assert await waiting(db) >= 20
            nats.start()

            async def empty() -> bool:
                return await waiting(db) == 0

            await eventually(empty, timeout_s=20)
            transport = service.runtime.transports["default"]
            assert isinstance(transport, DurableTransport)
            stored = [each.message.body async for each in transport.browse(subject.upper())]
    assert stored == [b'{"number":%d}' % number for number in range(30)]


async def publish_all(service: Shop, subject: str, numbers: range) -> None:
    async with service.db.transaction():
        for number in numbers:
            await service.publish(f"{subject}.e", {"number": number}, outbox="one key", durable=True)


async def test_event_is_parked_when_it_can_never_be_sent(
    db: Database, url: str, nats_server: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    """One that the transport refuses for good is kept with its reason, logged, and holds back no other."""
    caplog.set_level(logging.ERROR, "cliffracer.db")
    subject = unique()
    config = ServiceConfig("shop", db={"url": url, "outbox": True, "outbox_poll_s": 0.05}, nats_url=nats_server.url)
    async with listening(subject)(config) as service:
        await service.publish(f"{subject}.f", "x" * 2_000_000, outbox=True)
        await service.publish(f"{subject}.f", {"number": 1}, outbox=True)
        await eventually(lambda: len(service.got) == 1)

        async def parked() -> bool:
            rows = await db.select(sql.SQL("select failure from cliffracer_outbox"))
            return len(rows) == 1 and "message_too_large" in str(rows[0]["failure"])

        await eventually(parked)
    assert "message_too_large" in caplog.text


async def test_outbox_is_refused_when_nobody_keeps_one(url: str) -> None:
    """Without the setting, and for what cannot be encoded or sent, the caller gets an error and nothing is written."""
    async with Shop(ServiceConfig("shop", db={"url": url})) as service:
        with pytest.raises(ConfigurationError, match="db.outbox"):
            await service.publish("a.b", 1, outbox=True)
    async with Shop(ServiceConfig("shop", db={"url": url, "outbox": True})) as service:
        with pytest.raises(EncodingError):
            await service.publish("a.b", object(), outbox=True)
        with pytest.raises(InvalidHeader):
            await service.publish("a.b", 1, outbox=True, headers={"X": "a\r\nb"})
        with pytest.raises(CliffracerError):
            await service.publish("a b", 1, outbox=True)
        assert await waiting(service.db) == 0


async def test_service_goes_on_when_the_database_restarts(own_postgres: EmbeddedPostgres) -> None:
    """The relay survives a restart of PostgreSQL and sends what is written after it."""
    subject = unique()
    config = ServiceConfig("shop", db={"url": own_postgres.url, "outbox": True, "outbox_poll_s": 0.05})
    async with listening(subject)(config) as service:
        await service.publish(f"{subject}.g", {"number": 1}, outbox=True)
        await eventually(lambda: len(service.got) == 1)
        own_postgres.kill()
        own_postgres.start()

        async def written() -> bool:
            try:
                await service.publish(f"{subject}.g", {"number": 2}, outbox=True)
            except CliffracerError:
                return False
            return True

        await eventually(written)
        await eventually(lambda: {number for _, number, _ in service.got} == {1, 2}, timeout_s=20)


class FailsOnce:
    """A transport, as far as the relay sees it, that refuses the first message it is given."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.failed = False

    async def publish(self, message: Message) -> None:
        if not self.failed:
            self.failed = True
            raise DisconnectedError("lost for a moment")
        self.sent.append(message.body)

    async def flush(self) -> None: ...


async def test_later_events_wait_when_one_of_their_key_cannot_be_sent_yet(db: Database) -> None:
    """A failure that may pass holds back what has the same key, and nothing else; then all go out in order."""
    assert db.settings is not None
    settings = replace(db.settings, outbox_poll_s=0.05)
    transport, outbox = FailsOnce(), Outbox(db, "shop")
    await outbox.prepare()
    for key, numbers in (("a", range(5)), ("b", range(10, 12))):
        for number in numbers:
            await outbox.write(outgoing("a.b", number, key=key))
    relay = Relay(outbox, {"default": cast(Transport, transport)}, settings, holder="me")
    task = asyncio.create_task(relay.run())
    await eventually(lambda: len(transport.sent) == 7)
    task.cancel()
    await asyncio.wait({task})
    sent = [int(each) for each in transport.sent]
    assert sent[:2] == [10, 11]
    assert sent[2:] == list(range(5))


class Slow:
    """A transport, as far as a relay sees it, that takes its time."""

    def __init__(self, sent: list[int]) -> None:
        self.sent = sent

    async def publish(self, message: Message) -> None:
        self.sent.append(int(message.body))
        await asyncio.sleep(0.02)

    async def flush(self) -> None: ...


async def test_one_relay_at_a_time_sends_when_sending_takes_longer_than_a_lease(db: Database) -> None:
    """The lease is renewed between events, so that another relay that waits for it sends none of them again."""
    assert db.settings is not None
    settings = replace(db.settings, outbox_poll_s=0.02, outbox_lease_s=0.6)
    outbox, sent = Outbox(db, "shop"), list[int]()
    await outbox.prepare()
    async with db.transaction():
        for number in range(50):
            await outbox.write(outgoing("a.b", number))
    relays = [
        Relay(outbox, {"default": cast(Transport, Slow(sent))}, settings, holder=each) for each in ("one", "other")
    ]
    tasks = [asyncio.create_task(each.run()) for each in relays]

    async def empty() -> bool:
        return await waiting(db) == 0

    await eventually(empty, timeout_s=20)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert sent == list(range(50))


async def test_lease_is_given_back_when_a_stop_cuts_its_granting(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that stops just as it is given the lease leaves it to the others, not to its expiry."""
    acquire, granted = PostgresStore.acquire, asyncio.Event()

    async def held_up(store: PostgresStore, key: str, holder: str, *, ttl_s: float) -> Lease | None:
        lease = await acquire(store, key, holder, ttl_s=ttl_s)
        if not granted.is_set():
            granted.set()
            await asyncio.Event().wait()
        return lease

    monkeypatch.setattr(PostgresStore, "acquire", held_up)
    service = Shop(ServiceConfig("shop", db={"url": url, "outbox": True, "outbox_lease_s": 600.0}))
    await service.start()
    await asyncio.wait_for(granted.wait(), 10)
    await service.stop()
    store = PostgresStore(DbSettings(url=url))
    await store.open()
    assert await store.acquire("outbox/shop", "another", ttl_s=1.0) is not None
    await store.close()
