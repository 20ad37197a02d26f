"""A request that comes again with its `Idempotency-Key` gets the first one's response, and runs once.

The record is claimed before the handler runs and holds the result afterwards; what fails gives the claim
back, so that a retry runs. See draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from cliffracer_core import MessageContext, Store
from cliffracer_core.errors import CliffracerError, ConfigurationError, ConflictError, ValidationError, describe
from cliffracer_core.interfaces import Call
from cliffracer_core.memory import MemoryStore
from cliffracer_core.messages import IDEMPOTENCY_KEY, JSON

from .errors import KeyReused
from .responses import Reply

__all__ = ["REPLAYED", "Idempotency"]

logger = logging.getLogger("cliffracer.http")

REPLAYED = "Idempotency-Replayed"
_MARGIN_S = 5.0  # a claim outlives its request's deadline by so much


class Record(msgspec.Struct, omit_defaults=True):
    """What is known of a key."""

    fingerprint: str
    done: bool = False
    value: msgspec.Raw = msgspec.Raw(b"null")
    status: int | None = None
    headers: dict[str, str] = {}
    etag: str | None = None
    body: str | None = None
    """Of a `Response`, in base64."""


_read = msgspec.json.Decoder(Record).decode
_write = msgspec.json.Encoder().encode


class Idempotency:
    """One service's memory of keys.

    Args:
        ttl_s: seconds for which a response is kept.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self.store: Store | None = None
        """Set while the service runs and has one; without a store every request runs."""

    def use(self, stores: Mapping[str, Store], name: str | None) -> None:
        """Remember in the store of this name; without one in `default`, where it outlives this process.

        Raises:
            ConfigurationError: there is no such store.
        """
        if name is not None and name not in stores:
            raise ConfigurationError(f"http.idempotency_store: there is no store {name!r}; known are {sorted(stores)}")
        store = stores.get(name or "default")
        self.store = None if name is None and isinstance(store, MemoryStore) else store

    def wrap(self, next: Call) -> Call:
        """Make the layer around one handler."""

        async def call(context: MessageContext) -> object:
            key = context.headers.get(IDEMPOTENCY_KEY)
            if key is None or context.kind != "http" or self.store is None:
                return await next(context)
            if not key:
                raise ValidationError("'Idempotency-Key' is 1 to 255 printable characters of ASCII; send such a one")
            return await self._once(self.store, key, context, next)

        return call

    async def _once(self, store: Store, key: str, context: MessageContext, next: Call) -> object:
        name, fingerprint = _name(context, key), _fingerprint(context)
        claim = _write(Record(fingerprint))
        left_s = context.remaining_s() or 0.0
        revision = await store.compare_and_swap(name, claim, revision=0, ttl_s=left_s + _MARGIN_S)
        if revision is None:
            found = await store.get(name)
            if found is None:
                raise _busy()
            return _replay(_read(found[0]), fingerprint)
        try:
            result = await next(context)
            record = _record(fingerprint, result)
        except BaseException:
            await _forget(store, name, revision)
            raise
        if record is None:
            await _forget(store, name, revision)
            return result
        try:
            await store.compare_and_swap(name, _write(record), revision=revision, ttl_s=self._ttl_s)
        except CliffracerError as error:
            logger.warning("%s: a response was not remembered: %s", context.subject, describe(error))
        return result


def _name(context: MessageContext, key: str) -> str:
    identity = context.identity
    who = ("", "") if identity is None else (identity.id, str(identity.claims.get("tenant", "")))
    digest = hashlib.blake2b(msgspec.json.encode([*who, key]), digest_size=20).hexdigest()
    return f"http.idempotency.{context.service}.{context.handler}.{digest}"


def _fingerprint(context: MessageContext) -> str:
    """Return a hash of what was asked: the route, and the arguments as they were decoded."""
    asked = [context.subject, context.arguments]
    return hashlib.blake2b(JSON.encode(asked), digest_size=20).hexdigest()


def _busy() -> ConflictError:
    return ConflictError("a request with this Idempotency-Key is being processed; try again when it is done")


def _replay(record: Record, fingerprint: str) -> object:
    if record.fingerprint != fingerprint:
        raise KeyReused("this Idempotency-Key came with another request before; use a new one for a new request")
    if not record.done:
        raise _busy()
    headers = {**record.headers, REPLAYED: "true"}
    if record.body is not None:
        return Response(base64.b64decode(record.body), record.status or 200, headers)
    return Reply(msgspec.json.decode(record.value), record.status, headers, record.etag)


def _record(fingerprint: str, result: object) -> Record | None:
    """Return what is remembered of a result; None for a response that is sent as it is made, or that failed."""
    record = Record(fingerprint, done=True)
    if isinstance(result, Response):
        body: Any = getattr(result, "body", None)
        if not isinstance(body, bytes) or result.status_code >= 500:
            return None
        record.body = base64.b64encode(body).decode("ascii")
        record.status = result.status_code
        record.headers = _plain(result.headers)
        return record
    value = result
    if isinstance(result, Reply):
        record.status, record.headers, record.etag = result.status_code, dict(result.headers), result.etag
        value = result.value
    record.value = msgspec.Raw(JSON.encode(value))
    return record


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in ("content-length", "set-cookie")}


async def _forget(store: Store, name: str, revision: int) -> None:
    try:
        await store.delete(name, revision=revision)
    except CliffracerError as error:
        logger.warning("an idempotency key stays claimed until its time has passed: %s", describe(error))
