from __future__ import annotations

import asyncio
import contextlib
import random

import psycopg
import pytest
from cliffracer_db import (
    Database,
    DatabaseModel,
    Repository,
    SerializationFailure,
    StatementTimeout,
    UniqueViolation,
)
from msgspec.structs import replace
from psycopg import sql

from cliffracer_core.errors import ConfigurationError, DatabaseError
from cliffracer_core.testing import eventually

from .db_models import Org, User, make_tables


class Account(DatabaseModel):
    __tablename__ = "accounts"

    balance: int


@pytest.fixture
async def orgs(db: Database) -> Repository[Org]:
    await make_tables(db, Org, User, Account)
    return Repository(Org, db)


async def names(orgs: Repository[Org]) -> list[str]:
    return [each.name for each in await orgs.list(order_by="name")]


async def test_block_is_committed_when_it_ends_and_undone_when_it_raises(orgs: Repository[Org]) -> None:
    """Repositories inside join by themselves; others see nothing before the commit."""
    async with orgs.db.transaction():
        await orgs.create(Org(name="a"))
        await orgs.create_many([Org(name="b")])
        assert await names(orgs) == ["a", "b"]
        outside = asyncio.create_task(elsewhere(orgs))
        assert await outside == []
    assert await names(orgs) == ["a", "b"]
    with contextlib.suppress(KeyError):
        async with orgs.db.transaction():
            await orgs.create(Org(name="c"))
            raise KeyError
    assert await names(orgs) == ["a", "b"]
    assert not orgs.db.in_transaction


async def elsewhere(orgs: Repository[Org]) -> list[str]:
    """Read as another client would: on a connection of its own."""
    assert orgs.db.settings is not None
    async with await psycopg.AsyncConnection.connect(orgs.db.settings.url) as connection:
        return [name for (name,) in await (await connection.execute("select name from orgs order by 1")).fetchall()]


async def test_inner_block_alone_is_undone_when_it_raises(orgs: Repository[Org]) -> None:
    """A transaction in a transaction is a savepoint; after an error in it the outer one goes on."""
    async with orgs.db.transaction():
        await orgs.create(Org(name="a"))
        with contextlib.suppress(UniqueViolation):
            async with orgs.db.transaction():
                await orgs.create(Org(name="b"))
                await orgs.create(Org(name="a"))
        async with orgs.db.transaction():
            await orgs.create(Org(name="c"))
    assert await names(orgs) == ["a", "c"]


@pytest.mark.parametrize("nested", [False, True])
async def test_transaction_is_refused_when_it_hid_an_error(orgs: Repository[Org], nested: bool) -> None:
    """A failed statement whose error is caught inside undoes all, and the end of the block says so."""

    async def hide(further: bool) -> None:
        async with orgs.db.transaction():
            await orgs.create(Org(name="a"))
            async with orgs.db.transaction() if nested else contextlib.nullcontext():
                with contextlib.suppress(UniqueViolation):
                    await orgs.create(Org(name="a"))
                if further:
                    await orgs.create(Org(name="b"))

    for further in (False, True):
        with pytest.raises(DatabaseError, match="of its own, and catch"):
            await hide(further)
        assert await names(orgs) == []


async def test_tasks_started_inside_join_and_are_free_when_it_has_ended(orgs: Repository[Org]) -> None:
    """`gather` inside is part of the transaction; a task that outlives it uses the pool."""
    go_on = asyncio.Event()

    async def late() -> list[str]:
        await go_on.wait()
        assert not orgs.db.in_transaction
        return await names(orgs)

    with contextlib.suppress(KeyError):
        async with orgs.db.transaction():
            await asyncio.gather(*(orgs.create(Org(name=f"{n}")) for n in range(5)))
            assert len(await names(orgs)) == 5
            task = asyncio.create_task(late())
            raise KeyError
    go_on.set()
    assert await task == []


async def test_tasks_that_nest_at_once_are_refused(orgs: Repository[Org]) -> None:
    """Two tasks of one transaction that each write many rows at once get an error that says so; all is undone."""

    async def both() -> None:
        async with orgs.db.transaction():
            await asyncio.gather(*(orgs.create_many(Org(name=f"{n} {m}") for m in range(2000)) for n in range(2)))

    with pytest.raises(DatabaseError, match="one do so after the other"):
        await both()
    assert await orgs.count() == 0


async def test_task_is_refused_when_another_has_a_transaction_open_inside_its_own(orgs: Repository[Org]) -> None:
    """What it does would be undone with the other's, silently; those inside, and all when it has ended, go on."""
    open, go_on = asyncio.Event(), asyncio.Event()

    async def inner() -> None:
        with contextlib.suppress(KeyError):
            async with orgs.db.transaction():
                await asyncio.create_task(plain("inside"))
                open.set()
                await go_on.wait()
                raise KeyError

    async def plain(name: str) -> None:
        await orgs.create(Org(name=name))

    async with orgs.db.transaction():
        nesting = asyncio.create_task(inner())
        await open.wait()
        for refused in (plain("beside"), orgs.count(), orgs.create_many([Org(name="many")])):
            with pytest.raises(DatabaseError, match="one do so after the other"):
                await refused
        assert orgs.db.in_transaction
        go_on.set()
        await nesting
        await plain("after")
    assert await names(orgs) == ["after"]


