"""How a route reaches its handler."""

from __future__ import annotations

import time

from cliffracer_core.interfaces import Call, Entry

__all__ = ["caller_of"]


def caller_of(entry: Entry) -> Call:
    """Return what runs a call whose arguments are decoded, through the handler's whole chain."""

    async def call(context: object) -> object:
        remaining = context.deadline - time.monotonic()
        return await entry.invoke(
            kind="http",
            arguments=context.arguments,
            headers={**context.headers, "X-Correlation-ID": context.correlation_id},
            subject=context.subject,
            timeout_s=max(remaining, 0.001),
            state=context.state,
        )

    return getattr(entry, "call", None) or call
