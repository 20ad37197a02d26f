"""Decorators, the marks they leave, and error handlers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from cliffracer_core import handlers
from cliffracer_core.errors import ConfigurationError, InvalidSubject, NotFoundError, ServiceError, ValidationError
from cliffracer_core.handlers import (
    Bridge,
    Controller,
    Declaration,
    ErrorHandler,
    EventOptions,
    EventPattern,
    Injectable,
    Mark,
    MessagePattern,
    Recovery,
    RpcOptions,
    broadcast,
    collect,
    error_handler,
    event,
    handle_errors,
    is_controller,
    is_injectable,
    mark,
    marks_of,
    rpc,
    validated_rpc,
)

DECORATORS: list[Callable[[Any], Any]] = [
    rpc,
    rpc(timeout=1),
    validated_rpc,
    validated_rpc(concurrency=2),
    MessagePattern("user.*"),
    event("user.*", durable=True),
    EventPattern("user.created"),
    broadcast("user.>"),
    handle_errors(KeyError),
    error_handler(KeyError),
]


def options(decorator: Callable[[Any], Any]) -> Any:
    async def handler() -> None: ...

    (found,) = marks_of(decorator(handler))
    return found.options


@pytest.mark.parametrize("decorator", DECORATORS)
def test_function_is_itself_when_decorated(decorator: Callable[[Any], Any]) -> None:
    """A decorator returns the very function, so that a unit test calls it as it is written."""

    async def double(self: object, number: int) -> int:
        """Double it."""
        return 2 * number

    before = inspect.signature(double)
    assert decorator(double) is double
    assert inspect.signature(double) == before
    assert asyncio.run(double(None, 4)) == 8


@pytest.mark.parametrize("decorator", DECORATORS)
@pytest.mark.parametrize("thing", [5, "text", staticmethod(print), classmethod(print), property(print)])
def test_decorator_is_refused_when_it_stands_on_no_function(decorator: Callable[[Any], Any], thing: object) -> None:
    """A mark that nobody would find is refused, on a staticmethod above all."""
    with pytest.raises(ConfigurationError, match="put it on a function, below @staticmethod"):
        decorator(thing)


def test_static_method_is_a_handler_when_the_decorator_stands_below() -> None:
    """`@staticmethod` above `@rpc` works."""

    class Service:
        @staticmethod
        @rpc
        def add(a: int, b: int) -> int:
            return a + b

    ((name, function, _),) = collect(Service())
    assert name == "add"
    assert function(2, 3) == 5


def test_options_are_those_given_when_a_request_handler_is_declared() -> None:
    """What a decorator is told reaches the mark."""
    assert options(rpc) == RpcOptions()
    assert options(rpc(timeout=2.0, concurrency=3, transport="bus")) == RpcOptions(
        timeout=2.0, concurrency=3, transport="bus"
    )
    assert options(validated_rpc) == RpcOptions(strict=True)
    assert options(validated_rpc(timeout=1)) == RpcOptions(strict=True, timeout=1)
    assert options(MessagePattern("user.*", timeout=1, concurrency=2, transport="t")) == RpcOptions(
        pattern="user.*", timeout=1, concurrency=2, transport="t"
    )


def test_options_are_those_given_when_an_event_handler_is_declared() -> None:
    """`EventPattern` is `event`, and `broadcast` is `event` for every replica."""
    assert options(event("a.b", durable=True, retries=2, queue="q.x", stream="A")) == EventOptions(
        pattern="a.b", durable=True, retries=2, queue="q.x", stream="A"
    )
    assert options(EventPattern("a.*", timeout=1)) == EventOptions(pattern="a.*", timeout=1)
    assert options(broadcast("a.>", concurrency=2)) == options(event("a.>", fanout=True, concurrency=2))


@pytest.mark.parametrize("pattern", ["", "a b", "a..b", ".a", "a.", "a.>.b", "a.x*", "a\r\nb"])
@pytest.mark.parametrize("decorator", [event, EventPattern, broadcast, MessagePattern])
def test_pattern_is_refused_when_it_breaks_the_grammar(decorator: Callable[[str], Any], pattern: str) -> None:
    """A malformed pattern is an error where it is written."""
    with pytest.raises(InvalidSubject):
        decorator(pattern)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"durabel": True}, "event 'a.b': .*'durabel'.*; options are durable, fanout, queue"),
        ({"durable": True, "fanout": True}, "durable and fanout exclude each other; use two handlers"),
        ({"key": "{id}"}, "key='{id}' is of no use without to='group'"),
        ({"retries": -1}, "must not be negative"),
        ({"backoff_s": -0.1}, "must not be negative"),
        ({"max_backoff_s": -1}, "must not be negative"),
        ({"ack_wait_s": 0}, "must not be negative"),
        ({"timeout": 0}, "@event: timeout 0 is not above 0"),
        ({"concurrency": -1}, "@event: concurrency -1 is not above 0"),
    ],
)
def test_event_is_refused_when_its_options_are_wrong(wrong: dict[str, Any], text: str) -> None:
    """An option that does not exist, or contradicts another, is named where it is written."""
    with pytest.raises(ConfigurationError, match=text):
        event("a.b", **wrong)


def test_bridge_is_marked_for_its_plugin_when_an_event_goes_to_a_group() -> None:
    """`to=` leaves a mark that the plugin `websocket` must claim, beside the event's own."""

    @event("order.*", to="room:{order_id}", key="{order_id}", durable=True)
    async def changed(order: dict[str, Any]) -> None: ...

    assert [(each.owner, each.options) for each in marks_of(changed)] == [
        ("core", EventOptions(pattern="order.*", durable=True)),
        ("websocket", Bridge(to="room:{order_id}", key="{order_id}")),
    ]


