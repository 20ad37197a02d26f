"""NATS for Cliffracer: transport, durable events, key-value store, object store, embedded server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import CredentialsRefused
    from .embedded import EmbeddedNats, embedded_nats
    from .objects import ObjectInfo, ObjectStore, object_store
    from .settings import NatsSettings
    from .store import NatsStore
    from .transport import NatsTransport

__all__ = ["CredentialsRefused", "EmbeddedNats", "NatsSettings", "NatsStore", "NatsTransport", "ObjectInfo"]
__all__ += ["ObjectStore", "embedded_nats", "object_store"]

_FROM = {
    "CredentialsRefused": "connection",
    "EmbeddedNats": "embedded",
    "NatsSettings": "settings",
    "NatsStore": "store",
    "NatsTransport": "transport",
    "ObjectInfo": "objects",
    "ObjectStore": "objects",
    "embedded_nats": "embedded",
    "object_store": "objects",
}


def __getattr__(name: str) -> object:  # PEP 562: the plugin is loaded in every process, nats-py only where it is used
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_FROM[name]}", __name__), name)
