"""From marked functions to declarations, and what is checked before anything starts."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .errors import ConfigurationError
from .handlers import Declaration, ErrorHandler, EventOptions, Mark, RpcOptions, collect, is_controller
from .injection import Builder
from .interfaces import DurableTransport, Transport
from .plugins import Plugins
from .subjects import is_pattern, overlaps, stream_name, validate_token

__all__ = ["check_capabilities", "check_declarations", "gather"]

_NO_ENTRY = ("handle_errors", "error_handler")


def gather(
    owner: object,
    functions: Sequence[tuple[str, Callable[..., Any], tuple[Mark, ...]]],
    controllers: Sequence[type],
    builder: Builder,
    service: str,
    errors: ErrorHandler,
    implied: Mapping[str, Mark] | None = None,
) -> Iterator[Declaration]:
    """Yield the declarations of a service: its methods, its functions, its controllers' methods.

    Methods under `@error_handler` are registered with `errors` before. Methods of the owner whose names are
    in `implied` have those marks.

    Raises:
        ConfigurationError: two handlers of one name, or a class that is no controller.
    """
    found = list(collect(owner, implied))
    found += [(name, _bound(function, owner), marks) for name, function, marks in functions]
    for cls in controllers:
        if not is_controller(cls):
            raise ConfigurationError(f"{cls!r} in 'controllers' is no controller; put @Controller() on the class")
        found += collect(builder.build(cls))
    for _, function, marks in found:  # first: a handler that stands above them is to be covered too
        for each in marks:
            if each.kind == "error_handler":
                errors.register(each.options, function)
    seen: dict[str, Callable[..., Any]] = {}
    for name, function, marks in found:
        if all(each.kind in _NO_ENTRY and each.owner == "core" for each in marks):
            continue
        if name in seen:
            raise ConfigurationError(
                f"service {service!r} has two handlers named {name!r}: {_place(seen[name])} and {_place(function)}; "
                f"rename one"
            )
        seen[name] = function
        yield Declaration(
            service, validate_token(name, "handler name"), function, marks, inspect.getdoc(function) or ""
        )


def _bound(function: Callable[..., Any], owner: object) -> Callable[..., Any]:
    """Bind a function-style handler whose first parameter is `self`; leave others as they are."""
    first = next(iter(inspect.signature(function).parameters), None)
    return types.MethodType(function, owner) if first == "self" else function


def _place(function: Callable[..., Any]) -> str:
    code = inspect.unwrap(getattr(function, "__func__", function)).__code__
    return f"{function.__qualname__} (line {code.co_firstlineno})"


def check_declarations(declarations: Sequence[Declaration], plugins: Plugins) -> None:
    """Refuse marks nobody claims, two handlers of one request subject, and events that would be confused.

    Raises:
        ConfigurationError: naming handler and remedy.
    """
    subjects: dict[tuple[str, str], str] = {}
    for declaration in declarations:
        for each in declaration.marks:
            if not plugins.is_active(each.owner):
                raise ConfigurationError(
                    f"handler {declaration.where!r} is marked {each.kind!r}, which plugin {each.owner!r} honours, and "
                    f"that is not active; install cliffracer-{each.owner} or enable it"
                )
            if getattr(each.options, "idempotent", False) and not plugins.is_active("db"):
                raise ConfigurationError(
                    f"handler {declaration.where!r} is idempotent, which plugin 'db' honours, and that is not active; "
                    f"install cliffracer-db or enable it"
                )
            if isinstance(each.options, RpcOptions):
                subject = each.options.pattern or declaration.where
                other = subjects.get((each.options.transport, subject))
                if other is not None:
                    raise ConfigurationError(
                        f"handlers {other!r} and {declaration.where!r} both answer 'rpc.{subject}'; change one pattern"
                    )
                subjects[each.options.transport, subject] = declaration.where
        _check_events(declaration)


def _check_events(declaration: Declaration) -> None:
    events = [each.options for each in declaration.marks if isinstance(each.options, EventOptions)]
    durable = [(each.transport, each.queue) for each in events if each.durable]
    if len(set(durable)) < len(durable):
        raise ConfigurationError(
            f"handler {declaration.where!r} has two durable events under one name; give each its own queue='...'"
        )
    for each in events:
        bounded = each.pattern.startswith("*.") and not each.pattern.endswith(">") and not each.durable
        if overlaps(each.pattern, "rpc.>") and not bounded:
            raise ConfigurationError(
                f"handler {declaration.where!r}: event pattern {each.pattern!r} also matches requests ('rpc.>'); "
                f"start it with another token"
            )
        if each.durable and each.stream is None:
            stream_name(each.pattern)


def check_capabilities(declaration: Declaration, transports: Mapping[str, Transport]) -> None:
    """Refuse a handler that asks for more than its transport can.

    Raises:
        ConfigurationError: naming handler, transport and what is lacking.
    """
    for each in declaration.marks:
        if not isinstance(each.options, RpcOptions | EventOptions):
            continue
        name = each.options.transport
        if name not in transports:
            raise ConfigurationError(
                f"handler {declaration.where!r} wants transport {name!r}; configured are {sorted(transports)}"
            )
        capabilities = transports[name].capabilities
        lacking = [
            what
            for what, needed in _needs(each.options, declaration).items()
            if needed and not getattr(capabilities, what)
        ]
        durable = isinstance(each.options, EventOptions) and each.options.durable
        if durable and not isinstance(transports[name], DurableTransport):
            lacking.append("durable")
        if lacking:
            raise ConfigurationError(
                f"handler {declaration.where!r} needs {', '.join(sorted(set(lacking)))}, which transport "
                f"{name!r} lacks; change the handler or the transport (NATS needs '-js' for durable)"
            )


def _needs(options: RpcOptions | EventOptions, declaration: Declaration) -> dict[str, bool]:
    if isinstance(options, RpcOptions):
        streams = inspect.isasyncgenfunction(declaration.function)  # items and credits are plain messages, in order
        wildcards = streams or is_pattern(options.pattern or "")
        return {"request": True, "wildcards": wildcards, "fanout": streams, "ordered": streams}
    return {
        "wildcards": is_pattern(options.pattern),
        "fanout": options.fanout,
        "durable": options.durable,
        "queue_groups": not options.fanout and not options.durable,
    }
