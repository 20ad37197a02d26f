"""Statements written by hand: composed, or a template, never a str."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from cliffracer_db import Database, InvalidValue, Repository
from msgspec import Struct
from psycopg import sql

from cliffracer_core.errors import DatabaseError

from .db_models import Org, User, make_tables

templates = pytest.mark.skipif(sys.version_info < (3, 14), reason="templates are of Python 3.14")


@pytest.fixture
async def orgs(db: Database) -> Repository[Org]:
    await make_tables(db, Org, User)
    return Repository(Org, db)


async def test_select_gives_typed_rows(orgs: Repository[Org]) -> None:
    """Composed SQL with parameters; rows as dicts, or of a type."""
    made = await orgs.create(Org(name="a%b"))
    assert await orgs.db.select(sql.SQL("select * from orgs where name = %s"), ["a%b"], returns=Org) == [made]
    assert await orgs.db.select(
        sql.SQL("select name from orgs where name like '%%b' and id = %(id)s"), {"id": made.id}
    ) == [{"name": "a%b"}]
    assert await orgs.db.select(sql.SQL("select name from orgs where name like '%b'")) == [{"name": "a%b"}]
    assert await orgs.db.execute(sql.SQL("update orgs set name = 'x'")) == 1
    with pytest.raises(InvalidValue, match="Org"):
        await orgs.db.select(sql.SQL("select 1 as id"), returns=Org)


async def test_select_refuses_a_plain_str(orgs: Repository[Org]) -> None:
    """A formatted statement is refused before anything is sent."""
    for text in ("select 1", f"delete from orgs where name = '{orgs.model.__name__}'", b"select 1"):
        with pytest.raises(InvalidValue, match="psycopg.sql"):
            await orgs.db.select(text)  # type: ignore[call-overload]
        with pytest.raises(InvalidValue, match="psycopg.sql"):
            await orgs.db.execute(text)  # type: ignore[arg-type]


class Count(Struct):
    name: str
    users: int


async def test_rows_of_a_join_are_typed(orgs: Repository[Org]) -> None:
    """`returns` is any Struct with the columns as fields; a column it lacks, or of another type, is an error."""
    made = await orgs.create(Org(name="acme"))
    await Repository(User, orgs.db).create_many(User(name="x", email=f"{n}", org_id=made.id) for n in range(3))
    text = "select o.name, {} as users from orgs o join users u on u.org_id = o.id where o.name = %(name)s group by 1"
    counted = sql.SQL(text).format(sql.SQL("count(*)"))
    assert await orgs.db.select(counted, {"name": "acme"}, returns=Count) == [Count("acme", 3)]
    for column in ("u.name", "null::bigint"):
        wrong = sql.SQL(text.replace("group by 1", "")).format(sql.SQL(column))
        with pytest.raises(InvalidValue, match="a row does not fit 'Count'"):
            await orgs.db.select(wrong, {"name": "acme"}, returns=Count)


@pytest.mark.parametrize("parameters", [[], ["s3cret", "x"], {"other": "s3cret"}, [object()]])
async def test_statement_is_refused_when_its_parameters_do_not_fit(orgs: Repository[Org], parameters: Any) -> None:
    """Too few, too many, by other names, or of a type that is none of the database's; the values stay here."""
    with pytest.raises(DatabaseError, match="number, names and types") as caught:
        await orgs.db.select(sql.SQL("select * from orgs where name = %s"), parameters)
    with pytest.raises(DatabaseError, match="number, names and types"):
        await orgs.db.execute(sql.SQL("delete from orgs where name = %s"), parameters)
    assert "s3cret" not in str(caught.value)
    assert await orgs.count() == 0


def template(*parts: Any) -> Any:
    """Make what a t-string makes: texts, and (value, expression, format) or (value, expression, format, conversion)."""
    library = importlib.import_module("string.templatelib")
    made = [
        each if isinstance(each, str) else library.Interpolation(each[0], each[1], (*each, None)[3], each[2])
        for each in parts
    ]
    return library.Template(*made)


@templates
async def test_template_gives_its_values_as_parameters(orgs: Repository[Org]) -> None:
    """Values become parameters, whatever is in them; `:i` is an identifier, `:q` a part that is a template."""
    name = "x' or true --"
    made = await orgs.create(Org(name=name))
    part = template("name = ", (name, "name", ""))
    query = template("select * from ", ("orgs", "table", "i"), " where ", (part, "part", "q"))
    assert await orgs.db.select(query, returns=Org) == [made]
    assert await orgs.db.execute(template("delete from orgs where name = ", ("' or true --", "name", ""))) == 0
    assert await orgs.db.execute(template("delete from orgs where id = ", (made.id, "made.id", ""))) == 1


@templates
async def test_template_is_refused_when_it_is_no_statement(orgs: Repository[Org]) -> None:
    """A conversion, an unknown format and parameters beside it are refused, and the value is not told."""
    for bad in (("s3cret", "x", "", "r"), ("s3cret", "x", ">10"), (template("", ("s3cret", "y", "d")), "x", "q")):
        with pytest.raises(InvalidValue, match="{name}") as caught:
            await orgs.db.select(template("select ", bad))
        assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidValue, match="no parameters"):
        await orgs.db.select(template("select 1"), [1])
