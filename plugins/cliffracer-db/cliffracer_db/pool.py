"""`Pool`: connections to one database, shared by all in a process and event loop that have the same settings."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from .errors import DatabaseUnavailable
from .settings import DbSettings
from .translation import DRIVER_ERRORS, translate

__all__ = ["Connection", "Pool", "is_used", "join_pool", "leave_pool"]

logger = logging.getLogger("cliffracer.db")

Connection = AsyncConnection[Any]

# Pools by loop and settings, with the number of those who have one open; a loop's entry goes with the loop.
_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[DbSettings, Pool]] = WeakKeyDictionary()


class Pool(AsyncConnectionPool[Connection]):
    """A psycopg pool whose callers learn at once that the database is gone, and reconnect as they call.

    Args:
        settings: of the database.
    """

    def __init__(self, settings: DbSettings) -> None:
        self.users = 0
        self.settings = settings
        self._failure: BaseException | None = None
        self._reported = False
        super().__init__(
            settings.conninfo(),
            kwargs={"autocommit": True, "prepare_threshold": None if settings.pgbouncer else 5},
            min_size=settings.pool_min_size,
            max_size=settings.pool_max_size,
            timeout=settings.pool_timeout_s,
            max_waiting=settings.max_waiting,
            max_idle=settings.max_idle_s,
            max_lifetime=settings.max_lifetime_s,
            reconnect_timeout=0,  # each call that finds no connection tries anew
            configure=_configure,
            open=False,
        )

    async def take(self) -> Connection:
        """Return a connection; give it back with `give_back`.

        Raises:
            PoolExhausted: none was free within `pool_timeout_s`.
            DatabaseUnavailable: the database cannot be reached; at once, where it refuses.
        """
        try:
            connection = await self.getconn()
        except DRIVER_ERRORS as error:
            raise translate(error) from error
        self._reported = False
        return connection

    async def give_back(self, connection: Connection) -> None:
        """Return a connection, also while the task is being cancelled; a broken one is replaced.

        After a lost connection the idle ones are checked, for they are likely lost too.
        """
        status = connection.pgconn.transaction_status
        if status == TransactionStatus.IDLE and not self._lock.locked():
            await self.putconn(connection)  # nothing in here waits now
            return
        returning = asyncio.ensure_future(self.putconn(connection))
        await asyncio.shield(returning)
        if status == TransactionStatus.UNKNOWN and not self.closed:
            await self.check()

    async def _connect(self, timeout: float | None = None) -> Connection:
        try:
            return await super()._connect(timeout)
        except Exception as error:
            self._failure = error
            raise

    async def reconnect_failed(self) -> None:
        """Tell those who wait for a connection, where there is none left to wait for."""
        async with self._lock:
            if self._nconns:
                return
            waiting = list(self._waiting)
            self._waiting.clear()
        if not self._reported:
            self._reported = True
            logger.error("database %s cannot be reached: %s", self.settings.place, type(self._failure).__name__)
        for client in waiting:
            error = DatabaseUnavailable("the database cannot be reached; it is tried again with the next call")
            error.__cause__ = self._failure
            await client.fail(error)


async def _configure(connection: Connection) -> None:
    set_json_loads(msgspec.json.decode, context=connection)


async def join_pool(settings: DbSettings) -> Pool:
    """Return the running loop's pool for these settings, opened; leave it with `leave_pool`."""
    loop = asyncio.get_running_loop()
    for known in [each for each in _by_loop if each.is_closed()]:
        del _by_loop[known]  # its connections hold the loop
    pools = _by_loop.setdefault(loop, {})
    pool = pools.get(settings)
    if pool is None:
        pool = pools[settings] = Pool(settings)
    pool.users += 1
    await pool.open()
    return pool


async def leave_pool(pool: Pool) -> None:
    """Close a pool where nobody uses it any more."""
    pool.users -= 1
    if not pool.users:
        pools = _by_loop.get(asyncio.get_running_loop(), {})
        if pools.get(pool.settings) is pool:
            del pools[pool.settings]
        await pool.close(timeout=5.0)


def is_used(settings: DbSettings) -> bool:
    """Tell whether the running loop has a pool for these settings."""
    return settings in _by_loop.get(asyncio.get_running_loop(), {})
