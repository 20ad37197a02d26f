"""What one running service says of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from cliffracer_core.interfaces import ServiceInfo

from .protocol import EndpointInfo, InfoResponse, PingResponse, StatsResponse, Verb
from .schemas import SCHEMA_KEYS
from .semver import normalise
from .stats import HandlerStats

__all__ = ["Instance"]

logger = logging.getLogger("cliffracer.discovery")

NOTE = "cliffracer.note"
"""The metadata key under which an INFO says what had to be left out."""


class Instance:
    """One service between start and stop; its counters start from zero here.

    Args:
        service: who it is.
        endpoints: what can be asked, each with the statistics of its handler.
        window: how many durations of each endpoint are kept.
        max_payload: bytes an answer may have; None where there is no limit.

    Raises:
        ConfigurationError: the version is no semantic version.
    """

    def __init__(
        self,
        service: ServiceInfo,
        endpoints: Sequence[tuple[EndpointInfo, HandlerStats]],
        *,
        window: int,
        max_payload: int | None,
    ) -> None:
        self.name = service.name
        self.id = service.id
        self._version = normalise(service.version)
        self._metadata = dict(service.metadata)
        self._endpoints = endpoints
        self._window = window
        self._started = ""
        self.reset()
        ping = PingResponse(name=self.name, id=self.id, version=self._version, metadata=self._metadata)
        info = InfoResponse(
            name=self.name, id=self.id, version=self._version, metadata=self._metadata,
            description=service.description, endpoints=[endpoint for endpoint, _ in endpoints],
        )  # fmt: skip
        self._ping = msgspec.json.encode(ping)
        self._info = _fitted(info, max_payload)
        self.answers: Mapping[Verb, Callable[[], bytes]] = {
            "PING": lambda: self._ping,
            "INFO": lambda: self._info,
            "STATS": lambda: msgspec.json.encode(self.stats()),
        }
        """The body of the answer to each verb."""

    def stats(self) -> StatsResponse:
        """Return what has been counted since the start, or the last reset."""
        return StatsResponse(
            name=self.name, id=self.id, version=self._version, metadata=self._metadata, started=self._started,
            endpoints=[stats.counters[endpoint.subject].report(endpoint) for endpoint, stats in self._endpoints],
        )  # fmt: skip

    def reset(self) -> None:
        """Count from zero, from now on."""
        for endpoint, stats in self._endpoints:
            stats.start([endpoint.subject], self._window)
        self._started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fitted(info: InfoResponse, max_payload: int | None) -> bytes:
    """Encode, leaving out schemas, then all of the endpoints' metadata, where it is too large otherwise."""
    body = msgspec.json.encode(info)
    size = len(body)
    if max_payload is None or size <= max_payload:
        return body
    for left_out in ("schemas", "endpoint metadata"):
        note = f"{left_out} left out: the full answer of {size} bytes exceeds the transport's {max_payload} bytes"
        endpoints = [_without(left_out, endpoint) for endpoint in info.endpoints]
        body = msgspec.json.encode(
            msgspec.structs.replace(info, metadata={**info.metadata, NOTE: note}, endpoints=endpoints)
        )
        if len(body) <= max_payload:
            break
    logger.warning("service %r: discovery: %s", info.name, note)
    return body


def _without(left_out: str, endpoint: EndpointInfo) -> EndpointInfo:
    kept = {key: text for key, text in endpoint.metadata.items() if left_out == "schemas" and key not in SCHEMA_KEYS}
    return msgspec.structs.replace(endpoint, metadata=kept)