@pytest.mark.parametrize(
    "wrong", [{"queue": "a b"}, {"queue": "a..b"}, {"queue": "*"}, {"stream": "A.B"}, {"stream": ""}]
)
def test_event_is_refused_when_a_name_in_it_is_none(wrong: dict[str, Any]) -> None:
    """Queue groups and streams have names that every broker takes."""
    with pytest.raises(InvalidSubject):
        event("a.b", **wrong)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": -1.0}, {"timeout": float("nan")}, {"concurrency": 0}])
@pytest.mark.parametrize("decorator", [rpc, validated_rpc, lambda **wrong: MessagePattern("a", **wrong)])
def test_request_handler_is_refused_when_its_limits_are_wrong(
    decorator: Callable[..., Any], wrong: dict[str, Any]
) -> None:
    """A handler that could never run a call is refused where it is written."""
    with pytest.raises(ConfigurationError, match="is not above 0; correct it, or leave it out"):
        decorator(**wrong)


def test_unknown_option_is_refused_when_a_request_handler_is_declared() -> None:
    """A misspelt option is a TypeError, as for any function."""
    wrong: dict[str, Any] = {"timeoutt": 1}
    with pytest.raises(TypeError, match="timeoutt"):
        rpc(**wrong)


def test_marks_stand_in_order_when_decorators_are_stacked() -> None:
    """Marks are kept innermost first, and one function may have several."""

    @event("b")
    @event("a")
    @rpc
    async def handler() -> None: ...

    assert [each.kind for each in marks_of(handler)] == ["rpc", "event", "event"]
    assert marks_of(handler)[1].options.pattern == "a"


def test_mark_names_its_owner_when_a_plugin_leaves_it() -> None:
    """A plugin's decorator is one call of `mark`, and its mark is found by owner and kind."""

    def handler() -> None: ...

    mark(rpc(handler), "auth", "requires_role", "admin")
    declaration = Declaration("users", "find", handler, marks_of(handler))
    assert declaration.where == "users.find"
    assert declaration.find("auth") == [Mark("auth", "requires_role", "admin")]
    assert declaration.find("auth", "other") == []
    assert [each.kind for each in declaration.find("core")] == ["rpc"]


