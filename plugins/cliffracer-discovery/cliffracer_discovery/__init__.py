"""Service discovery by the NATS micro protocol (ADR-32), over any transport that can fan out."""

from .announcer import reset_stats
from .client import discover
from .protocol import EndpointInfo, EndpointStats, InfoResponse, PingResponse, ServiceResponse, StatsResponse, Verb
from .settings import DiscoverySettings

__all__ = [
    "DiscoverySettings", "EndpointInfo", "EndpointStats", "InfoResponse", "PingResponse", "ServiceResponse",
    "StatsResponse", "Verb", "discover", "reset_stats",
]  # fmt: skip
