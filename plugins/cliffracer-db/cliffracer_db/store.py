"""`PostgresStore`: the kernel's store in two tables, on the database's clock."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from msgspec.structs import replace
from psycopg import sql

from cliffracer_core.errors import ConfigurationError, ConnectionError, ValidationError
from cliffracer_core.interfaces import Lease, ServiceInfo

from .columns import validate_identifier
from .database import Database
from .errors import UniqueViolation
from .settings import DbSettings, parse_url, settings_of

__all__ = ["PostgresStore"]

MAX_KEY_BYTES = 512
TABLE = "cliffracer_store"
_SWEEP = 1000
"""Values whose time has passed that one `open` removes at most."""
_LIVE = "(expires_at is null or expires_at > clock_timestamp())"
_EXPIRES = "clock_timestamp() + make_interval(secs => %s)"  # of None it is null: the value stays


class PostgresStore:
    """Keep values and leases in PostgreSQL. Writes are committed each on its own, whatever transaction runs.

    Its tables, `cliffracer_store` and `cliffracer_store_leases`, are made where they are missing. Time is
    the database's.

    Args:
        settings: a URL or `DbSettings`.
        table: of the values; the leases' is `<table>_leases`.

    Raises:
        ConfigurationError: the URL, or the table's name, is none.
    """

    def __init__(self, settings: DbSettings | str, *, table: str = TABLE) -> None:
        self._db = Database(settings)
        self._open = False
        validate_identifier(f"{table}_leases", "store's table")
        self._table = table
        values, leases, revisions = (sql.Identifier(f"{table}{each}") for each in ("", "_leases", "_revision"))

        def text(template: str) -> str:
            parts = sql.SQL(template)
            return parts.format(
                values=values, leases=leases, revisions=revisions, live=sql.SQL(_LIVE), expires=sql.SQL(_EXPIRES),
                sequence=sql.Literal(f"{table}_revision"), index=sql.Identifier(f"{table}_expires_idx"),
            ).as_string(None)  # fmt: skip

        self._ddl = text(
            "create sequence if not exists {revisions};"
            'create table if not exists {values} (key text collate "C" primary key, value bytea not null, '
            "revision bigint not null, expires_at timestamptz);"
            "create index if not exists {index} on {values} (expires_at) where expires_at is not null;"
            "create table if not exists {leases} (key text primary key, holder text not null, epoch bigint not null, "
            "expires_at timestamptz not null);"
        )
        self._get = text("select value, revision from {values} where key = %s and {live}")
        self._put = text(
            "insert into {values} as present (key, value, revision, expires_at) "
            "values (%s, %s, nextval({sequence}), {expires}) on conflict (key) do update "
            "set value = excluded.value, revision = nextval({sequence}), expires_at = excluded.expires_at "
            "returning revision"
        )
        self._create = text(
            "insert into {values} as present (key, value, revision, expires_at) "
            "values (%s, %s, nextval({sequence}), {expires}) on conflict (key) do update "
            "set value = excluded.value, revision = nextval({sequence}), expires_at = excluded.expires_at "
            "where present.expires_at <= clock_timestamp() returning revision"
        )
        self._swap = text(
            "update {values} set value = %s, revision = nextval({sequence}), expires_at = {expires} "
            "where key = %s and revision = %s and {live} returning revision"
        )
        self._delete = text("delete from {values} where key = %s and (%s::bigint is null or revision = %s) and {live}")
        self._scan = text(
            "select key, value, revision from {values} where key > %s and starts_with(key, %s) and {live} "
            "order by key limit 500"
        )
        self._sweep = text(
            "delete from {values} where key in (select key from {values} where expires_at <= clock_timestamp() limit "
            f"{_SWEEP})"
        )
        self._acquire = text(
            "insert into {leases} as present (key, holder, epoch, expires_at) values (%s, %s, nextval({sequence}), "
            "{expires}) on conflict (key) do update set holder = excluded.holder, expires_at = excluded.expires_at, "
            "epoch = case when present.holder = excluded.holder and present.expires_at > clock_timestamp() "
            "then present.epoch else nextval({sequence}) end "
            "where present.holder = excluded.holder or present.expires_at <= clock_timestamp() returning epoch"
        )
        self._release = text(
            "delete from {leases} where key = %s and holder = %s and epoch = %s and expires_at > clock_timestamp()"
        )

    @classmethod
    def create(cls, url: str, service: ServiceInfo) -> PostgresStore:
        """Make a store for a URL; `?table=name` chooses the table. Pool and timeouts are those of section `db`.

        Raises:
            ConfigurationError: the URL is none.
        """
        parts = urlsplit(parse_url(url))
        options = dict(parse_qsl(parts.query))
        table = options.pop("table", TABLE)
        query = "&".join(each for each in parts.query.split("&") if not each.startswith("table="))
        if not parts.netloc and not parts.path.strip("/"):  # `postgresql://`: where the repositories are
            return cls(settings_of(service), table=table)
        return cls(replace(settings_of(service), url=urlunsplit(parts._replace(query=query))), table=table)

    async def open(self) -> None:
        """Connect, make the tables where they are missing, remove values whose time has passed.

        Raises:
            DatabaseUnavailable: nobody there, or refused.
        """
        await self._db.open()
        try:
            async with self._db.transaction():
                # CREATE ... IF NOT EXISTS of two replicas at once can still collide
                await self._db.fetch_all("select pg_advisory_xact_lock(hashtext(%s))", (self._table,))
                await self._db.execute(sql.SQL(self._ddl))
            await self._db.run(self._sweep)
        except BaseException:
            await self._db.close()
            raise
        self._open = True

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        self._open = False
        await self._db.close()

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision; see `Store`."""
        rows = await self._ask(self._get, (_key(key),))
        return (bytes(rows[0][0]), rows[0][1]) if rows else None

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """Write; see `Store`."""
        rows = await self._ask(self._put, (_key(key), value, _seconds(ttl_s)))
        return int(rows[0][0])

    async def compare_and_swap(
        self, key: str, value: bytes, *, revision: int, ttl_s: float | None = None
    ) -> int | None:
        """Write where the revision is still this; see `Store`."""
        if revision == 0:
            rows = await self._ask(self._create, (_key(key), value, _seconds(ttl_s)))
        else:
            rows = await self._ask(self._swap, (value, _seconds(ttl_s), _key(key), revision))
        return int(rows[0][0]) if rows else None

    async def delete(self, key: str, *, revision: int | None = None) -> bool:
        """Remove; see `Store`."""
        rows = await self._ask(self._delete + " returning 1", (_key(key), revision, revision))
        return bool(rows)

    async def scan(self, prefix: str = "") -> AsyncIterator[tuple[str, bytes, int]]:
        """Yield what a prefix has, by key, in portions; see `Store`."""
        last = ""
        while True:
            rows = await self._ask(self._scan, (last, _clean(prefix)))
            for key, value, revision in rows:
                yield key, bytes(value), revision
            if not rows:
                return
            last = rows[-1][0]

    async def acquire(self, key: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take or renew a lease; see `Store`."""
        rows = await self._ask(self._acquire, (_key(key), _clean(holder), _seconds(ttl_s)))
        return Lease(key, holder, int(rows[0][0]), ttl_s) if rows else None

    async def release(self, lease: Lease) -> bool:
        """Give a lease back; see `Store`."""
        rows = await self._ask(self._release + " returning 1", (_key(lease.key), lease.holder, lease.epoch))
        return bool(rows)

    async def _ask(self, text: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not self._open:
            raise ConnectionError("store is closed; open it first")
        with contextlib.suppress(UniqueViolation):  # two that create one key: the loser finds it there
            return await self._db.fetch_all(text, parameters, alone=True)
        return []


def _clean(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("key is no valid Unicode; store keys are any text") from None
    if "\x00" in text:
        raise ValidationError("key holds the character NUL, which PostgreSQL keeps in no text; leave it out")
    return text


def _key(key: str) -> str:
    if not key or len(_clean(key).encode()) > MAX_KEY_BYTES:
        raise ValidationError(f"key has {len(key)} characters; store keys have 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    return key


def _seconds(ttl_s: float | None) -> float | None:
    if ttl_s is not None and not ttl_s > 0:
        raise ConfigurationError(f"ttl_s {ttl_s!r} is not above 0; leave it out for a value that stays")
    return None if ttl_s is None else float(ttl_s)
