"""Close codes of RFC 6455, section 7.4, and of its registry, as this plugin sends them."""

from __future__ import annotations

__all__ = ["GOING_AWAY", "INTERNAL_ERROR", "INVALID_PAYLOAD", "MAX_REASON_BYTES", "NORMAL", "POLICY_VIOLATION"]
__all__ += ["TOO_BIG", "TRY_AGAIN_LATER", "UNSUPPORTED_DATA", "close_event", "code_for"]

NORMAL = 1000
GOING_AWAY = 1001
"""The service stops: connect again, to another replica, and resume."""
UNSUPPORTED_DATA = 1003
"""Text where binary messages are wanted, or the other way round."""
INVALID_PAYLOAD = 1007
"""What came is no text, or no JSON where JSON is spoken."""
POLICY_VIOLATION = 1008
"""Too many messages, or a request that the service refuses."""
TOO_BIG = 1009
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013
"""The client reads too slowly, or the service is busy: connect again later."""

MAX_REASON_BYTES = 123
"""A control frame carries 125 bytes, two of which are the code."""


def close_event(code: int, reason: str = "") -> dict[str, object]:
    """Build the ASGI event that closes a socket; a reason that does not fit its frame is cut."""
    short = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")
    return {"type": "websocket.close", "code": code, "reason": short}


def code_for(status: int, retryable: bool) -> int:
    """Choose the close code for an error's HTTP status."""
    if status == 413:
        return TOO_BIG
    if retryable:
        return TRY_AGAIN_LATER
    return POLICY_VIOLATION if 400 <= status < 500 else INTERNAL_ERROR
