"""Decorators that mark a function as a handler, and the plain declarations made of the marks.

A decorator returns the function unchanged: methods stay callable in unit tests.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypedDict, TypeVar, Unpack, overload

import msgspec

from .errors import ConfigurationError
from .subjects import validate_pattern, validate_token

__all__ = ["Bridge", "Controller", "Declaration", "ErrorHandler", "EventOptions", "EventPattern", "Injectable", "Mark"]
__all__ += ["MessagePattern", "Recovery", "RpcOptions", "broadcast", "collect", "error_handler", "event"]
__all__ += ["handle_errors", "inject", "is_controller", "is_injectable", "mark", "marks_of", "rpc", "snake_case"]
__all__ += ["validated_rpc"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
_MARKS = "__cliffracer_marks__"
_INJECTABLE = "__cliffracer_injectable__"
_CONTROLLER = "__cliffracer_controller__"


class Mark(msgspec.Struct, frozen=True):
    """What a decorator leaves on a function. `owner` names the plugin that must be active to honour it."""

    owner: str
    kind: str
    options: Any = None


class RpcOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a request reaches a handler; None means the service's setting."""

    pattern: str | None = None
    """Below `rpc.`; None means `<service>.<handler>`."""
    strict: bool = False
    """Refuse unknown arguments."""
    timeout: float | None = None
    """Seconds a call may take where the caller sets no deadline."""
    concurrency: int | None = None
    transport: str = "default"
    idempotent: bool = False
    """A call repeated under one idempotency key runs once and has one result; the plugin `db` sees to it."""


class EventOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How events reach a handler; None means the service's setting."""

    pattern: str
    durable: bool = False
    fanout: bool = False
    queue: str | None = None
    """Queue group, and durable name; None means `<service>.<handler>`."""
    stream: str | None = None
    retries: int = 5
    """Further attempts after the first, of a durable event."""
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    ack_wait_s: float = 30.0
    timeout: float | None = None
    concurrency: int | None = None
    transport: str = "default"
    idempotent: bool = False
    """An event delivered again takes effect once; only with `durable`; the plugin `db` sees to it."""


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    """Where else an event goes: to the sockets in a group. The plugin `websocket` honours it."""

    to: str
    """The group's name, with fields of the event in braces: `room:{order_id}`."""
    key: str | None = None
    """Likewise, what makes an earlier event worthless to a client that is behind."""


class EventArguments(TypedDict, total=False):
    """The keyword arguments of `event`, as `EventOptions` and `Bridge` explain them."""

    to: str
    key: str

    durable: bool
    fanout: bool
    queue: str | None
    stream: str | None
    retries: int
    backoff_s: float
    max_backoff_s: float
    ack_wait_s: float
    timeout: float | None
    concurrency: int | None
    transport: str
    idempotent: bool


class Recovery(msgspec.Struct, frozen=True):
    """What `handle_errors` promises: these errors of this handler become this result."""

    errors: tuple[type[BaseException], ...]
    default: Any


class Declaration(msgspec.Struct, frozen=True, eq=False):
    """One handler as hooks see it: plain data and the function itself."""

    service: str
    name: str
    function: Callable[..., Any]
    """Bound: called without `self`."""
    marks: tuple[Mark, ...]
    doc: str = ""

    @property
    def where(self) -> str:
        """`<service>.<handler>`, as in errors and `cliffracer explain`."""
        return f"{self.service}.{self.name}"

    def find(self, owner: str, kind: str | None = None) -> list[Mark]:
        """Return the marks of one plugin, of one kind where given."""
        return [each for each in self.marks if each.owner == owner and kind in (None, each.kind)]


def mark(function: F, owner: str, kind: str, options: object = None) -> F:
    """Leave a mark on a function and return the function; plugins build their decorators on this.

    Raises:
        ConfigurationError: it is no function, or a `staticmethod`, whose own marks nobody would see.
    """
    if not callable(function) or isinstance(function, staticmethod | classmethod):
        raise ConfigurationError(f"@{kind} stands on {function!r}; put it on a function, below @staticmethod")
    setattr(function, _MARKS, (*marks_of(function), Mark(owner, kind, options)))
    return function


