"""Asking who is there: `discover`."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Literal, overload

from cliffracer_core.caller import Caller
from cliffracer_core.client import ClientProxy
from cliffracer_core.context import create_correlation_id
from cliffracer_core.errors import ValidationError, describe
from cliffracer_core.interfaces import Transport
from cliffracer_core.messages import SERVICE_ERROR, SERVICE_ERROR_CODE, Message
from cliffracer_core.validation import validate_timeout

from .protocol import (
    PREFIX,
    InfoResponse,
    PingResponse,
    ServiceResponse,
    StatsResponse,
    Verb,
    control_subject,
    read,
)

__all__ = ["discover"]

logger = logging.getLogger("cliffracer.discovery")

Source = Caller | ClientProxy | Transport


@overload
async def discover(
    source: Source, verb: Literal["INFO"] = ..., *, name: str | None = ..., id: str | None = ...,
    timeout_s: float = ..., quiet_s: float = ..., prefix: str = ...,
) -> list[InfoResponse]: ...  # fmt: skip
@overload
async def discover(
    source: Source, verb: Literal["PING"], *, name: str | None = ..., id: str | None = ...,
    timeout_s: float = ..., quiet_s: float = ..., prefix: str = ...,
) -> list[PingResponse]: ...  # fmt: skip
@overload
async def discover(
    source: Source, verb: Literal["STATS"], *, name: str | None = ..., id: str | None = ...,
    timeout_s: float = ..., quiet_s: float = ..., prefix: str = ...,
) -> list[StatsResponse]: ...  # fmt: skip
async def discover(
    source: Source,
    verb: Verb = "INFO",
    *,
    name: str | None = None,
    id: str | None = None,
    timeout_s: float = 0.5,
    quiet_s: float = 0.1,
    prefix: str = PREFIX,
) -> list[InfoResponse] | list[PingResponse] | list[StatsResponse] | list[ServiceResponse]:
    """Ask all services, those of one name, or one instance, and collect their answers.

    Args:
        source: an open transport, a `Caller` (such as `service.caller`) or a `ClientProxy`.
        verb: `INFO`, `PING` or `STATS`.
        name: ask services of this name only.
        id: ask this instance only; the first answer ends the wait.
        timeout_s: seconds to wait in all.
        quiet_s: seconds without a further answer after which nobody else is expected.
        prefix: another root than `$SRV`, where an account imports it under one.

    Returns:
        What answered, by name and id; empty where nobody did. Bad answers are logged and left out.

    Raises:
        ValidationError: `verb`, `name`, `id` or a time is none.
        ConnectionError: not connected; a retry helps.
    """
    subject = control_subject(verb, name, id, prefix=prefix)
    limits = (validate_timeout(timeout_s), validate_timeout(quiet_s))
    transport = await _transport(source)
    inbox = f"_INBOX.{create_correlation_id()}"
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await transport.subscribe(inbox, arrived.put_nowait)
    try:
        await transport.publish(Message(subject, reply_to=inbox))
        found = await _collect(verb, arrived, limits, most=math.inf if id is None else 1)
    finally:
        await subscription.drain()
    return sorted(found, key=lambda each: (each.name, each.id))


async def _transport(source: Source) -> Transport:
    if isinstance(source, ClientProxy):
        source = await source.connect()
    return source.transport() if isinstance(source, Caller) else source


async def _collect(
    verb: Verb, arrived: asyncio.Queue[Message], limits: tuple[float, float], *, most: float
) -> list[ServiceResponse]:
    timeout_s, quiet_s = limits
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    found: list[ServiceResponse] = []
    until = end
    while len(found) < most:
        try:
            async with asyncio.timeout_at(until):
                message = await arrived.get()
        except TimeoutError:
            break
        if _nobody_listens(message):
            break
        until = min(end, loop.time() + quiet_s)
        answer = _read(verb, message)
        if answer is not None:
            found.append(answer)
    return found


def _nobody_listens(message: Message) -> bool:
    """Tell a NATS server's own word (ADR-22) from an answer."""
    return not message.body and message.headers is not None and message.headers.get("Status") == "503"


def _read(verb: Verb, message: Message) -> ServiceResponse | None:
    headers = message.headers or {}
    try:
        if SERVICE_ERROR in headers or SERVICE_ERROR_CODE in headers:
            raise ValidationError(f"answer to {verb!r} is an error with code {headers.get(SERVICE_ERROR_CODE)!r}")
        return read(verb, message.body)
    except ValidationError as error:
        logger.warning("an answer was left out: %s", describe(error))
        return None
