"""What the catalogue says of tables, and what stands between it and the models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec
from psycopg import sql

from .database import Database
from .ddl import column_definition, create_table, policy_statements, row_security
from .models import Table

__all__ = ["difference"]

_SCHEMA = "cliffracer_diff"
_COLUMNS = """
select c.relname as table, a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
       a.attnotnull as required, pg_get_expr(d.adbin, d.adrelid) as default
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where n.nspname = %s and c.relname = any(%s) and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
"""
_CONSTRAINTS = """
select c.relname as table, k.conname as name, k.contype::text as kind, pg_get_constraintdef(k.oid) as definition,
       array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum = any(k.conkey))
           as columns
from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = any(%s) and k.contype in ('c', 'f', 'u', 'p')
"""
_INDEXES = """
select tablename as table, indexname as name, indexdef as definition from pg_indexes
where schemaname = %s and tablename = any(%s) and indexname not in (select conname from pg_constraint)
"""
_SECURITY = """
select c.relname as table, c.relrowsecurity and c.relforcerowsecurity as secured
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = any(%s) and c.relkind in ('r', 'p')
"""
_POLICIES = """
select tablename as table, policyname as name,
       concat_ws(' ', permissive, roles::text, cmd, 'using', qual, 'check', with_check) as definition
from pg_policies where schemaname = %s and tablename = any(%s)
"""


class _Column(msgspec.Struct, frozen=True):
    table: str
    name: str
    type: str
    required: bool
    default: str | None


class _Definition(msgspec.Struct, frozen=True):
    table: str
    name: str
    definition: str
    kind: str = "i"
    columns: tuple[str, ...] = ()


class _Secured(msgspec.Struct, frozen=True):
    table: str
    secured: bool


class _Catalogue(msgspec.Struct):
    columns: dict[tuple[str, str], _Column]
    constraints: dict[tuple[str, str], _Definition]
    indexes: dict[tuple[str, str], _Definition]
    policies: dict[tuple[str, str], _Definition]
    secured: set[str]


class _UndoError(Exception):
    """Ends the transaction in which the models' tables were made to be looked at."""


async def difference(db: Database, tables: Sequence[Table]) -> str:
    """Return the statements that make the database's tables what the models say; empty where they are.

    The models' tables are made in a schema of their own, in a transaction that is undone, and the two
    catalogues compared; so a definition counts as what PostgreSQL makes of it. Nothing is dropped, but a CHECK
    of a column whose type changes: what only the database has is told in a comment, with the statement.

    Raises:
        CliffracerError: what the database refused.
    """
    names = [each.name for each in tables]
    present: _Catalogue | None = None
    wanted: _Catalogue | None = None
    try:
        async with db.transaction():
            (row,) = await db.select(sql.SQL("select current_schema() as name"))
            schema = str(row["name"])
            present = await _read(db, schema, names)
            await db.execute(sql.SQL("create schema {}").format(sql.Identifier(_SCHEMA)))
            path = sql.SQL("set local search_path = {}, {}").format(sql.Identifier(_SCHEMA), sql.Identifier(schema))
            await db.execute(path)
            for table in _in_order(tables):
                await db.execute(sql.SQL(create_table(table)))
            wanted = await _read(db, _SCHEMA, names)
            raise _UndoError
    except _UndoError:
        assert present is not None
        assert wanted is not None
    return "".join(_statements(tables, present, wanted))


async def _read(db: Database, schema: str, names: list[str]) -> _Catalogue:
    columns = await db.select(sql.SQL(_COLUMNS), [schema, names], returns=_Column)
    constraints = await db.select(sql.SQL(_CONSTRAINTS), [schema, names], returns=_Definition)
    indexes = await db.select(sql.SQL(_INDEXES), [schema, names], returns=_Definition)
    policies = await db.select(sql.SQL(_POLICIES), [schema, names], returns=_Definition)
    secured = await db.select(sql.SQL(_SECURITY), [schema, names], returns=_Secured)
    return _Catalogue(
        {(each.table, each.name): each for each in columns},
        {(each.table, each.name): _plain(each, schema) for each in constraints},
        {(each.table, each.name): _plain(each, schema) for each in indexes},
        {(each.table, each.name): _plain(each, schema) for each in policies},
        {each.table for each in secured if each.secured},
    )


def _plain(definition: _Definition, schema: str) -> _Definition:
    """Leave out the schema, by which alone the two catalogues would differ."""
    text = re.sub(rf'(?<![\w"])"?(?:{re.escape(schema)}|{_SCHEMA}|public)"?\.', "", definition.definition)
    return msgspec.structs.replace(definition, definition=text.replace(" NOT VALID", ""))


def _in_order(tables: Sequence[Table]) -> list[Table]:
    """Put a table after those it refers to; in a circle the order is that of the models."""
    ordered: list[Table] = []
    left = list(tables)
    while left:
        names = {each.name for each in left}
        ready = [each for each in left if not (_referred(each) - {each.name}) & names] or left[:1]
        ordered += ready
        left = [each for each in left if each not in ready]
    return ordered


