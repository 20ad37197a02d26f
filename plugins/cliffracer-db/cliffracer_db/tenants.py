"""Whose rows a task works with: `as_tenant`, `current_tenant`, `tenant_field`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeVar, overload
from uuid import UUID

import msgspec

from cliffracer_core.context import current_context

from .errors import InvalidValue, TenantRequired

__all__ = ["CLAIM", "TENANT_SETTING", "as_tenant", "current_tenant", "required_tenant", "tenant_field"]

T = TypeVar("T", str, int, UUID)
TenantId = str | int | UUID
CLAIM = "tenant"
"""Of the caller's identity: the tenant, where no `as_tenant` says another."""
TENANT_SETTING = "cliffracer.tenant"
"""The parameter of a transaction by which the policies of tables know the tenant."""
_MAX_CHARACTERS = 255

_chosen: ContextVar[str | None] = ContextVar("cliffracer_db_tenant", default=None)


class as_tenant:  # noqa: N801 - a block, such as `contextlib.suppress`
    """Work with the rows of one tenant inside a `with` or an `async with` block, whoever calls.

    Args:
        id: of the tenant.

    Raises:
        InvalidValue: it is empty, longer than 255 characters or not printable.

    Example:
        with as_tenant("acme"):
            await self.notes.list()
    """

    def __init__(self, id: TenantId) -> None:
        self._id = _text(id)

    def __enter__(self) -> str:
        self._token = _chosen.set(self._id)
        return self._id

    def __exit__(self, *exc_info: object) -> None:
        _chosen.reset(self._token)

    async def __aenter__(self) -> str:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__()


def current_tenant() -> str | None:
    """Return the tenant of the block this code is in, else the claim `tenant` of the running call's identity, or None.

    Raises:
        InvalidValue: the claim is no tenant's id.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    context = current_context()
    if context is None or context.identity is None:
        return None
    claim = context.identity.claims.get(CLAIM)
    return None if claim is None else _text(claim)


@overload
def required_tenant() -> str: ...
@overload
def required_tenant(type: type[T]) -> T: ...
def required_tenant(type: Any = str) -> Any:
    """Return the tenant as a str, int or UUID.

    Raises:
        TenantRequired: there is none.
        InvalidValue: it is not of that type.
    """
    tenant = current_tenant()
    if tenant is None:
        raise TenantRequired("no tenant is set; call with an identity that has one, or use 'with as_tenant(id)'")
    try:
        return msgspec.convert(tenant, type, strict=False)
    except msgspec.ValidationError:
        raise InvalidValue(f"the tenant's id is no {type.__name__}") from None


def tenant_field(type: type[T]) -> T:
    """Give a model's field the current tenant as its default; such a field comes after those without a default.

    Args:
        type: of the field: str, int or UUID.

    Example:
        class Note(DatabaseModel, tenant="org_id"):
            __tablename__ = "notes"

            text: str
            org_id: UUID = tenant_field(UUID)
    """

    def current() -> T:
        return required_tenant(type)

    return msgspec.field(default_factory=current)


def _text(id: object) -> str:
    if not isinstance(id, str | int | UUID) or isinstance(id, bool):
        raise InvalidValue("a tenant's id is a str, an int or a UUID")
    text = str(id)
    if not text or len(text) > _MAX_CHARACTERS or not text.isprintable():
        raise InvalidValue(f"a tenant's id has 1 to {_MAX_CHARACTERS} printable characters")
    return text