async def test_isolation_and_mode_are_those_asked_for(orgs: Repository[Org]) -> None:
    """Level and mode reach the server, hold for one transaction only, and cannot change inside."""
    show = sql.SQL(
        "select current_setting('transaction_isolation') as level, current_setting('transaction_read_only') as ro"
    )
    async with orgs.db.transaction(isolation="serializable", read_only=True):
        assert await orgs.db.select(show) == [{"level": "serializable", "ro": "on"}]
        with pytest.raises(ConfigurationError):
            async with orgs.db.transaction(isolation="read committed"):
                pass
    async with orgs.db.transaction():
        assert await orgs.db.select(show) == [{"level": "read committed", "ro": "off"}]
    with pytest.raises(DatabaseError, match="read only"):
        async with orgs.db.transaction(read_only=True):
            await orgs.create(Org(name="x"))
    with pytest.raises(ConfigurationError):
        async with orgs.db.transaction(isolation="serializable; drop table orgs"):  # type: ignore[arg-type]
            pass


async def test_transaction_is_run_again_when_another_got_in_the_way(orgs: Repository[Org]) -> None:
    """`retrying` repeats on serialization failures alone, and gives up after its attempts."""
    runs = 0

    async def fails(times: int) -> str:
        nonlocal runs
        runs += 1
        if runs <= times:
            await orgs.db.execute(sql.SQL("do $$ begin raise exception using errcode = '40001'; end $$"))
        await orgs.create(Org(name=f"{times}"))
        return "done"

    assert await orgs.db.retrying(lambda: fails(3)) == "done"
    assert runs == 4
    runs = 0
    with pytest.raises(SerializationFailure):
        await orgs.db.retrying(lambda: fails(9), attempts=3)
    assert runs == 3
    runs = 0
    with pytest.raises(UniqueViolation):
        await orgs.db.retrying(lambda: fails(0) if runs == 0 else fails(3), attempts=3) and await orgs.create(
            Org(name="0")
        )
    assert await names(orgs) == ["0", "3"]


async def test_money_is_conserved_when_transfers_contend(orgs: Repository[Org], in_full: bool) -> None:
    """Serializable transfers between 100 accounts, 8 at a time: none is lost, the sum stays.

    2,000 of them, and 10,000 with `CLIFFRACER_FAULTS=full`.
    """
    transfers = 10_000 if in_full else 2_000
    accounts = Repository(Account, orgs.db)
    ids = [(await accounts.create(Account(balance=1000))).id for _ in range(100)]
    turns = iter(range(transfers))
    done = 0

    async def transfer() -> None:
        source, target = random.sample(ids, 2)
        giver, taker = await accounts.get(source), await accounts.get(target)
        await accounts.update(giver.id, {"balance": giver.balance - 1})
        await accounts.update(taker.id, {"balance": taker.balance + 1})

    async def work() -> None:
        nonlocal done
        for _ in turns:
            await orgs.db.retrying(transfer, attempts=1000)
            done += 1

    await asyncio.gather(*(work() for _ in range(8)))
    assert done == transfers
    balances = [each.balance for each in await accounts.list()]
    assert sum(balances) == 100_000
    assert balances != [1000] * 100


async def test_deadlock_is_an_error_that_a_retry_helps(orgs: Repository[Org]) -> None:
    """Of two transactions that wait for each other one gets a retryable error."""
    one, two = await orgs.create(Org(name="1")), await orgs.create(Org(name="2"))
    both = asyncio.Barrier(2)

    async def cross(first: Org, second: Org) -> None:
        async with orgs.db.transaction():
            await orgs.update(first.id, {"name": f"{first.name} by {id(second)}"})
            await both.wait()
            await orgs.update(second.id, {"name": f"{second.name} by {id(first)}"})

    results = await asyncio.gather(cross(one, two), cross(two, one), return_exceptions=True)
    (failed,) = [each for each in results if each is not None]
    assert isinstance(failed, SerializationFailure)
    assert failed.retryable


async def test_lock_is_waited_for_no_longer_than_allowed(orgs: Repository[Org]) -> None:
    """A statement that waits for a lock, and one that runs too long, end with StatementTimeout."""
    made = await orgs.create(Org(name="1"))
    assert orgs.db.settings is not None
    async with Database(replace(orgs.db.settings, lock_timeout_s=0.05)) as other, orgs.db.transaction():
        await orgs.update(made.id, {"name": "2"})
        with pytest.raises(StatementTimeout):
            await Repository(Org, other).update(made.id, {"name": "3"})
    async with orgs.db.transaction():
        await orgs.db.execute(sql.SQL("set local statement_timeout = '50ms'"))
        with pytest.raises(StatementTimeout):
            async with orgs.db.transaction():
                await orgs.db.execute(sql.SQL("select pg_sleep(10)"))
        assert await orgs.count() == 1


async def test_cancelled_transaction_is_undone(orgs: Repository[Org]) -> None:
    """Cancelling a task in a transaction rolls it back, and its connection goes on to be used."""
    pids: list[int] = []

    async def work() -> None:
        async with orgs.db.transaction():
            await orgs.create(Org(name="x"))
            pids.extend(row["pid"] for row in await orgs.db.select(sql.SQL("select pg_backend_pid() as pid")))
            await orgs.db.execute(sql.SQL("select pg_sleep(30)"))

    async def asleep() -> bool:  # a server that is told to cancel before it has begun does not
        sleeping = sql.SQL("select 1 from pg_stat_activity where pid = any(%s) and wait_event = 'PgSleep'")
        return bool(await orgs.db.select(sleeping, [pids]))

    task = asyncio.create_task(work())
    await eventually(asleep)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(orgs) == []

    async def all_back() -> bool:
        figures = orgs.db.statistics()
        return figures["pool_size"] == figures["pool_available"]

    await eventually(all_back)
    known = sql.SQL("select 1 from pg_stat_activity where pid = any(%s)")
    assert await orgs.db.select(known, [pids]), "its connection was thrown away"
