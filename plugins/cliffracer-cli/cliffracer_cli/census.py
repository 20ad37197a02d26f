"""`ServiceRow`: one instance of a service, as `cliffracer services` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cliffracer_discovery import EndpointStats, StatsResponse

__all__ = ["EndpointRow", "ServiceRow", "take_census"]

_NS_PER_MS = 1_000_000


class EndpointRow(msgspec.Struct, kw_only=True):
    """What a service can be asked, and what it has done."""

    name: str
    subject: str
    requests: int
    errors: int
    last_error: str
    rate_per_s: float | None = None
    """Requests per second, since the last look or else since the start."""
    average_ms: float | None = None
    p99_ms: float | None = None
    """None where the service does not tell."""


class ServiceRow(msgspec.Struct, kw_only=True):
    """One instance; numbers are those of its endpoints together, `p99_ms` that of the slowest."""

    name: str
    version: str
    id: str
    started: str
    requests: int
    errors: int
    rate_per_s: float | None = None
    average_ms: float | None = None
    p99_ms: float | None = None
    endpoints: list[EndpointRow] = []


def take_census(
    answers: Sequence[StatsResponse], *, before: Mapping[str, ServiceRow] | None = None, elapsed_s: float = 0.0
) -> list[ServiceRow]:
    """Turn answers into rows.

    Args:
        answers: of all instances.
        before: rows of an earlier look, by id, for rates since then.
        elapsed_s: seconds since that look.
    """
    now = datetime.now(UTC)
    return [_row(answer, (before or {}).get(answer.id), elapsed_s, now) for answer in answers]


def _row(answer: StatsResponse, before: ServiceRow | None, elapsed_s: float, now: datetime) -> ServiceRow:
    uptime_s = _age_s(answer.started, now)
    known = {each.subject: each for each in before.endpoints} if before else {}
    endpoints = []
    for each in answer.endpoints:
        earlier = known.get(each.subject)
        anew = earlier is None or earlier.requests > each.num_requests  # counters were reset
        done, seconds = (
            (each.num_requests, uptime_s)
            if anew or earlier is None
            else (each.num_requests - earlier.requests, elapsed_s)
        )
        endpoints.append(_endpoint(each, done / seconds if seconds else None))
    rates = [each.rate_per_s for each in endpoints if each.rate_per_s is not None]
    requests = sum(each.num_requests for each in answer.endpoints)
    spent_ms = sum(each.processing_time for each in answer.endpoints) / _NS_PER_MS
    return ServiceRow(
        name=answer.name,
        version=answer.version,
        id=answer.id,
        started=answer.started,
        requests=requests,
        errors=sum(each.errors for each in endpoints),
        rate_per_s=sum(rates) if rates else None,
        average_ms=spent_ms / requests if requests else None,
        p99_ms=max((each.p99_ms for each in endpoints if each.p99_ms is not None), default=None),
        endpoints=endpoints,
    )


def _endpoint(stats: EndpointStats, rate_per_s: float | None) -> EndpointRow:
    p99 = stats.data.get("p99_ms") if isinstance(stats.data, Mapping) else None  # other frameworks' data is theirs
    return EndpointRow(
        name=stats.name,
        subject=stats.subject,
        requests=stats.num_requests,
        errors=stats.num_errors,
        last_error=stats.last_error,
        rate_per_s=rate_per_s,
        average_ms=stats.processing_time / stats.num_requests / _NS_PER_MS if stats.num_requests else None,
        p99_ms=float(p99) if isinstance(p99, int | float) else None,
    )


def _age_s(started: str, now: datetime) -> float | None:
    try:
        return max((now - datetime.fromisoformat(started)).total_seconds(), 0.001)
    except (ValueError, TypeError):  # none given, or one without a zone
        return None
