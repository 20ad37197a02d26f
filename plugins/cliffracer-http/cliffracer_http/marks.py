"""Decorators that mark a method as an HTTP route; stacked, or with `@rpc`, each adds a way in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec

from cliffracer_core import mark
from cliffracer_core.errors import ConfigurationError

__all__ = ["METHODS", "OWNER", "RouteArguments", "RouteOptions", "delete", "get", "head", "options", "patch", "post"]
__all__ += ["put", "route"]

F = TypeVar("F", bound=Callable[..., Any])
OWNER = "http"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")


class RouteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One route as it was declared."""

    path: str
    methods: tuple[str, ...]
    status_code: int = 200
    """Of a success; a 204 has no body."""
    tags: tuple[str, ...] = ()
    summary: str | None = None
    """For the documentation; by default the docstring's first line."""
    description: str | None = None
    """For the documentation; by default the rest of the docstring."""
    deprecated: bool = False
    include_in_schema: bool = True
    version: str | None = None
    """Stands before the path: `v2` makes `/users` into `/v2/users`."""
    max_body_bytes: int | None = None
    """Larger bodies are refused; None is the service's `http.max_body_bytes`."""
    timeout: float | None = None
    """Seconds a request may take; None is the service's `timeout`."""
    media_type: str | None = None
    """Content type of what a generator yields or a `str` or `bytes` holds; `text/event-stream` for events."""
    errors: tuple[type[Exception], ...] = ()
    """Errors that callers should expect, for the documentation."""


class RouteArguments(TypedDict, total=False):
    """The keyword arguments of the decorators, as `RouteOptions` explains them."""

    status_code: int
    tags: Sequence[str]
    summary: str | None
    description: str | None
    deprecated: bool
    include_in_schema: bool
    version: str | None
    max_body_bytes: int | None
    timeout: float | None
    media_type: str | None
    errors: Sequence[type[Exception]]


def route(path: str, methods: Sequence[str] = ("GET",), **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer requests for a path, in any of several methods.

    Args:
        path: begins with `/`; `{name}` takes one segment, `{name:path}` all that is left.
        methods: upper-case names.
        **arguments: fields of `RouteOptions`: `status_code`, `tags`, `summary`, `description`, `version`,
            `max_body_bytes`, `timeout` (s), `media_type` and others.

    Raises:
        ConfigurationError: a path, method, status or option that cannot be.
    """
    names = tuple(dict.fromkeys(methods))
    if not names or not all(_METHOD.fullmatch(each) for each in names):
        raise ConfigurationError(f"route {path!r}: methods {methods!r} are none; name some such as 'GET'")
    values: dict[str, Any] = dict(arguments)
    for name in ("tags", "errors"):
        if name in values:
            values[name] = tuple(values[name])
    try:
        chosen = RouteOptions(path=path, methods=names, **values)
    except TypeError as error:
        known = ", ".join(field for field in RouteOptions.__struct_fields__ if field not in ("path", "methods"))
        raise ConfigurationError(f"route {path!r}: {error}; options are {known}") from None
    if not 200 <= chosen.status_code <= 599:
        raise ConfigurationError(f"route {path!r}: status_code {chosen.status_code!r} is not one from 200 to 599")
    for field in ("timeout", "max_body_bytes"):
        value = getattr(chosen, field)
        if value is not None and not value > 0:
            raise ConfigurationError(f"route {path!r}: {field} {value!r} is not above 0; correct it, or leave it out")
    return lambda function: mark(function, OWNER, "http", chosen)


def get(path: str, **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer GET, and HEAD without a body; see `route`."""
    return route(path, ("GET",), **arguments)


def post(path: str, **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer POST; see `route`."""
    return route(path, ("POST",), **arguments)


def put(path: str, **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer PUT; see `route`."""
    return route(path, ("PUT",), **arguments)


def patch(path: str, **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer PATCH; see `route`."""
    return route(path, ("PATCH",), **arguments)


def delete(path: str, **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer DELETE; see `route`."""
    return route(path, ("DELETE",), **arguments)


def head(path: str, **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer HEAD; what is returned is not sent, its length and type are. See `route`."""
    return route(path, ("HEAD",), **arguments)


def options(path: str, **arguments: Unpack[RouteArguments]) -> Callable[[F], F]:
    """Answer OPTIONS, which is otherwise answered with the methods there are; see `route`."""
    return route(path, ("OPTIONS",), **arguments)