def marks_of(function: object) -> tuple[Mark, ...]:
    """Return the marks on a function or bound method, in the order the decorators stand, innermost first."""
    found: tuple[Mark, ...] = getattr(function, _MARKS, ())
    return found


@overload
def rpc(function: F, /) -> F: ...
@overload
def rpc(
    *,
    timeout: float | None = None,
    concurrency: int | None = None,
    transport: str = "default",
    idempotent: bool = False,
) -> Callable[[F], F]: ...
def rpc(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Answer requests on `rpc.<service>.<handler>`; arguments are taken by name, unknown ones ignored."""
    decorate = _decorator("rpc", RpcOptions(**options))
    return decorate if function is None else decorate(function)


@overload
def validated_rpc(function: F, /) -> F: ...
@overload
def validated_rpc(
    *,
    timeout: float | None = None,
    concurrency: int | None = None,
    transport: str = "default",
    idempotent: bool = False,
) -> Callable[[F], F]: ...
def validated_rpc(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Answer requests as `rpc` does, and refuse arguments the handler does not have."""
    decorate = _decorator("rpc", RpcOptions(strict=True, **options))
    return decorate if function is None else decorate(function)


def MessagePattern(
    pattern: str, *, timeout: float | None = None, concurrency: int | None = None, transport: str = "default"
) -> Callable[[F], F]:
    """Answer requests on `rpc.<pattern>`, wildcards allowed, such as `user.create` or `order.*`.

    Raises:
        InvalidSubject: the pattern does not follow the grammar.
    """
    validate_pattern(pattern)
    return _decorator("rpc", RpcOptions(pattern=pattern, timeout=timeout, concurrency=concurrency, transport=transport))


def event(pattern: str, **options: Unpack[EventArguments]) -> Callable[[F], F]:
    """Handle events whose subject matches `pattern`, once per service.

    A pattern such as `*.created` leaves requests (`rpc.created`) out; but while it listens, a call to a
    method of that name which nobody serves runs into its timeout instead of `NoHandler`.

    Args:
        pattern: a subject, or one with wildcards.
        **options: fields of `EventOptions`: `durable=True` for at-least-once delivery with `retries`,
            `backoff_s`, `max_backoff_s`, `ack_wait_s` and `stream`; `fanout=True` for every replica;
            `queue`, `timeout` (s), `concurrency`, `transport`; `to` and `key` of `Bridge`.

    Raises:
        InvalidSubject: the pattern does not follow the grammar.
        ConfigurationError: an option that does not exist, or two that exclude each other.
    """
    validate_pattern(pattern)
    to, key = options.pop("to", None), options.pop("key", None)
    if key is not None and to is None:
        raise ConfigurationError(f"event {pattern!r}: key={key!r} is of no use without to='group'; add it")
    try:
        chosen = EventOptions(pattern=pattern, **options)  # type: ignore[misc]  # `to` and `key` are out
    except TypeError as error:
        known = ", ".join(field for field in EventOptions.__struct_fields__ if field != "pattern")
        raise ConfigurationError(f"event {pattern!r}: {error}; options are {known}") from None
    if chosen.durable and chosen.fanout:
        raise ConfigurationError(f"event {pattern!r}: durable and fanout exclude each other; use two handlers")
    if chosen.idempotent and not chosen.durable:
        raise ConfigurationError(f"event {pattern!r}: only a durable event is delivered again; add durable=True")
    if chosen.queue is not None:
        for token in chosen.queue.split("."):
            validate_token(token, "queue group")
    if chosen.stream is not None:
        validate_token(chosen.stream, "stream")
    if chosen.retries < 0 or chosen.backoff_s < 0 or chosen.max_backoff_s < 0 or chosen.ack_wait_s <= 0:
        raise ConfigurationError(f"event {pattern!r}: retries, backoff and ack wait must not be negative")
    decorate = _decorator("event", chosen)
    if to is None:
        return decorate
    bridge = Bridge(to=to, key=key)
    return lambda function: mark(decorate(function), "websocket", "event to=", bridge)


def broadcast(
    pattern: str, *, timeout: float | None = None, concurrency: int | None = None, transport: str = "default"
) -> Callable[[F], F]:
    """Handle events at every replica; `event(pattern, fanout=True)`."""
    return event(pattern, fanout=True, timeout=timeout, concurrency=concurrency, transport=transport)


def EventPattern(pattern: str, **options: Unpack[EventArguments]) -> Callable[[F], F]:
    """Handle events as `event` does, under its name in controllers."""
    return event(pattern, **options)


def _decorator(kind: str, options: RpcOptions | EventOptions) -> Callable[[F], F]:
    for field in ("timeout", "concurrency"):
        value = getattr(options, field)
        if value is not None and not value > 0:
            raise ConfigurationError(f"@{kind}: {field} {value!r} is not above 0; correct it, or leave it out")
    return lambda function: mark(function, "core", kind, options)


def handle_errors(*errors: type[BaseException], default: object = None) -> Callable[[F], F]:
    """Give callers of this handler `default` in place of these errors, those of its arguments included."""
    if not errors or not all(isinstance(each, type) and issubclass(each, Exception) for each in errors):
        raise ConfigurationError("handle_errors needs exception classes; write @handle_errors(ValidationError, ...)")
    return lambda function: mark(function, "core", "handle_errors", Recovery(errors, default))


def error_handler(error: type[Exception]) -> Callable[[F], F]:
    """Make a method the service's handler of an error: `await method(error)` is the reply."""
    return lambda function: mark(function, "core", "error_handler", error)


class ErrorHandler:
    """Choose a function by the class of an error; the most specific class wins."""

    def __init__(self) -> None:
        self._functions: dict[type[BaseException], Callable[[Any], Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._functions)

    def register(self, error: type[BaseException], function: Callable[[Any], Any]) -> None:
        """Handle `error` and its subclasses with `function(error)`, plain or async."""
        self._functions[error] = function

    def error_handler(self, error: type[BaseException]) -> Callable[[F], F]:
        """Register the decorated function for `error`."""

        def decorate(function: F) -> F:
            self.register(error, function)
            return function

        return decorate

    def find(self, error: BaseException) -> Callable[[Any], Any] | None:
        """Return the function for this error, None where there is none."""
        return next((self._functions[each] for each in type(error).__mro__ if each in self._functions), None)

    async def handle(self, error: BaseException) -> object:
        """Return what the function for this error makes of it; raise the error where there is none."""
        function = self.find(error)
        if function is None:
            raise error
        result = function(error)
        return await result if isinstance(result, Awaitable) else result


def Injectable() -> Callable[[C], C]:
    """Mark a class that `inject()` may build: one instance per service."""

    def decorate(cls: C) -> C:
        setattr(cls, _INJECTABLE, True)
        return cls

    return decorate


def Controller() -> Callable[[C], C]:
    """Mark a class whose decorated methods become handlers of each service that lists it in `controllers`."""

    def decorate(cls: C) -> C:
        setattr(cls, _CONTROLLER, True)
        return cls

    return decorate


def snake_case(name: str) -> str:
    """Turn a class's name into the name of a service or an argument: `UserService` into `user_service`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def is_injectable(cls: object) -> bool:
    """Tell whether a class itself stands under `@Injectable()`."""
    return isinstance(cls, type) and _INJECTABLE in vars(cls)


def is_controller(cls: object) -> bool:
    """Tell whether a class itself stands under `@Controller()`."""
    return isinstance(cls, type) and _CONTROLLER in vars(cls)


class Wanted(msgspec.Struct, frozen=True):
    """The default value `inject()` leaves on a constructor's parameter."""

    type: type | None


def inject(type: type | None = None) -> Any:
    """Ask for an `Injectable` in a constructor: by type, by the parameter's annotation, or by its name."""
    return Wanted(type)


def collect(
    owner: object, implied: Mapping[str, Mark] | None = None
) -> Iterator[tuple[str, Callable[..., Any], tuple[Mark, ...]]]:
    """Yield name, bound function and marks of each marked method of an instance, in the order of definition.

    A method whose name is in `implied` has that mark too.
    """
    names: Mapping[str, None] = dict.fromkeys(
        name for cls in reversed(type(owner).__mro__) for name in vars(cls) if not name.startswith("__")
    )
    for name in names:
        marks = marks_of(getattr(type(owner), name, None))
        if implied and name in implied and callable(getattr(owner, name)):
            marks = (*marks, implied[name])
        if marks:
            yield name, getattr(owner, name), marks
