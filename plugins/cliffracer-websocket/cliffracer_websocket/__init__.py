"""WebSockets for Cliffracer: groups, broadcast across replicas, slow clients, history and resume."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .faces import Broadcast
    from .marks import channels, websocket
    from .outbox import Policy
    from .processor import RealTimeStreamProcessor
    from .publication import Position, Publication
    from .settings import WebSocketSettings
    from .socket import WebSocket
    from .socket import WebSocketDisconnect as WebSocketDisconnect  # Starlette's own, documented there

__all__ = [
    "Broadcast", "Policy", "Position", "Publication", "RealTimeStreamProcessor", "WebSocket",
    "WebSocketSettings", "channels", "websocket",
]  # fmt: skip

_MODULES = {
    "Broadcast": "faces",
    "Policy": "outbox",
    "Position": "publication",
    "Publication": "publication",
    "RealTimeStreamProcessor": "processor",
    "WebSocket": "socket",
    "WebSocketDisconnect": "socket",
    "WebSocketSettings": "settings",
    "channels": "marks",
    "websocket": "marks",
}


def __getattr__(name: str) -> object:  # PEP 562: the plugin is loaded in every process, Starlette only where it is used
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
