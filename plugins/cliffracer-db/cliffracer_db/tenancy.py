"""`TenantRows`: the statements of a table whose rows belong to tenants."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

from psycopg import sql

from cliffracer_core.errors import ConfigurationError

from .columns import Field
from .database import Database, Parameters
from .ddl import policy_name
from .errors import WrongTenant
from .models import DatabaseModel, Table
from .pool import Connection
from .tenants import TENANT_SETTING, required_tenant
from .translation import DRIVER_ERRORS, translate

__all__ = ["TenantRows"]

# permissive policies add up, so a second one may show what the first one hides; restrictive ones only take away
_STATE = """
select r.rolsuper, r.rolbypassrls, c.relrowsecurity,
       c.relforcerowsecurity or not pg_has_role(c.relowner, 'usage'), row_security_active(c.oid),
       array(select array[p.polcmd::text, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)]
             from pg_policy p where p.polrelid = c.oid and p.polpermissive and exists (
                 select from unnest(p.polroles) as role where role = 0 or pg_has_role(role, 'usage')))
from pg_class c, pg_roles r where c.oid = to_regclass(%s) and r.rolname = current_user
"""
_FILLING = re.compile(r'[\s()"]|::text|AS\s+"?nullif"?')


class TenantRows:
    """Run a table's statements for the tenant of the running task; a `Database` does so for other tables.

    Args:
        db: where the table is.
        table: of a model with `tenant=`.
        field: the field that says whose a row is.
    """

    def __init__(self, db: Database, table: Table, field: Field) -> None:
        self._db = db
        self._table = table
        self._field = field
        self._verified = False

    def check_owner(self, model: DatabaseModel) -> None:
        """Refuse a model that is not the tenant's.

        Raises:
            TenantRequired: no tenant is set.
            WrongTenant: the model is another's.
        """
        if getattr(model, self._field.name) != required_tenant(self._field.base):
            raise WrongTenant(
                f"table {self._table.name!r}, field {self._field.name!r}: the row belongs to another tenant",
                details={"table": self._table.name, "field": self._field.name},
            )

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Take a connection in a transaction that knows the tenant.

        Raises:
            TenantRequired: no tenant is set.
            ConfigurationError: the table does not keep tenants apart.
            CliffracerError: as `Database.connection`.
        """
        required_tenant(self._field.base)
        if not self._verified:
            await self.verify()
        async with self._db.connection() as connection:
            yield connection

    async def fetch_all(
        self, text: str, parameters: Parameters = (), fields: Mapping[str, str] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement that was composed before, as `Database.fetch_all`. Errors as `connection`."""
        async with self.connection() as connection:
            try:
                cursor = connection.cursor(binary=True)
                await cursor.execute(text, parameters, prepare=True)
                return await cursor.fetchall() if cursor.description is not None else []
            except DRIVER_ERRORS as error:
                raise translate(error, fields) from error

    async def run(self, text: str, parameters: Parameters = (), fields: Mapping[str, str] | None = None) -> int:
        """Run a statement that was composed before, as `Database.run`. Errors as `connection`."""
        async with self.connection() as connection:
            try:
                cursor = connection.cursor()
                await cursor.execute(text, parameters, prepare=True)
                return cursor.rowcount
            except DRIVER_ERRORS as error:
                raise translate(error, fields) from error

    async def verify(self) -> None:
        """Look whether the table keeps tenants apart; a table that is not there yet is looked at when it is used.

        Raises:
            ConfigurationError: it has no such policy, or others beside it, or does not bind the role of this program.
            CliffracerError: what the database refused.
        """
        name = sql.Identifier(self._table.name).as_string(None)
        rows = await self._db.fetch_all(_STATE, (name,))
        if not rows:
            return
        superuser, bypasses, enabled, bound, active, policies = rows[0]
        if superuser or bypasses:
            self._refuse(
                f"this role is a superuser, or has BYPASSRLS, whom no policy binds; connect as another "
                f"(db.user of {(self._db.settings.place if self._db.settings else 'the database')!r})"
            )
        if not enabled:
            self._refuse("row-level security is off; apply what 'cliffracer db diff' writes")
        if not bound:
            self._refuse("its owner is this role, and row-level security is not forced; apply 'cliffracer db diff'")
        if not active:
            self._refuse("row-level security does not bind this role")
        if not any(command == "*" for command, _, _ in policies):
            self._refuse(f"it has no policy {policy_name(self._table)!r}; apply what 'cliffracer db diff' writes")
        for _, using, check in policies:
            if any(each is not None and not self._is_rule(each) for each in (using, check)):
                self._refuse(
                    f"a permissive policy beside {policy_name(self._table)!r}, or another one in its place, may show "
                    f"rows of others; drop it, or make it restrictive, and apply what 'cliffracer db diff' writes"
                )
        self._verified = True

    def _is_rule(self, expression: str) -> bool:
        """Tell whether an expression, as PostgreSQL writes it, is the policy's."""
        plain = _FILLING.sub("", expression)
        return plain == f"{self._field.name}=SELECTNULLIFcurrent_setting'{TENANT_SETTING}',true,''" + (
            "" if self._field.sql_type == "text" else f"::{self._field.sql_type}"
        )

    def _refuse(self, why: str) -> NoReturn:
        raise ConfigurationError(f"table {self._table.name!r} does not keep tenants apart: {why}")
