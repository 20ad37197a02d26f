"""Connecting as a client: where the settings say, or to the servers of `cliffracer dev` in this directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cliffracer_core.assembly import load_plugins, resolve_settings
from cliffracer_core.client import ClientProxy
from cliffracer_core.config import ServiceConfig
from cliffracer_core.errors import ConfigurationError

from .devnote import read_note

__all__ = ["with_client"]

T = TypeVar("T")


def with_client(transport: str | None, use: Callable[[ClientProxy], Awaitable[T]]) -> T:
    """Connect, run `use`, disconnect, and return its result.

    Args:
        transport: a URL; the configured one where None, else that of a running `cliffracer dev`.
        use: what to do with the client.

    Raises:
        ConfigurationError: nobody says where to connect.
        CliffracerError: it cannot connect, or what `use` raised.
    """
    chosen = transport or _default_transport()

    async def run() -> T:
        async with ClientProxy(chosen) as client:
            return await use(client)

    return asyncio.run(run())


def _default_transport() -> str | None:
    """Return None where settings name one, which the client then reads itself."""
    if "transport" in resolve_settings(load_plugins(), ServiceConfig("client")).sources:
        return None
    found = read_note().get("transport")
    if found is None:
        raise ConfigurationError(
            "no transport is set; give --transport nats://host:4222, set CLIFFRACER_TRANSPORT, "
            "or start 'cliffracer dev' in this directory"
        )
    return found
