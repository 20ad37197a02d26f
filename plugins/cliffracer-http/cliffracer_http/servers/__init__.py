"""HTTP servers behind one protocol: Hypercorn, uvicorn, granian; each serves any ASGI 3 application."""

from .binding import bind
from .choosing import SERVERS, server_for
from .interface import AsgiServer, ServerCapabilities

__all__ = ["SERVERS", "AsgiServer", "ServerCapabilities", "bind", "server_for"]
