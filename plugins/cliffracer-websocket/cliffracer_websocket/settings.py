"""`WebSocketSettings`, the plugin's section, and where it is found."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cliffracer_core.interfaces import ServiceInfo

from .outbox import Policy

__all__ = ["WebSocketSettings", "settings_of"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class WebSocketSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sockets, their limits and their history."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    """A port of the sockets' own, with TLS where HTTP has it; None serves them on the HTTP server's."""
    host: str = "127.0.0.1"
    """Where `port` listens."""
    path: str = "/ws"
    """Where `on_websocket_message` and `websocket_handler` are served."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may connect, such as `https://example.com`; `*` is any. A page of the same host and
    port always may, and so may a client that sends no `Origin`, which no browser is."""
    max_connections: Count = 10_000
    max_connections_per_address: Count = 1_000
    max_message_bytes: Count = 64 * 1024
    """A longer message from a client closes its socket with 1009."""
    messages_per_s: Positive = 100.0
    """What one client may send, on average; past it its socket is closed with 1008. Of the Centrifuge protocol
    each command counts, however many come in one message."""
    burst: Count = 200
    """What one client may send at once."""
    max_channels: Count = 128
    """What a client of the Centrifuge protocol may be subscribed to; past it the answer is the protocol's 106."""
    policy: Policy = "drop_oldest"
    """What happens to a client that reads too slowly."""
    queue_messages: Count = 256
    """What may wait for one client."""
    queue_bytes: Count = 4 * 1024 * 1024
    stall_timeout_s: Positive = 30.0
    """A client that takes nothing for so long is cut off."""
    ping_interval_s: Positive = 20.0
    ping_timeout_s: Positive = 20.0
    """A client that does not answer a ping for so long is cut off."""
    compression: bool = False
    """Of messages (permessage-deflate); costs memory for each socket."""
    history_size: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Messages kept of each group, for clients that come back; 0 keeps none."""
    history_ttl_s: Positive = 300.0
    history: Literal["auto", "memory", "stream"] = "auto"
    """Where history is kept: in the transport's durable stream, shared by all replicas, or in each one's memory."""
    transport: str = "default"
    """By which the replicas meet."""
    beat_s: Positive = 2.0
    """Replicas give a sign of life so often; one that is silent for three of these is gone."""


def settings_of(service: ServiceInfo) -> WebSocketSettings:
    """Return the section `websocket`; defaults where there is none."""
    settings = service.settings.get("websocket")
    return settings if isinstance(settings, WebSocketSettings) else WebSocketSettings()
