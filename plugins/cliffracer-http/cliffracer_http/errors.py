"""Errors of HTTP alone; the rest are the kernel's."""

from __future__ import annotations

from cliffracer_core.errors import CliffracerError, ServiceError, ValidationError

__all__ = ["BadFraming", "BadHost", "ClientGone", "KeyReused", "MethodNotAllowed", "NotAcceptable"]
__all__ += ["RequestTimeout", "UnsupportedMediaType"]


class BadFraming(ServiceError, code="bad_framing", status=400):
    """Where a request's body ends can be read in two ways, or in none."""


class BadHost(ServiceError, code="bad_host", status=400):
    """A request of HTTP/1.1 has no `Host`, several, or one that is none (RFC 9112, section 3.2)."""


class MethodNotAllowed(ServiceError, code="method_not_allowed", status=405):
    """The path exists, and has no such method; `details["allowed"]` names those it has."""


class NotAcceptable(ServiceError, code="not_acceptable", status=406):
    """Nothing this route can send is among what the client accepts."""


class RequestTimeout(ServiceError, code="request_timeout", status=408, retryable=True):
    """The client did not send its request in time."""


class UnsupportedMediaType(ValidationError, code="unsupported_media_type", status=415):
    """The body's content type is none that this route takes."""


class KeyReused(ValidationError, code="idempotency_key_reused", status=422):
    """An `Idempotency-Key` came again with another request."""


class ClientGone(CliffracerError, code="client_gone", status=400):
    """A request's body ended before it was complete; mostly the client went away, and nobody hears of it."""
