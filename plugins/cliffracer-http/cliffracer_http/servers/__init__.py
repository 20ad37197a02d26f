"""HTTP servers behind one protocol."""

from __future__ import annotations

from .choice import FASTEST_FIRST, make_server
from .interface import Asgi, AsgiServer, ServerCapabilities, ServerSettings

__all__ = ["FASTEST_FIRST", "Asgi", "AsgiServer", "ServerCapabilities", "ServerSettings", "make_server"]
