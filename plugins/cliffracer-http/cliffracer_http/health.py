"""`/health` and what stands below it: for orchestrators, and, guarded, for people."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cliffracer_core.errors import AuthenticationError, AuthorizationError, CliffracerError
from cliffracer_core.interfaces import Wiring
from cliffracer_core.messages import JSON

from .edge import CORRELATION_HEADER, correlation_of
from .settings import HttpSettings, settings_of

__all__ = ["HEALTH_PATHS", "Health", "guard", "state_of"]

HEALTH_PATHS = ("/health", "/health/live", "/health/ready", "/health/detailed")
Fail = Callable[[Any, Any, Any, BaseException, str], Any]


def state_of(wiring: Wiring) -> str:
    """Return `healthy`; or `not ready` while a service starts or drains, `disconnected` without its broker."""
    if not wiring.ready():
        return "not ready"
    return "healthy" if all(each.connected for each in wiring.transports.values()) else "disconnected"


class Health:
    """The health pages of the services behind one port.

    Args:
        services: gives those that have been started; the first one's settings guard the details.
    """

    def __init__(self, services: Callable[[], Sequence[Wiring]], fail: Fail) -> None:
        self._services = services
        self._fail = fail
        self._pages = dict(zip(HEALTH_PATHS, (self._summary, self._live, self._ready, self._detailed), strict=True))

    def page(self, path: str) -> Any:
        """Return the endpoint of one of `HEALTH_PATHS`."""
        make = self._pages[path]

        async def serve(scope: Any, receive: Any, send: Any, values: dict[str, str]) -> None:
            try:
                status, body = await make(scope)
            except CliffracerError as error:
                await self._fail(scope, receive, send, error, correlation_of(scope))
                return
            await _send_json(scope, send, status, body)

        return serve

    def _states(self) -> dict[str, str]:
        return {each.service.name: state_of(each) for each in self._services()}

    def _whole(self) -> str:
        states = set(self._states().values()) or {"not ready"}
        return states.pop() if len(states) == 1 else "degraded"

    def _named(self) -> dict[str, object]:
        states = self._states()
        names = list(states)
        return {"service": names[0]} if len(names) == 1 else {"services": states}

    async def _summary(self, scope: Any) -> tuple[int, dict[str, object]]:
        return 200, {"status": self._whole(), **self._named()}

    async def _live(self, scope: Any) -> tuple[int, dict[str, object]]:
        return 200, {"status": "alive", **self._named()}

    async def _ready(self, scope: Any) -> tuple[int, dict[str, object]]:
        state = self._whole()
        ready = state == "healthy"
        return (200 if ready else 503), {"status": "ready" if ready else state, **self._named()}

    async def _detailed(self, scope: Any) -> tuple[int, dict[str, object]]:
        services = self._services()
        if services:
            guard(settings_of(services[0].service), scope)
        reports = {each.service.name: await _report(each) for each in services}
        well = self._whole() == "healthy" and all(report["status"] == "healthy" for report in reports.values())
        if len(reports) == 1:
            return (200 if well else 503), next(iter(reports.values()))
        body: dict[str, object] = {"status": "healthy" if well else "unhealthy", "services": reports}
        return (200 if well else 503), body


async def _report(wiring: Wiring) -> dict[str, object]:
    info = wiring.service
    facts = dict(await wiring.health())
    names = {f"transport {name}": _kind(each, name) for name, each in wiring.transports.items()}
    parts: dict[str, object] = {}
    for name, fact in facts.items():
        parts[names.get(name, name)] = _brief(fact)
        if "connected" in fact and len(fact) > 1 and "error" not in fact:
            parts[f"{name}_details"] = {each: value for each, value in fact.items() if each != "connected"}
    well = state_of(wiring) == "healthy" and not any(_unwell(fact) for fact in facts.values())
    head: dict[str, object] = {"status": "healthy" if well else "unhealthy", "service": info.name}
    return {**head, "version": info.version, **{name: part for name, part in parts.items() if name not in head}}


def _kind(transport: object, name: str) -> str:
    """Return what a transport is, such as `nats`; a second one's name is its own."""
    kind = re.sub(r"Transport$", "", type(transport).__name__).lower()
    return kind if name == "default" else f"{kind} {name}"


def _brief(facts: Mapping[str, object]) -> object:
    if "error" in facts:
        return f"error: {facts['error']}"
    if "connected" in facts:
        return "connected" if facts["connected"] else "disconnected"
    return facts or "healthy"


def _unwell(facts: Mapping[str, object]) -> bool:
    return "error" in facts or facts.get("connected") is False


def guard(settings: HttpSettings, scope: Any) -> None:
    """Let pages that tell of the inside be read on loopback, and elsewhere with the token.

    Raises:
        AuthenticationError: a token is configured, and this request has none or another.
        AuthorizationError: the service listens for others, and no token is configured.
    """
    token = settings.guard_token
    if token is None:
        if settings.unix_socket is None and not _is_loopback(settings.host):
            raise AuthorizationError("this page is closed off loopback; set http.guard_token to open it")
        return
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise AuthenticationError("this page needs 'Authorization: Bearer' with http.guard_token")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _send_json(scope: Any, send: Any, status: int, body: object) -> None:
    raw = JSON.encode(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(raw)),
        (b"cache-control", b"no-store"),
        (CORRELATION_HEADER, correlation_of(scope).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else raw})
