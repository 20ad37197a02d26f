"""The exception tree.

Every class has a wire code, an HTTP status and says whether a retry can help. The code crosses the
wire; a caller that knows the class gets that class back, any other caller an `RPCError`.

For example:

    class OutOfStock(ServiceError, code="out_of_stock", status=409): ...
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import ClassVar, NoReturn

import msgspec

__all__ = [
    "AuthenticationError",
    "AuthorizationError",
    "Cancelled",
    "CliffracerError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionError",
    "DatabaseError",
    "DeadlineExceeded",
    "EncodingError",
    "ErrorBody",
    "InvalidHeader",
    "InvalidSubject",
    "MessageTooLarge",
    "NoHandler",
    "NotFoundError",
    "NotStored",
    "Overloaded",
    "PluginError",
    "RPCError",
    "ServiceError",
    "StartupError",
    "ValidationError",
    "describe",
    "from_body",
    "raise_as",
    "to_body",
]

INTERNAL = "internal_error"
_registry: dict[str, type[CliffracerError]] = {}  # filled by class statements alone


class CliffracerError(Exception):
    """Base of all errors of the framework.

    Args:
        message: what, which, and the remedy; reaches the caller, so no secret and no payload.
        details: JSON-encodable facts for programs, such as the fields that failed.

    A subclass takes class arguments: `code` (its name on the wire, unique in the process), `status`
    (HTTP) and `retryable`. Without a `code` it travels as its parent.
    """

    code: str = INTERNAL
    status: ClassVar[int] = 500
    retryable: bool = False
    # defaults on the class: a subclass may forget to call `super().__init__`
    message: str = ""
    details: dict[str, object] = {}
    service: str | None = None
    """The service that raised it, when it came over the wire; None for a local error."""
    correlation_id: str | None = None

    def __init__(self, message: str = "", *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = str(message)
        self.details = dict(details or {})

    def __init_subclass__(
        cls, *, code: str | None = None, status: int | None = None, retryable: bool | None = None
    ) -> None:
        super().__init_subclass__()
        if status is not None:
            cls.status = status
        if retryable is not None:
            cls.retryable = retryable
        if code is not None:
            known = _registry.get(code)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(
                    f"error code {code!r} of {cls.__qualname__} already belongs to "
                    f"{known.__module__}.{known.__qualname__}; choose another code"
                )
            cls.code = code
            _registry[code] = cls

    def __str__(self) -> str:
        return self.message or self.code


class ServiceError(CliffracerError, code="service_error"):
    """A service failed to do what it was asked; the base of an application's own errors."""


class RPCError(ServiceError, code="rpc_error", status=502):
    """A call failed at or beyond the service called, with an error the caller does not know."""


class NoHandler(RPCError, code="no_handler", status=503, retryable=True):
    """Nobody listens on the subject: the service is not running or has no such method."""


class Overloaded(RPCError, code="overloaded", status=503, retryable=True):
    """The handler runs at its limit and its queue is full."""


class DeadlineExceeded(RPCError, TimeoutError, code="deadline_exceeded", status=504, retryable=True):
    """The time a call was given ran out, here or where it was handled."""


class Cancelled(RPCError, code="cancelled", status=499):
    """The caller gave up and the handler was cancelled."""


class MessageTooLarge(ServiceError, code="message_too_large", status=413):
    """A body exceeds what the transport carries."""


class EncodingError(ServiceError, code="encoding_error"):
    """A handler returned, or a caller passed, something that has no encoding."""


class NotFoundError(ServiceError, code="not_found", status=404):
    """The thing asked for does not exist."""


class ConflictError(ServiceError, code="conflict", status=409):
    """The thing changed meanwhile, or exists already."""


class ValidationError(ServiceError, code="validation_error", status=400):
    """An argument has the wrong type or value; `details["field"]` names it where one is known."""