# --- collecting -------------------------------------------------------------------------------------


def test_methods_are_found_when_they_are_inherited_or_overridden() -> None:
    """Handlers come in the order of definition, base class first; an override without a decorator is none."""

    class Base:
        @rpc
        def first(self) -> str:
            return "base"

        @rpc
        def dropped(self) -> None: ...

        @rpc
        def changed(self) -> str:
            return "base"

        def helper(self) -> None: ...

    class Child(Base):
        def dropped(self) -> None: ...

        @rpc
        def changed(self) -> str:
            return "child"

        @rpc
        def last(self) -> None: ...

    found = {name: function for name, function, _ in collect(Child())}
    assert list(found) == ["first", "changed", "last"]
    assert found["first"]() == "base"
    assert found["changed"]() == "child"


def test_attributes_are_left_alone_when_they_are_no_handlers() -> None:
    """Collecting runs no property of an instance."""

    class Service:
        @property
        def dangerous(self) -> None:
            raise AssertionError("was read")

        @rpc
        def find(self) -> None: ...

    assert [name for name, _, _ in collect(Service())] == ["find"]


# --- errors -----------------------------------------------------------------------------------------


def test_recovery_has_errors_and_default_when_declared() -> None:
    """`handle_errors` as the reference documents write it."""
    assert options(handle_errors(ValidationError, default={"error": "Invalid input"})) == Recovery(
        (ValidationError,), {"error": "Invalid input"}
    )
    assert options(handle_errors(KeyError, ValueError)) == Recovery((KeyError, ValueError), None)


@pytest.mark.parametrize("wrong", [(), ("ValidationError",), (5,), (KeyError(),), (BaseException,), (int,)])
def test_recovery_is_refused_when_it_names_no_exceptions(wrong: tuple[Any, ...]) -> None:
    """Arguments that are no exception classes are refused with the right spelling."""
    with pytest.raises(ConfigurationError, match=r"write @handle_errors\(ValidationError, ...\)"):
        handle_errors(*wrong)


async def test_most_specific_function_wins_when_several_fit() -> None:
    """An error goes to the function of its own class, else of the nearest base."""
    chosen = ErrorHandler()
    assert not chosen

    @chosen.error_handler(ServiceError)
    def plain(error: ServiceError) -> str:
        return f"service: {error}"

    @chosen.error_handler(NotFoundError)
    async def awaited(error: NotFoundError) -> str:
        return f"not found: {error}"

    assert chosen
    assert await chosen.handle(NotFoundError("x")) == "not found: x"
    assert await chosen.handle(ValidationError("x")) == "service: x"
    assert plain(ServiceError("direct")) == "service: direct"


async def test_error_is_raised_when_no_function_fits() -> None:
    """What nobody handles stays the error it was."""
    chosen = ErrorHandler()
    chosen.register(KeyError, str)
    error = ZeroDivisionError("x")
    assert chosen.find(error) is None
    with pytest.raises(ZeroDivisionError) as caught:
        await chosen.handle(error)
    assert caught.value is error


# --- classes ----------------------------------------------------------------------------------------


def test_class_is_itself_when_marked() -> None:
    """`Controller` and `Injectable` return the class, and their mark is not inherited."""

    @Controller()
    class Base: ...

    @Injectable()
    class Child(Base): ...

    assert is_controller(Base)
    assert not is_controller(Child)

    class Grandchild(Child): ...

    assert is_injectable(Child)
    assert not is_injectable(Base)
    assert not is_injectable(Grandchild)
    assert isinstance(Child(), Base)
    assert not is_controller(Base())
    assert not is_injectable("Child")


def test_every_name_is_there_when_the_module_exports_it() -> None:
    """`__all__` says the truth."""
    assert all(hasattr(handlers, name) for name in handlers.__all__)
