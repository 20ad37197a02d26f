"""The statements that make a table, composed from its fields."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from .columns import Field, constraint_name
from .models import Table
from .tenants import TENANT_SETTING

__all__ = ["column_definition", "constraints", "create_table", "index_statement", "indexed", "policy_name"]
__all__ += ["policy_statements", "row_security"]


def create_table(table: Table) -> str:
    """Return CREATE TABLE, its indexes and its policy, each statement ended by a semicolon."""
    lines: list[sql.Composable] = [column_definition(each) for each in table.fields.values()]
    for name, definition in constraints(table):
        lines.append(sql.SQL("constraint {} {}").format(sql.Identifier(name), definition))
    statement = sql.SQL("create table if not exists {} (\n    {}\n);\n").format(
        sql.Identifier(table.name), sql.SQL(",\n    ").join(lines)
    )
    indexes = [index_statement(table, each) for each in indexed(table)]
    policy = [] if table.tenant is None else [*row_security(table), *policy_statements(table, table.tenant)]
    return (statement + sql.Composed([*indexes, *policy])).as_string(None)


def indexed(table: Table) -> list[Field]:
    """Return the fields with an index of their own; a tenant's is in the condition of every statement."""
    return [each for each in table.fields.values() if each.options.index or each is table.tenant]


def policy_name(table: Table) -> str:
    """Return the name of a tenant table's policy."""
    return constraint_name(table.name, "tenant")


def row_security(table: Table) -> list[sql.Composed]:
    """Return the statements that turn row-level security on, for the table's owner, too."""
    name = sql.Identifier(table.name)
    return [
        sql.SQL("alter table {} enable row level security;\n").format(name),
        sql.SQL("alter table {} force row level security;\n").format(name),
    ]


def policy_statements(table: Table, tenant: Field) -> list[sql.Composed]:
    """Return the statements that make the policy, in place of one that is there."""
    name, policy = sql.Identifier(table.name), sql.Identifier(policy_name(table))
    # of no tenant the setting is null, or empty where an earlier transaction had one: no row is equal to that;
    # the inner select is run once for a statement, not once for each row
    rule = sql.SQL("{} = (select nullif(current_setting({}, true), '')::{})").format(
        sql.Identifier(tenant.name), sql.Literal(TENANT_SETTING), sql.SQL(tenant.sql_type)
    )
    return [
        sql.SQL("drop policy if exists {} on {};\n").format(policy, name),
        sql.SQL("create policy {} on {} using ({}) with check ({});\n").format(policy, name, rule, rule),
    ]


def column_definition(field: Field) -> sql.Composed:
    """Return name, type, NOT NULL and default of a column."""
    parts: list[sql.Composable] = [sql.Identifier(field.name), sql.SQL(field.sql_type)]
    if not field.nullable:
        parts.append(sql.SQL("not null"))
    if field.default is not None:
        parts.append(sql.SQL("default {}").format(field.default))
    return sql.SQL(" ").join(parts)


def constraints(table: Table) -> Iterator[tuple[str, sql.Composed]]:
    """Yield name and definition of each constraint."""
    yield constraint_name(table.name, "pkey"), sql.SQL("primary key ({})").format(sql.Identifier("id"))
    for field in table.fields.values():
        yield from field_constraints(table, field)


def field_constraints(table: Table, field: Field) -> Iterator[tuple[str, sql.Composed]]:
    """Yield name and definition of each constraint of one field."""
    column = sql.Identifier(field.name)
    if field.options.unique:
        of_tenant = [] if table.tenant in (None, field) else [table.tenant]
        columns = sql.SQL(", ").join(sql.Identifier(each.name) for each in (*of_tenant, field) if each is not None)
        yield constraint_name(table.name, field.name, "key"), sql.SQL("unique ({})").format(columns)
    if field.options.references is not None:
        other, _, key = field.options.references.partition(".")
        yield (
            constraint_name(table.name, field.name, "fkey"),
            sql.SQL("foreign key ({}) references {} ({}) on delete {}").format(
                column, sql.Identifier(other), sql.Identifier(key), sql.SQL(field.options.on_delete)
            ),
        )
    for name, check in field.checks:
        yield name, sql.SQL("check ({})").format(check)


def index_statement(table: Table, field: Field) -> sql.Composed:
    """Return CREATE INDEX for a field."""
    return sql.SQL("create index if not exists {} on {} ({});\n").format(
        sql.Identifier(constraint_name(table.name, field.name, "idx")),
        sql.Identifier(table.name),
        sql.Identifier(field.name),
    )


def constraints_of(table: Table) -> Iterator[tuple[str, str]]:
    """Yield each constraint's name with its field's."""
    yield constraint_name(table.name, "pkey"), "id"
    for field in table.fields.values():
        for name, _ in field_constraints(table, field):
            yield name, field.name
