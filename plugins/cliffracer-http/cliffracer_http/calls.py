"""How a route reaches its handler."""

from __future__ import annotations

import time

from cliffracer_core import MessageContext
from cliffracer_core.interfaces import Call, Entry
from cliffracer_core.messages import CORRELATION_ID

__all__ = ["caller_of"]


def caller_of(entry: Entry) -> Call:
    """Return what runs a call whose arguments are decoded, through the handler's whole chain."""

    async def call(context: MessageContext) -> object:
        left_s = None if context.deadline is None else max(context.deadline - time.monotonic(), 0.001)
        return await entry.invoke(
            kind=context.kind,
            arguments=context.arguments,
            headers={**context.headers, CORRELATION_ID: context.correlation_id},
            subject=context.subject,
            timeout_s=left_s,
            state=context.state,
        )

    return getattr(entry, "call", None) or call
