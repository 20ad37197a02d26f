"""Heads of HTTP/1.1 requests that are refused before any application sees them."""

from __future__ import annotations

__all__ = ["REFUSALS", "is_too_long"]

REFUSALS = {
    408: b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
}


def is_too_long(data: bytes, limit: int) -> bool:
    """Tell whether bytes that begin with a head hold more than `limit` bytes of it."""
    return len(data) > limit and data.find(b"\r\n\r\n", 0, limit) < 0
