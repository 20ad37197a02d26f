"""Reads by id that share a statement: what each caller sees is what it would see alone."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from cliffracer_db import (
    Database,
    DatabaseModel,
    DatabaseUnavailable,
    DbSettings,
    EmbeddedPostgres,
    PoolExhausted,
    RecordNotFound,
    Repository,
)
from msgspec.structs import replace
from psycopg import sql

from cliffracer_core.testing import eventually

from .db_models import make_tables


class Note(DatabaseModel):
    __tablename__ = "notes"

    number: int
    tags: dict[str, Any]


@pytest.fixture
async def notes(db: Database) -> Repository[Note]:
    await make_tables(db, Note)
    await eventually(lambda: is_at_rest(db))
    return Repository(Note, db)


def is_at_rest(db: Database) -> bool:
    """Tell whether the pool has all the connections it begins with: while it opens them, readers wait for its lock."""
    figures = db.statistics()
    return figures["pool_min"] <= figures["pool_size"] == figures["pool_available"]


async def filled(notes: Repository[Note], count: int) -> list[Note]:
    made = [Note(number=number, tags={"all": [number]}) for number in range(count)]
    await notes.create_many(made)
    return made


def asked(notes: Repository[Note]) -> int:
    return notes.db.statistics().get("requests_num", 0)


async def test_reads_share_statements_when_they_come_together(notes: Repository[Note]) -> None:
    """Each of 200 callers has its own row, or its own 404; the pool is asked for few connections."""
    made = await filled(notes, 100)
    missing = [uuid4() for _ in range(100)]
    before = asked(notes)
    found = await asyncio.gather(
        *(notes.get(each.id) for each in made), *map(notes.get, missing), return_exceptions=True
    )
    assert found[:100] == made
    assert [type(each) for each in found[100:]] == [RecordNotFound] * 100
    assert asked(notes) - before < 10


async def test_a_read_alone_goes_by_itself(notes: Repository[Note]) -> None:
    """One caller after the other: a statement each, at once."""
    made = await filled(notes, 3)
    before = asked(notes)
    assert [await notes.get(each.id) for each in made] == made
    assert asked(notes) - before == 3


async def test_readers_of_one_row_share_nothing_of_it(notes: Repository[Note]) -> None:
    """What one changes in its model, no other sees, however deep."""
    (made,) = await filled(notes, 1)
    found = await asyncio.gather(*(notes.get(made.id) for _ in range(20)))
    assert len({id(each) for each in found}) == 20
    for each in found:
        each.tags["all"].append("more")
    assert all(each.tags == {"all": [0, "more"]} for each in found)


async def test_a_read_sees_what_was_committed_before_it_began(notes: Repository[Note]) -> None:
    """Under the load of others each writer reads its own write, every time."""
    made = await filled(notes, 8)
    writing = True

    async def read_on(ids: list[UUID]) -> None:
        while writing:
            await asyncio.gather(*map(notes.get, ids))

    async def write_and_read(id: UUID) -> None:
        for number in range(1000, 1060):
            await notes.update(id, {"number": number})
            assert (await notes.get(id)).number == number

    reading = asyncio.create_task(read_on([each.id for each in made] * 3))
    await asyncio.gather(*(write_and_read(each.id) for each in made))
    writing = False
    await reading


async def test_a_read_in_a_transaction_is_part_of_it(notes: Repository[Note]) -> None:
    """What is not committed is seen inside, and by no one who reads at the same time outside."""
    made = await filled(notes, 20)
    written = asyncio.Event()
    done = asyncio.Event()

    async def inside() -> None:
        async with notes.db.transaction():
            await notes.update(made[-1].id, {"number": 1000})
            written.set()
            found = await asyncio.gather(*(notes.get(each.id) for each in made))
            assert [each.number for each in found] == [*range(19), 1000]
            await done.wait()

    async def outside() -> None:
        await written.wait()
        for _ in range(10):
            found = await asyncio.gather(*(notes.get(each.id) for each in made))
            assert [each.number for each in found] == list(range(20))
        done.set()

    async with asyncio.timeout(20):
        await asyncio.gather(inside(), outside())


async def test_others_are_answered_when_some_readers_are_cancelled(notes: Repository[Note]) -> None:
    """Whoever is cancelled, those under way and those who wait, the others have their rows."""
    made = await filled(notes, 40)
    for turn in range(20):
        tasks = [asyncio.create_task(notes.get(each.id)) for each in made]
        for _ in range(turn):
            await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number < 2 or number % 3 == 0:
                task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait(tasks)
        left = [task.result() for task in tasks if not task.cancelled()]
        assert all(each in made for each in left)
        assert len(left) >= 24
    assert await notes.get(made[0].id) == made[0]


async def test_each_reader_has_its_own_error_when_the_database_is_gone(own_postgres: EmbeddedPostgres) -> None:
    """None hangs and none shares an exception; after the return all are answered again."""
    async with Database(DbSettings(url=own_postgres.url, pool_max_size=4)) as db:
        await make_tables(db, Note)
        notes = Repository(Note, db)
        made = await filled(notes, 30)
        own_postgres.kill()
        async with asyncio.timeout(20):
            errors = await asyncio.gather(*(notes.get(each.id) for each in made), return_exceptions=True)
        assert {type(each) for each in errors} == {DatabaseUnavailable}
        assert len({id(each) for each in errors}) == 30
        own_postgres.start()

        async def back() -> bool:
            found = await asyncio.gather(*(notes.get(each.id) for each in made), return_exceptions=True)
            return found == made

        await eventually(back)


async def test_readers_wait_for_an_exhausted_pool_no_longer_than_once(db: Database, notes: Repository[Note]) -> None:
    """While others keep every connection, each of many readers has its error after `pool_timeout_s`, no multiple."""
    made = await filled(notes, 30)
    assert db.settings is not None
    settings = replace(db.settings, pool_max_size=2, pool_timeout_s=2.0)
    async with asyncio.timeout(20), Database(settings) as small, small.connection(), small.connection():
        reader = Repository(Note, small)
        begun = time.monotonic()
        errors = await asyncio.gather(*(reader.get(each.id) for each in made), return_exceptions=True)
        took_s = time.monotonic() - begun
    assert {type(each) for each in errors} == {PoolExhausted}
    assert len({id(each) for each in errors}) == 30
    assert took_s < 3.9


async def test_readers_who_wait_are_answered_when_the_database_is_opened_anew(
    db: Database, notes: Repository[Note]
) -> None:
    """Closed and opened while reads are held up by a lock: those who wait behind them are answered, too."""
    made = await filled(notes, 50)
    assert db.settings is not None
    async with Database(replace(db.settings, application_name="other")) as other, asyncio.timeout(20):
        async with other.transaction():
            await other.execute(sql.SQL("lock table notes in access exclusive mode"))
            tasks = [asyncio.create_task(notes.get(each.id)) for each in made]
            await asyncio.sleep(0)
            await db.close()
            await db.open()
            tasks.append(asyncio.create_task(notes.get(made[0].id)))
            await asyncio.sleep(0)
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(each in made or isinstance(each, DatabaseUnavailable) for each in found)
    assert found[-1] == made[0]