class InvalidSubject(ValidationError, code="invalid_subject"):
    """A subject or pattern does not follow the grammar of `subjects.py`."""


class InvalidHeader(ValidationError, code="invalid_header"):
    """A header name or value holds a character that would end its line."""


class AuthenticationError(ServiceError, code="unauthenticated", status=401):
    """Who is calling could not be established."""


class AuthorizationError(ServiceError, code="permission_denied", status=403):
    """The caller is known and not allowed."""


class DatabaseError(ServiceError, code="database_error"):
    """A database refused or failed."""


class ConnectionError(CliffracerError, builtins.ConnectionError, code="connection_error", status=503, retryable=True):
    """A broker or server cannot be reached, or the connection was lost."""


class NotStored(ConnectionError, code="not_stored", status=503, retryable=True):
    """A durable publish was not acknowledged; it may or may not have been stored."""


class ConfigurationError(CliffracerError, code="configuration_error"):
    """Settings, a handler's declaration or a pattern is wrong; found at start."""


class PluginError(ConfigurationError, code="plugin_error"):
    """A plugin cannot be imported, is there twice, or does not fit its hooks."""


class StartupError(CliffracerError, code="startup_error"):
    """A step of the start failed; those before it have been undone."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The body of an error reply; the wire protocol's page in the docs explains each field."""

    type: str
    message: str
    code: int
    retryable: bool = False
    details: dict[str, object] = {}
    service: str | None = None
    correlation_id: str | None = None


def describe(error: BaseException) -> str:
    """Render an error for a log line or a header: code and message, one line, at most 500 characters."""
    code = error.code if isinstance(error, CliffracerError) else type(error).__name__
    return " ".join(f"{code}: {error}".split())[:500]


def to_body(error: BaseException, service: str, correlation_id: str | None) -> ErrorBody:
    """Translate an error into what a caller may see.

    An error that itself came over the wire leaves as `RPCError` (502, not retryable), so that the
    callee's callee never speaks for the callee. Anything unexpected is masked.
    """
    if not isinstance(error, CliffracerError):
        text = f"internal error; correlation id {correlation_id}" if correlation_id else "internal error"
        return ErrorBody(INTERNAL, text, 500, service=service, correlation_id=correlation_id)
    if error.service is not None:
        inner: dict[str, object] = {"type": error.code, "service": error.service}
        text = f"a call to service {error.service!r} failed: {error.message}"
        return ErrorBody(
            RPCError.code, text, RPCError.status, details=inner, service=service, correlation_id=correlation_id
        )
    return ErrorBody(error.code, str(error), error.status, error.retryable, error.details, service, correlation_id)


def from_body(body: ErrorBody) -> CliffracerError:
    """Build the exception a direct caller gets; an unknown `type` gives an `RPCError` with that as its `code`."""
    known = _registry.get(body.type)
    details = body.details
    if known is None:
        known = ServiceError if body.type == INTERNAL else RPCError
        details = {**details, "type": body.type}
    error = known.__new__(known)
    CliffracerError.__init__(error, body.message, details=details)  # a subclass's own __init__ may want more
    if known is RPCError:
        error.code, error.retryable = body.type, body.retryable
    error.service = body.service or "unknown"
    error.correlation_id = body.correlation_id
    return error


def raise_as(error: CliffracerError, *classes: type[CliffracerError]) -> NoReturn:
    """Raise what came over the wire as the one of `classes` that has its code; as it is where none has.

    For clients whose error classes are registered nowhere, such as those that `cliffracer client` writes: each
    has its code as an attribute, `code = "out_of_stock"`, and needs nothing of its constructor.
    """
    for each in classes:
        if error.service is not None and each.code == error.code:
            narrowed = each.__new__(each)
            CliffracerError.__init__(narrowed, error.message, details=error.details)
            narrowed.retryable, narrowed.service = error.retryable, error.service
            narrowed.correlation_id = error.correlation_id
            raise narrowed from error
    raise error
