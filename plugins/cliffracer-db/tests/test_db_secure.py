from __future__ import annotations

import logging

import pytest
from cliffracer_db import (
    Database,
    DatabaseModel,
    InvalidValue,
    SecureRepository,
    SuspiciousInput,
    UnknownField,
    ValueTooLarge,
    any_of,
    where,
)

from cliffracer_core import CliffracerService, ServiceConfig, rpc
from cliffracer_core.errors import ConfigurationError

from .db_injections import OWN, PUBLISHED
from .db_models import make_tables

ATTACKS = [
    "' OR '1'='1",
    "' OR 1=1 --",
    "admin'--",
    "admin' #",
    "1'; DROP TABLE users; --",
    "x'; DELETE FROM users WHERE 't'='t",
    "' UNION SELECT NULL, version() --",
    "1 UNION/**/ALL/**/SELECT 1",
    "') OR ('a'='a",
    "'; SELECT pg_sleep(10)",
    "pg_sleep(5)",
    "'; COPY users TO PROGRAM 'id'",
    "＇ OR ＇1＇=＇1",
    '" or ""="',
]
HARMLESS = [
    "O'Brien", "it's 5 o'clock -- or so", "Select Committee on Unions", "drop me a line; update at noon", "a = b",
    "rock'n'roll and blues",
    "say 'hello'; update me", "50% off!", "#1 fan", "C# & F#", "<script>", "Don't delete this", "either/or", "naïve 🌍",
    "The union of teachers will select a speaker", "WHERE is it?", "1=1",
    "Colour (select one), size (select from the list)",
    "In case when it rains, then we stay; 2 and 2 = 4, where x = 3",
    "He tried to sleep (8 hours); benchmark: (good)",
]  # fmt: skip


class Note(DatabaseModel):
    __tablename__ = "notes"

    title: str
    body: str = ""
    owner: str = "nobody"
    tags: list[str] = []


@pytest.fixture
async def notes(db: Database) -> SecureRepository[Note]:
    await make_tables(db, Note)
    return SecureRepository(
        Note, db, tables=["notes"], readable=["title", "tags"], writable=["title", "body", "tags"], max_text=100,
        unchecked=["body"],
    )  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS)
async def test_text_is_refused_when_it_looks_like_an_attack(
    notes: SecureRepository[Note], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a value, in a list, in a filter: refused as a 400, nothing written, logged without the text."""
    made = await notes.create(Note(title="fine"))
    caplog.set_level(logging.WARNING, "cliffracer.db")
    for attempt in (
        notes.create(Note(title=text)),
        notes.create(Note(title="x", tags=[text])),
        notes.create_many([Note(title="x"), Note(title=text)]),
        notes.upsert(Note(title=text)),
        notes.update(made.id, {"title": text}),
        notes.find(title=text),
        notes.find(any_of(where("title") == "x", where("title").in_([text]))),
        notes.count(where("title").like(text)),
    ):
        with pytest.raises(SuspiciousInput) as caught:
            await attempt
        assert caught.value.status == 400
        assert caught.value.details["field"] in ("title", "tags")
        assert text not in str(caught.value)
    assert await notes.list() == [made]
    assert len(caplog.records) == 8
    assert "suspicious_input" in caplog.text
    assert text not in caplog.text


@pytest.mark.parametrize("text", HARMLESS)
async def test_text_is_written_when_people_write_so(notes: SecureRepository[Note], text: str) -> None:
    """Apostrophes, semicolons and words of SQL in plain language are no attack."""
    made = await notes.create(Note(title=text))
    assert await notes.find(title=text) == [made]


async def test_field_is_refused_when_it_is_not_on_the_list(
    notes: SecureRepository[Note], caplog: pytest.LogCaptureFixture
) -> None:
    """What may not be written keeps its default; what may not be read is no filter and no order; each is logged."""
    made = await notes.create(Note(title="x", body="'; drop table notes; --"))
    caplog.set_level(logging.WARNING, "cliffracer.db")
    attempts = (
        notes.create(Note(title="x", owner="me")),
        notes.update(made.id, {"owner": "me"}),
        notes.find(owner="nobody"),
        notes.find(where("body") == "x"),
        notes.list(order_by="owner"),
        notes.page(order_by="body"),
        notes.find(where("nothing") == 1),
        notes.find(**{ATTACKS[0]: 1}),  # type: ignore[arg-type]
        notes.list(order_by=ATTACKS[0]),
        notes.update(made.id, {ATTACKS[0]: 1}),
        notes.upsert(made, on=ATTACKS[0]),
    )
    for attempt in attempts:
        with pytest.raises(UnknownField):
            await attempt
    others = (notes.get(ATTACKS[0]), notes.page(after=ATTACKS[0]), notes.create(Note(title="\x00")))
    for attempt in others:
        with pytest.raises(InvalidValue):
            await attempt
    assert await notes.list(order_by="-title") == [made]
    assert len(caplog.records) == len(attempts) + len(others)
    assert all("table 'notes' refused field" in each.getMessage() for each in caplog.records)
    assert ATTACKS[0] not in caplog.text


async def test_text_is_refused_when_it_is_too_long(notes: SecureRepository[Note]) -> None:
    """Characters are counted; a field that is not checked takes more."""
    with pytest.raises(ValueTooLarge):
        await notes.create(Note(title="x" * 101))
    with pytest.raises(ValueTooLarge):
        await notes.find(title="x" * 101)
    assert (await notes.create(Note(title="x" * 100, body="y" * 1000))).body == "y" * 1000


def test_repository_is_refused_when_its_lists_are_wrong() -> None:
    """A table that is not allowed, or a field that does not exist, is found when the program starts."""
    with pytest.raises(ConfigurationError, match="'notes' is not among those allowed: users"):
        SecureRepository(Note, tables=["users"])
    for lists in ({"readable": ["x"]}, {"writable": ["x"]}, {"unchecked": ["x"]}):
        with pytest.raises(ConfigurationError, match="no field 'x'"):
            SecureRepository(Note, **lists)  # type: ignore[arg-type]


async def test_lists_hold_when_it_is_bound_to_a_service(db: Database) -> None:
    """The copy a service gets is as strict as the template."""
    await make_tables(db, Note)
    assert db.settings is not None

    class Notes(CliffracerService):
        notes = SecureRepository(Note, writable=["title"], max_text=5)

        @rpc
        async def add(self, title: str, owner: str = "nobody") -> Note:
            return await self.notes.create(Note(title=title, owner=owner))

    async with Notes(ServiceConfig("notes", db={"url": db.settings.url})) as service:
        assert (await service.rpc_call("notes", "add", title="x"))["title"] == "x"
        for arguments in ({"title": "x" * 6}, {"title": "x", "owner": "me"}, {"title": "a'--"}):
            with pytest.raises(InvalidValue):
                await service.rpc_call("notes", "add", **arguments)


def test_most_published_injections_look_like_attacks() -> None:
    """Of what a plain repository stores safely, the secure one refuses what is clearly an attack."""
    from cliffracer_db.secure import _SUSPICIOUS

    for lines, share in ((OWN, 0.4), (PUBLISHED, 0.75)):
        caught = [line for line in lines if any(each.search(line) for each in _SUSPICIOUS.values())]
        assert len(caught) >= len(lines) * share
