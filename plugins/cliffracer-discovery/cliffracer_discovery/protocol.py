"""What crosses the wire: subjects, and the three answers. Source: NATS ADR-32, "Service API".

All fields are always there and none is null when we answer; other implementations' answers are read
leniently, see `read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cliffracer_core.errors import ValidationError
from cliffracer_core.subjects import validate_token

__all__ = ["PREFIX", "RESPONSES", "EndpointInfo", "EndpointStats", "InfoResponse", "PingResponse"]
__all__ += ["ServiceResponse", "StatsResponse", "Verb", "control_subject", "read"]

PREFIX = "$SRV"
Verb = Literal["PING", "INFO", "STATS"]


class ServiceResponse(msgspec.Struct, kw_only=True):
    """What every answer has."""

    type: str = ""
    name: str
    id: str
    """Of this instance, new with each start."""
    version: str = ""
    """A semantic version."""
    metadata: dict[str, str] = {}


class PingResponse(ServiceResponse, kw_only=True):
    """The answer to `$SRV.PING`."""

    type: str = "io.nats.micro.v1.ping_response"


class EndpointInfo(msgspec.Struct, kw_only=True):
    """One thing a service can be asked."""

    name: str
    subject: str
    queue_group: str = "q"
    metadata: dict[str, str] = {}


class InfoResponse(ServiceResponse, kw_only=True):
    """The answer to `$SRV.INFO`."""

    type: str = "io.nats.micro.v1.info_response"
    description: str = ""
    endpoints: list[EndpointInfo] = []


class EndpointStats(msgspec.Struct, kw_only=True):
    """What an endpoint has done since the start, or the last reset."""

    name: str
    subject: str
    queue_group: str = "q"
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    """Empty where there was none."""
    processing_time: int = 0
    """Nanoseconds in all."""
    average_processing_time: int = 0
    """Nanoseconds."""
    data: object = msgspec.field(default_factory=dict)
    """Ours: `p50_ms` and `p99_ms`, once there was a request."""


class StatsResponse(ServiceResponse, kw_only=True):
    """The answer to `$SRV.STATS`."""

    type: str = "io.nats.micro.v1.stats_response"
    started: str = ""
    """RFC 3339, UTC, with milliseconds."""
    endpoints: list[EndpointStats] = []


RESPONSES: Mapping[Verb, type[ServiceResponse]] = {"PING": PingResponse, "INFO": InfoResponse, "STATS": StatsResponse}


def control_subject(verb: Verb, name: str | None = None, id: str | None = None, *, prefix: str = PREFIX) -> str:
    """Return where all services, those of a name, or one instance, are asked.

    Raises:
        ValidationError: a verb that is none, or an id without a name.
        InvalidSubject: a name or id that is none.
    """
    if verb not in RESPONSES:
        raise ValidationError(f"verb {verb!r} does not exist; use one of {', '.join(RESPONSES)}")
    if name is None and id is not None:
        raise ValidationError(f"id {id!r} is given without a name; say which service it is an instance of")
    parts = [prefix, verb]
    if name is not None:
        parts.append(validate_token(name, "service name"))
    if id is not None:
        parts.append(validate_token(id, "service id"))
    return ".".join(parts)


def read(verb: Verb, body: bytes) -> ServiceResponse:
    """Decode an answer, whoever made it: unknown fields and nulls are ignored, missing ones have defaults.

    Raises:
        ValidationError: it is no answer to this verb.
    """
    response = RESPONSES[verb]
    try:
        raw = msgspec.json.decode(body)
        answer = msgspec.convert(_tidy(raw), response)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"answer to {verb!r} cannot be read: {error}") from None
    expected = f"io.nats.micro.v1.{verb.lower()}_response"
    if answer.type != expected:
        raise ValidationError(f"answer to {verb!r} has type {answer.type[:100]!r}, not {expected!r}")
    return answer


def _tidy(answer: object) -> object:
    """Drop nulls, and write metadata values that are no text as JSON."""
    if not isinstance(answer, dict):
        return answer
    tidy = {key: value for key, value in answer.items() if value is not None}
    if isinstance(tidy.get("metadata"), dict):
        texts = {key: value for key, value in tidy["metadata"].items() if value is not None}
        tidy["metadata"] = {
            key: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for key, value in texts.items()
        }
    if isinstance(tidy.get("endpoints"), list):
        tidy["endpoints"] = [_tidy(each) for each in tidy["endpoints"]]
    return tidy
