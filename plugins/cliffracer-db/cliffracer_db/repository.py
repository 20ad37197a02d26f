"""`Repository`: the rows of one table as models."""

from __future__ import annotations

import builtins
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Self, TypeVar, cast
from uuid import UUID

from cliffracer_core.interfaces import ServiceInfo

from .bulk import Bulk
from .columns import Field
from .conditions import AnyOf, Condition, Filter, check, order_of, where
from .copying import Rows, copy_rows, insert_rows
from .cursors import portions
from .database import Database
from .errors import InvalidValue, RecordNotFound, StaleRecord
from .ids import as_id
from .models import DatabaseModel, table_of
from .paging import Page, checked_count, place_of, read_place
from .reads import Reads
from .statements import Statements
from .tenancy import TenantRows
from .transactions import current_transaction

__all__ = ["Repository"]

M = TypeVar("M", bound=DatabaseModel)
Id = UUID | str
COPY_CHUNK = 500
_LARGEST_BATCH = 100_000


class Repository(Generic[M]):
    """Read and write the rows of a model's table.

    A Provider: `users = Repository(User)` on a service class uses the service's database. On its own:
    `Repository(User, db)` with an open `Database`. What it does inside a transaction is part of it.

    Every method may raise `DatabaseUnavailable`, `PoolExhausted`, `StatementTimeout`, `UnknownTable`, and
    in a transaction `SerializationFailure`; of a model with `tenant=` also `TenantRequired` and `WrongTenant`.

    Args:
        model: a subclass of `DatabaseModel`.
        db: where the table is; the service's own database where None.

    Raises:
        ConfigurationError: the model cannot be a table.
    """

    def __init__(self, model: type[M], db: Database | None = None) -> None:
        self.model = model
        self.table = table_of(model)
        self.db = db or Database()
        self._key = as_id
        self._statements = Statements(self.table)
        self._load = cast(Callable[[tuple[Any, ...]], M], self.table.load)
        field = self.table.tenant
        self._tenant = TenantRows(self.db, self.table, field) if field is not None else None
        # a tenant's read shares no statement: each has its own transaction, which knows the tenant
        self._reads = Reads(self.db, self._statements.get, self._statements.get_many) if field is None else None
        self._rows = self._tenant or self.db
        self._bulk = Bulk(self.table) if field is None else None  # of a tenant, each model's owner is looked at
        self._owns = db is None

    def bind(self, service: ServiceInfo, name: str) -> Self:
        """Return a copy for one service, on its database."""
        copy = self._copy(self.db.bind(service, name))
        copy._owns = True
        return copy

    def _copy(self, db: Database) -> Self:
        return type(self)(self.model, db)

    async def open(self) -> None:
        """Open the database, where it is the repository's own. Raises DatabaseUnavailable."""
        if self._owns:
            await self.db.open()

    async def close(self) -> None:
        """Close the database, where it is the repository's own."""
        if self._owns:
            await self.db.close()

    async def verify_tenants(self) -> None:
        """Look, for a model with `tenant=`, whether its table keeps tenants apart; a service does so at start.

        Raises:
            ConfigurationError: it has no such policy, or the policy does not bind this program's role.
        """
        if self._tenant is not None:
            await self._tenant.verify()

    # --- one row ---

    async def create(self, model: M) -> M:
        """Write a new row and return the model as it is stored.

        Raises:
            InvalidValue: a value does not fit; nothing is written.
            UniqueViolation, ForeignKeyViolation, CheckViolation: the table refuses it.
        """
        checked = self._check(model)
        await self._rows.run(self._statements.insert, self.table.dump(checked), self._statements.fields)
        return checked

    async def get(self, id: Id) -> M:
        """Return a row. Raises RecordNotFound (404), or InvalidValue for an id that is none."""
        key = self._key(id)
        if self._reads is not None:
            row = await self._reads.get(key)
        else:
            row = next(iter(await self._rows.fetch_all(self._statements.get, (key,))), None)
        if row is None:
            raise self._not_found()
        return self._load(row)

    async def get_many(self, ids: Iterable[Id]) -> builtins.list[M]:
        """Return the rows with these ids that exist, in the order of the ids, each once."""
        wanted = dict.fromkeys(self._key(each) for each in ids)
        rows = await self._rows.fetch_all(self._statements.get_many, (builtins.list(wanted),)) if wanted else []
        found = {model.id: model for model in map(self._load, rows)}
        return [found[each] for each in wanted if each in found]

    async def update(self, id: Id, data: Mapping[str, object], *, expected_updated_at: datetime | None = None) -> M:
        """Change fields of a row and return it; `updated_at` becomes later.

        Args:
            id: of the row.
            data: field to value.
            expected_updated_at: change it only where it is still as it was read.

        Raises:
            RecordNotFound: there is no such row.
            StaleRecord: it has changed since `expected_updated_at`; read it again.
            UnknownField, InvalidValue: nothing is written.
            UniqueViolation, ForeignKeyViolation, CheckViolation: the table refuses it.
        """
        key = self._key(id)
        values = self._changes(data)
        expecting = expected_updated_at is not None
        text = self._statements.update(builtins.list(data), expecting=expecting)
        parameters = [*values, key]
        if expecting:
            parameters.append(self.table.parameter(self.table.field("updated_at"), expected_updated_at))
        rows = await self._rows.fetch_all(text, parameters, self._statements.fields)
        if rows:
            return self._load(rows[0])
        if expecting and await self.exists(id=key):
            raise StaleRecord(
                f"table {self.table.name!r}: the row has changed since it was read; read it again",
                details={"table": self.table.name},
            )
        raise self._not_found()

    async def upsert(self, model: M, *, on: str | Sequence[str] = "id") -> M:
        """Write a row, or change the one that has the same value in `on`; returns it as it is then.

        Args:
            model: the values; id and `created_at` of a row that is there stay.
            on: a unique field, or several that are unique together.

        Raises:
            UnknownField, InvalidValue: nothing is written.
            UniqueViolation, ForeignKeyViolation, CheckViolation: the table refuses it.
            DatabaseError: no unique constraint is on the fields `on`.
        """
        fields = (on,) if isinstance(on, str) else tuple(on or ())
        for each in fields:
            self._field(each)
        if not fields:
            raise InvalidValue("'on' names no field; name a unique one", details={"field": "on"})
        parameters = self.table.dump(self._check(model))
        rows = await self._rows.fetch_all(self._statements.upsert(fields), parameters, self._statements.fields)
        return self._load(rows[0])

    async def delete(self, id: Id) -> bool:
        """Remove a row; False where there was none. Raises ForeignKeyViolation where others refer to it."""
        return await self._rows.run(self._statements.delete, (self._key(id),), self._statements.fields) > 0

    # --- many rows ---

    async def create_many(self, models: Iterable[M]) -> int:
        """Write new rows with COPY, all or none; returns how many. Memory holds some thousand. Errors as `create`."""
        chunks = self._chunks(models)
        if self._tenant is not None:
            return await insert_rows(self.db, self._tenant, self._statements, chunks)
        return await copy_rows(self.db, self._statements, chunks)

    def _chunks(self, models: Iterable[M]) -> Iterator[Rows]:
        source = iter(models)
        while chunk := builtins.list(itertools.islice(source, COPY_CHUNK)):
            rows = self._bulk.rows(chunk) if self._bulk is not None else None
            yield [self.table.dump(self._check(model)) for model in chunk] if rows is None else rows

    async def list(self, limit: int = 100, offset: int = 0, *, order_by: str = "id") -> builtins.list[M]:
        """Return rows in the order of their ids, the oldest first, or of a field (`-field`: descending)."""
        return await self.find(limit=limit, offset=offset, order_by=order_by)

    async def find_by_field(self, field: str, value: object) -> builtins.list[M]:
        """Return the rows whose field has this value; None finds those without one."""
        return await self.find(where(field) == value)

    async def find(
        self,
        *conditions: Condition | AnyOf,
        order_by: str | Sequence[str] = "id",
        limit: int | None = None,
        offset: int = 0,
        **equal: object,
    ) -> builtins.list[M]:
        """Return the rows for which all conditions hold.

        Args:
            *conditions: such as `where("age") >= 18`.
            order_by: a field or several; descending with `-` before it.
            limit: at most so many; all where None.
            offset: without the first so many.
            **equal: fields and the values they must have.

        Raises:
            UnknownField: the model has no such field.
            InvalidValue: a value of the wrong type; a limit or offset below 0.
        """
        filter = self._filter(conditions, equal)
        values = filter.values
        if limit is not None:
            values.append(checked_count(limit, "limit"))
        if offset:
            values.append(checked_count(offset, "offset"))
        text = self._statements.select(
            filter.shape, self._order(order_by), limit=limit is not None, offset=bool(offset)
        )
        return [self._load(row) for row in await self._rows.fetch_all(text, values)]

    async def page(
        self,
        *conditions: Condition | AnyOf,
        after: str | None = None,
        limit: int = 50,
        order_by: str = "id",
        **equal: object,
    ) -> Page[M]:
        """Return some rows, and where the next ones begin; every page costs the same, however far.

        Args:
            *conditions: as `find`.
            after: `next` of the page before; None for the first.
            limit: rows of a page, 1 to 10,000.
            order_by: a field that is never None; descending with `-` before it.
            **equal: as `find`.

        Raises:
            InvalidValue: `after` is of no page in this order, or as `find`.
        """
        order = self._order(order_by)
        if len(order) > 1:
            raise InvalidValue("pages are in the order of one field", details={"field": "order_by"})
        name, descending = order[0]
        field = self.table.field(name)
        if field.nullable or field.sql_type == "jsonb":
            raise InvalidValue(f"field {name!r} orders no pages: it may be None, or is a document")
        if not 1 <= checked_count(limit, "limit") <= 10_000:
            raise InvalidValue(f"limit {limit!r} is not between 1 and 10,000")
        filter = self._filter(conditions, equal)
        values = filter.values
        if after is not None:
            values += self._place(field, after)
        text = self._statements.page(filter.shape, name, descending=descending, after=after is not None)
        rows = [
            self._load(row) for row in await self._rows.fetch_all(text, [*values, checked_count(limit + 1, "limit")])
        ]
        return Page(rows[:limit], place_of(rows[limit - 1], name) if len(rows) > limit else None)

    async def stream(
        self, *conditions: Condition | AnyOf, order_by: str = "id", batch: int = 1000, **equal: object
    ) -> AsyncGenerator[M, None]:
        """Yield rows one by one from a server-side cursor; memory holds one batch.

        It is part of the running transaction, and ends with it. Outside of one it keeps a connection, and a
        transaction of its own, until it ends; leave it early with `aclosing`.

        Args:
            *conditions: as `find`.
            order_by: as `find`.
            batch: rows to fetch at a time, 1 to 100,000.
            **equal: as `find`.

        Raises:
            UnknownField, InvalidValue: as `find`, or `batch` is out of range.
            DatabaseError: the transaction that it began in has ended.
        """
        if not 1 <= checked_count(batch, "batch") <= _LARGEST_BATCH:
            raise InvalidValue(f"batch {batch!r} is not between 1 and {_LARGEST_BATCH:,}", details={"field": "batch"})
        filter = self._filter(conditions, equal)
        text = self._statements.select(filter.shape, self._order(order_by))
        outer = current_transaction(self.db.pool)
        async with (
            self._rows.connection() as connection,
            connection.transaction() if outer is None else contextlib.nullcontext(),
            contextlib.aclosing(portions(connection, text, filter.values, batch, outer)) as read,
        ):
            async for rows in read:
                for row in rows:
                    yield self._load(row)

    async def count(self, *conditions: Condition | AnyOf, **equal: object) -> int:
        """Count the rows for which all conditions hold. Errors as `find`."""
        filter = self._filter(conditions, equal)
        rows = await self._rows.fetch_all(self._statements.count(filter.shape), filter.values)
        return int(rows[0][0])

    async def exists(self, *conditions: Condition | AnyOf, **equal: object) -> bool:
        """Tell whether there is a row for which all conditions hold. Errors as `find`."""
        filter = self._filter(conditions, equal)
        rows = await self._rows.fetch_all(self._statements.exists(filter.shape), filter.values)
        return bool(rows[0][0])

    # --- checks and conversions ---

    def _check(self, model: M) -> M:
        checked = self.table.check(model)
        if self._tenant is not None:
            self._tenant.check_owner(checked)
        return checked  # type: ignore[return-value]  # of the same class

    def _filter(self, conditions: Sequence[Condition | AnyOf], equal: dict[str, object]) -> Filter:
        return check(self.table, conditions, equal)

    def _changes(self, data: Mapping[str, object]) -> builtins.list[Any]:
        return self.table.changes(data)

    def _field(self, name: object) -> Field:
        return self.table.field(name)

    def _place(self, field: Field, after: str) -> builtins.list[Any]:
        return read_place(self.table, field, after)

    def _order(self, order_by: str | Sequence[str]) -> builtins.list[tuple[str, bool]]:
        return order_of(self.table, order_by)

    def _not_found(self) -> RecordNotFound:
        return RecordNotFound(f"table {self.table.name!r} has no row with this id", details={"table": self.table.name})