def _referred(table: Table) -> set[str]:
    return {each.options.references.partition(".")[0] for each in table.fields.values() if each.options.references}


def _statements(tables: Sequence[Table], present: _Catalogue, wanted: _Catalogue) -> Iterator[str]:
    known = {table for table, _ in present.columns}
    for table in _in_order(tables):
        if table.name not in known:
            yield create_table(table)
            continue
        yield from _type_changes(table, present, wanted)
        yield from _column_changes(table, present, wanted)
        yield from _definition_changes(table, present, wanted)
        yield from _policy_changes(table, present, wanted)


def _type_changes(table: Table, present: _Catalogue, wanted: _Catalogue) -> Iterator[str]:
    """Change types, without the defaults and conditions that are made for the old one; what is wanted comes after."""
    name = table.name
    for key, want in wanted.columns.items():
        have = present.columns.get(key)
        if key[0] != name or have is None or have.type == want.type:
            continue
        for place, each in list(present.constraints.items()):
            if place[0] == name and each.kind == "c" and want.name in each.columns:
                yield f'alter table "{name}" drop constraint "{each.name}";\n'
                del present.constraints[place]
        alter = f'alter table "{name}" alter column "{want.name}"'
        if have.default is not None:
            yield f"{alter} drop default;\n"
        yield f'{alter} type {want.type} using "{want.name}"::{want.type};\n'
        present.columns[key] = msgspec.structs.replace(have, type=want.type, default=None)


def _column_changes(table: Table, present: _Catalogue, wanted: _Catalogue) -> Iterator[str]:
    name = table.name
    for (owner, column), want in wanted.columns.items():
        if owner != name:
            continue
        have = present.columns.get((owner, column))
        if have is None:
            definition = column_definition(table.fields[column]).as_string(None)
            if want.required and want.default is None:  # rows that are there have no value yet
                yield f'alter table "{name}" add column "{column}" {want.type};\n'
                yield f'-- give "{column}" a value in every row of "{name}" here\n'
                yield f'alter table "{name}" alter column "{column}" set not null;\n'
            else:
                yield f'alter table "{name}" add column {definition};\n'
            continue
        alter = f'alter table "{name}" alter column "{column}"'
        if have.default != want.default:
            yield f"{alter} drop default;\n" if want.default is None else f"{alter} set default {want.default};\n"
        if have.required != want.required:
            if want.required:
                yield f'-- give "{column}" a value in every row of "{name}" here\n'
            yield f"{alter} {'set' if want.required else 'drop'} not null;\n"
    for owner, column in present.columns:
        if owner == name and (owner, column) not in wanted.columns:
            yield (
                f'-- only the database has column "{column}" of "{name}"; when no release reads it: '
                f'alter table "{name}" drop column "{column}";\n'
            )


def _definition_changes(table: Table, present: _Catalogue, wanted: _Catalogue) -> Iterator[str]:
    name = table.name
    for key, want in wanted.constraints.items():
        have = present.constraints.get(key)
        if key[0] != name or (have is not None and have.definition == want.definition):
            continue
        if have is not None:
            yield f'alter table "{name}" drop constraint "{want.name}";\n'
        if want.kind in ("c", "f"):  # checked in a second step, which locks out nobody
            yield f'alter table "{name}" add constraint "{want.name}" {want.definition} not valid;\n'
            yield f'alter table "{name}" validate constraint "{want.name}";\n'
        else:
            yield f'alter table "{name}" add constraint "{want.name}" {want.definition};\n'
    for key, want in wanted.indexes.items():
        have = present.indexes.get(key)
        if key[0] != name or (have is not None and have.definition == want.definition):
            continue
        if have is not None:
            yield f'drop index "{want.name}";\n'
        yield f"{want.definition};\n"
    for kind, haves, wants in (
        ("constraint", present.constraints, wanted.constraints), ("index", present.indexes, wanted.indexes)
    ):  # fmt: skip
        for owner, each in haves:
            if owner == name and (owner, each) not in wants:
                drop = (
                    f'alter table "{name}" drop constraint if exists "{each}"'
                    if kind != "index"
                    else f'drop index if exists "{each}"'
                )
                yield f'-- only the database has {kind} "{each}" of "{name}"; to be rid of it: {drop};\n'


def _policy_changes(table: Table, present: _Catalogue, wanted: _Catalogue) -> Iterator[str]:
    name = table.name
    if table.tenant is not None:
        differ = [key for key, want in wanted.policies.items() if key[0] == name and present.policies.get(key) != want]
        if name not in present.secured:
            yield from (each.as_string(None) for each in row_security(table))
        if differ:
            yield from (each.as_string(None) for each in policy_statements(table, table.tenant))
    elif name in present.secured:
        yield f'-- only the database has row-level security on "{name}"\n'
    for owner, each in present.policies:
        if owner == name and (owner, each) not in wanted.policies:
            yield f'-- only the database has policy "{each}" of "{name}"; a permissive one adds to what a tenant sees\n'
