"""Which encoding a client wants, by its `Accept` (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import functools

from cliffracer_core.messages import JSON, MSGPACK, Codec

__all__ = ["EVENT_STREAM", "choose", "quality"]

EVENT_STREAM = "text/event-stream"
_MSGPACK_NAMES = (MSGPACK.content_type, "application/x-msgpack", "application/vnd.msgpack")


@functools.lru_cache(512)
def choose(accept: bytes) -> Codec | None:
    """Return the codec a client likes best, JSON where it does not mind; None where it takes neither."""
    json = quality(accept, JSON.content_type)
    packed = max(quality(accept, name) for name in _MSGPACK_NAMES)
    if not json and not packed:
        return None
    return MSGPACK if packed > json else JSON


@functools.lru_cache(512)
def quality(accept: bytes, content_type: str) -> float:
    """Return how much a client wants a content type, from 0 to 1; the most specific range that covers it counts."""
    if not accept:
        return 1.0
    kind = content_type.partition("/")[0]
    ranks = {"*/*": 1, f"{kind}/*": 2, content_type: 3}
    best, found = 0, 0.0
    for part in accept.decode("latin-1").lower().split(","):
        name, _, rest = part.partition(";")
        rank = ranks.get(name.strip(), 0)
        if rank > best:
            best, found = rank, _weight(rest)
    return found


def _weight(parameters: str) -> float:
    for each in parameters.split(";"):
        name, _, value = each.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
