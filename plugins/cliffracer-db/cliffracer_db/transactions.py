"""What transaction the running task is in; `@transactional`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Literal, TypeVar, overload

import msgspec

from cliffracer_core.errors import ConfigurationError, DatabaseError
from cliffracer_core.handlers import mark

from .errors import WrongTenant
from .pool import Connection, Pool
from .tenants import TENANT_SETTING

__all__ = ["Isolation", "Transaction", "TransactionOptions", "announce", "current_transaction", "running"]
__all__ += ["in_transaction", "transactional"]

F = TypeVar("F", bound=Callable[..., object])
Isolation = Literal["read committed", "repeatable read", "serializable"]
_ANNOUNCE = "select set_config(%s, %s, true)"  # as SET LOCAL, which takes no parameters
ISOLATIONS = ("read committed", "repeatable read", "serializable")


class Transaction(msgspec.Struct, eq=False):
    """A transaction that runs on a connection of a pool."""

    pool: Pool
    connection: Connection
    active: bool = True
    tenant: str | None = None
    """The first one for whom something was done in it; it has no other."""
    announced: bool = False
    """Whether the server knows the tenant."""
    undone: int = 0
    """How many transactions inside it were undone."""
    savepoints: list[object] = []
    """The transactions inside it that are open, the innermost last."""

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """Count one more inside it, which this task and those it starts are in."""
        savepoint = object()
        self.savepoints.append(savepoint)
        token = _inside.set(_inside.get() | {savepoint})
        try:
            yield
        finally:
            _inside.reset(token)
            self.savepoints.remove(savepoint)

    async def join(self, tenant: str | None) -> None:
        """Work for a tenant from here on; None leaves it as it is. Raises WrongTenant where it is another's."""
        if tenant is None or (tenant == self.tenant and self.announced):
            return
        if self.tenant not in (None, tenant):
            raise WrongTenant("a transaction belongs to one tenant; begin another one inside 'with as_tenant(id)'")
        self.tenant = tenant
        await announce(self.connection, tenant)
        self.announced = True


async def announce(connection: Connection, tenant: str) -> None:
    """Tell the server the tenant, until the end of the transaction that the connection is in."""
    await connection.execute(_ANNOUNCE, (TENANT_SETTING, tenant))


class TransactionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a transaction runs."""

    isolation: Isolation | None = None
    """The server's default where None."""
    read_only: bool = False
    attempts: int = 5
    """How often it is run in all, where another transaction gets in the way."""

    def __post_init__(self) -> None:
        if self.isolation is not None and self.isolation not in ISOLATIONS:
            raise ConfigurationError(f"isolation {self.isolation!r} is none; use one of {', '.join(ISOLATIONS)}")
        if self.attempts < 1:
            raise ConfigurationError(f"attempts {self.attempts!r} is below 1; a transaction runs at least once")


running: ContextVar[tuple[Transaction, ...]] = ContextVar("cliffracer_db_transactions", default=())
"""The transactions of the running task, one for each pool."""


_inside: ContextVar[frozenset[object]] = ContextVar("cliffracer_db_savepoints", default=frozenset())


def current_transaction(pool: Pool) -> Transaction | None:
    """Return the transaction that the running task is in; None outside, and after its end.

    Raises:
        DatabaseError: another task has one open inside it, which the caller is not in: to undo that would undo what the
            caller does, and nobody would know.
    """
    for each in running.get():
        if each.pool is pool and each.active:
            if each.savepoints and each.savepoints[-1] not in _inside.get():
                raise DatabaseError(
                    "another task has a transaction open inside this one, or writes many rows; let one do so after "
                    "the other"
                )
            return each
    return None


def in_transaction(pool: Pool) -> bool:
    """Tell whether the running task is in a transaction."""
    return any(each.pool is pool and each.active for each in running.get())


@overload
def transactional(function: F, /) -> F: ...
@overload
def transactional(
    *, isolation: Isolation | None = None, read_only: bool = False, attempts: int = 5
) -> Callable[[F], F]: ...
def transactional(
    function: F | None = None,
    /,
    *,
    isolation: Isolation | None = None,
    read_only: bool = False,
    attempts: int = 5,
) -> F | Callable[[F], F]:
    """Run a handler in a transaction of the service's database: committed when it returns, undone when it raises.

    Args:
        function: the handler.
        isolation: the server's default where None.
        read_only: whether writes are refused.
        attempts: how often the handler runs in all where another transaction gets in the way.

    Raises:
        ConfigurationError: an isolation level that does not exist, or no attempts.
    """
    options = TransactionOptions(isolation=isolation, read_only=read_only, attempts=attempts)

    def decorate(function: F) -> F:
        return mark(function, "db", "transactional", options)

    return decorate if function is None else decorate(function)
