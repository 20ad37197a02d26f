"""What is checked about a service's handlers before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.assembly import load_plugins
from cliffracer_core.declare import check_capabilities, check_declarations, gather
from cliffracer_core.errors import ConfigurationError, InvalidSubject, NotFoundError
from cliffracer_core.handlers import (
    Controller,
    Declaration,
    ErrorHandler,
    MessagePattern,
    broadcast,
    error_handler,
    event,
    handle_errors,
    mark,
    marks_of,
    rpc,
    validated_rpc,
)
from cliffracer_core.injection import Builder
from cliffracer_core.interfaces import Capabilities, Transport
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.plugins import Plugins


@pytest.fixture(autouse=True)
def kernel_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("CLIFFRACER_PLUGINS", "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plugins() -> Plugins:
    return load_plugins(environment={"CLIFFRACER_PLUGINS": ""})


def declared(owner: object, **options: Any) -> list[Declaration]:
    wanted: dict[str, Any] = {"functions": (), "controllers": (), "errors": ErrorHandler(), **options}
    return list(gather(owner, builder=Builder((), {}), service="users", **wanted))


def declaration(*decorators: Callable[[Any], Any], name: str = "find") -> Declaration:
    async def function(data: dict[str, Any]) -> None: ...

    for each in decorators:
        each(function)
    return Declaration("users", name, function, marks_of(function))


class LimitedTransport(MemoryTransport):
    """A transport in memory that can do less."""

    limits: Capabilities = Capabilities()

    @property
    def capabilities(self) -> Capabilities:
        return self.limits


class CoreTransport:
    """A transport without durable messages, which says nevertheless that it has them."""

    capabilities = Capabilities(durable=True)


# --- gathering --------------------------------------------------------------------------------------


def test_declarations_hold_all_handlers_when_they_come_from_everywhere() -> None:
    """Methods, functions and controllers' methods become declarations, bound and documented."""

    class Users:
        prefix = "hello"

        @rpc
        def method(self) -> str:
            """Say it."""
            return self.prefix

        @rpc
        @handle_errors(KeyError)
        def both(self) -> None: ...

    @Controller()
    class More:
        @MessagePattern("more")
        def controlled(self) -> str:
            return type(self).__name__

    @rpc
    def plain(name: str) -> str:
        return name

    @rpc
    def like_a_method(self: Users) -> str:
        return self.prefix + "!"

    functions = [(each.__name__, each, marks_of(each)) for each in (plain, like_a_method)]
    found = {each.name: each for each in declared(Users(), functions=functions, controllers=(More,))}
    assert list(found) == ["method", "both", "plain", "like_a_method", "controlled"]
    assert found["method"].doc == "Say it."
    assert found["both"].doc == ""
    assert found["method"].function() == "hello"
    assert found["plain"].function("x") == "x"
    assert found["like_a_method"].function() == "hello!"
    assert found["controlled"].function() == "More"


async def test_method_handles_errors_when_marked_and_is_no_entry() -> None:
    """A method under `@error_handler`, or `@handle_errors` alone, answers nothing by itself."""

    class Users:
        @error_handler(NotFoundError)
        async def gone(self, error: NotFoundError) -> str:
            return f"gone: {error}"

        @handle_errors(KeyError)
        def helper(self) -> None: ...

    errors = ErrorHandler()
    assert declared(Users(), errors=errors) == []
    assert await errors.handle(NotFoundError("x")) == "gone: x"


def test_both_places_are_named_when_two_handlers_have_one_name() -> None:
    """A function of a method's name is an error that names both and their lines."""

    class Users:
        @rpc
        def find(self) -> None: ...

    @rpc
    def find() -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"two handlers named 'find': .*Users.find \(line \d+\) and .*find \(line"
    ):
        declared(Users(), functions=[("find", find, marks_of(find))])


def test_class_is_refused_when_it_is_listed_and_no_controller() -> None:
    """A class in `controllers` without the mark is named with the remedy."""

    class Forgot:
        @rpc
        def find(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Forgot'> in 'controllers' is no controller; put @Controller\(\)"):
        declared(object(), controllers=(Forgot,))


def test_handler_is_refused_when_its_name_is_no_token() -> None:
    """A handler's name stands in a subject, so that it must be a token."""

    @rpc
    def find() -> None: ...

    with pytest.raises(InvalidSubject, match="handler name"):
        declared(object(), functions=[("a b", find, marks_of(find))])


# --- declarations -----------------------------------------------------------------------------------


def test_start_is_refused_when_no_active_plugin_honours_a_mark(plugins: Plugins) -> None:
    """A protected service does not run open: a mark of a missing plugin names handler, plugin and remedy."""
    protected = declaration(rpc, lambda function: mark(function, "auth", "requires_auth"))
    with pytest.raises(
        ConfigurationError,
        match=r"'users.find' is marked 'requires_auth', which plugin 'auth' .* install cliffracer-auth or enable",
    ):
        check_declarations([protected], plugins)


async def test_service_does_not_start_when_a_mark_is_unclaimed() -> None:
    """The check is part of every start, and a plugin of the mark's name satisfies it."""
    service = CliffracerService(ServiceConfig("users"))
    service.rpc(declaration(lambda function: mark(function, "auth", "requires_auth")).function)
    with pytest.raises(ConfigurationError, match="service 'users', step 'settings': .*plugin 'auth'"):
        await service.start()
    allowed = CliffracerService(ServiceConfig("users"), plugins={"auth": object()})
    allowed.rpc(declaration(lambda function: mark(function, "auth", "requires_auth")).function)
    async with allowed:
        assert allowed.ready


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (MessagePattern("user.get"), MessagePattern("user.get")),
        (MessagePattern("users.other"), rpc),
        (MessagePattern("user.*", timeout=1), MessagePattern("user.*")),
    ],
)
def test_start_is_refused_when_two_handlers_answer_one_subject(
    plugins: Plugins, first: Callable[[Any], Any], second: Callable[[Any], Any]
) -> None:
    """Two handlers of one request subject would answer by chance; both are named."""
    both = [declaration(first), declaration(second, name="other")]
    with pytest.raises(ConfigurationError, match=r"'users.find' and 'users.other' both answer 'rpc\..*'; change one"):
        check_declarations(both, plugins)


@pytest.mark.parametrize("again", [rpc, validated_rpc, rpc(timeout=1), MessagePattern("users.find")])
def test_start_is_refused_when_a_handler_is_marked_twice(plugins: Plugins, again: Callable[[Any], Any]) -> None:
    """Two request decorators of one subject on one function are one too many."""
    with pytest.raises(ConfigurationError, match="'users.find' and 'users.find' both answer"):
        check_declarations([declaration(rpc, again)], plugins)


def test_start_goes_on_when_handlers_differ(plugins: Plugins) -> None:
    """One subject on two transports, several patterns on one handler, and events on one subject are no conflict."""
    check_declarations(
        [
            declaration(MessagePattern("a"), MessagePattern("b"), event("x.a"), event("x.b")),
            declaration(MessagePattern("a", transport="bus"), event("x.a"), name="other"),
            declaration(event("o.a", durable=True), event("o.b", durable=True, queue="second"), name="third"),
        ],
        plugins,
    )


@pytest.mark.parametrize("pattern", [">", "*.>", "*.users.>", "rpc.>", "rpc.users.find", "rpc.*"])
def test_event_is_refused_when_its_pattern_matches_requests(plugins: Plugins, pattern: str) -> None:
    """An event handler never sees, and a durable one never answers, the requests of all services."""
    with pytest.raises(ConfigurationError, match=r"'users.find': event pattern .* also matches requests \('rpc.>'\)"):
        check_declarations([declaration(event(pattern))], plugins)


def test_event_is_refused_when_two_durable_ones_share_a_name(plugins: Plugins) -> None:
    """Two durable events of one handler would be one consumer; each needs its own queue."""
    twice = declaration(event("order.a", durable=True), event("order.b", durable=True))
    with pytest.raises(ConfigurationError, match=r"two durable events under one name; give each its own queue='...'"):
        check_declarations([twice], plugins)


@pytest.mark.parametrize("stream", [None, "ALL"])
def test_durable_event_is_refused_when_its_stream_would_take_requests(plugins: Plugins, stream: str | None) -> None:
    """A stream under a pattern that starts with a wildcard would answer requests; a core event may have one."""
    with pytest.raises(ConfigurationError, match=r"also matches requests"):
        check_declarations([declaration(event("*.created", durable=True, stream=stream))], plugins)
    check_declarations([declaration(event("*.created"))], plugins)


@pytest.mark.parametrize("other", [event("user.created"), MessagePattern("user.get")])
async def test_start_is_refused_when_one_payload_is_named_and_whole(other: Callable[[Any], Any]) -> None:
    """A single object cannot be the whole body of an event and a named argument of `@rpc`; the handler is named."""
    service = CliffracerService(ServiceConfig("users"))
    service.rpc(declaration(other).function)
    with pytest.raises(ConfigurationError, match=r"'users.function': 'data' .*; use two handlers"):
        await service.start()


async def test_start_goes_on_when_a_mixed_handler_takes_named_arguments() -> None:
    """With scalars, an RPC method may hear an event too: both send arguments by name."""

    async def note(name: str) -> str:
        return name

    service = CliffracerService(ServiceConfig("users"))
    service.validated_rpc(event("user.created")(note))
    async with service:
        assert await service.rpc_call("users", "note", name="Ada") == "Ada"


# --- capabilities -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decorator", "lacking"),
    [
        (rpc, "request"),
        (validated_rpc, "request"),
        (MessagePattern("user.*"), "wildcards"),
        (event("user.*"), "wildcards"),
        (event("user.created"), "queue_groups"),
        (broadcast("user.created"), "fanout"),
        (event("user.created", durable=True), "durable"),
    ],
)
def test_handler_is_refused_when_its_transport_lacks_something(decorator: Callable[[Any], Any], lacking: str) -> None:
    """A guarantee the transport does not give stops the start; handler, transport and what is lacking are named."""
    able: dict[str, Any] = {"durable": True, lacking: False}
    transport = LimitedTransport()
    transport.limits = Capabilities(**able)
    with pytest.raises(
        ConfigurationError, match=f"'users.find' needs {lacking}, which transport 'default' lacks; change"
    ):
        check_capabilities(declaration(decorator), {"default": transport})
    transport.limits = Capabilities(durable=True)
    check_capabilities(declaration(decorator), {"default": transport})


def test_everything_lacking_is_named_when_it_is_more_than_one_thing() -> None:
    """One error names all that a handler's transport lacks."""
    transport = LimitedTransport()
    transport.limits = Capabilities(wildcards=False, fanout=False)
    with pytest.raises(ConfigurationError, match="needs fanout, wildcards, which"):
        check_capabilities(declaration(broadcast("user.*")), {"default": transport})


def test_durable_handler_is_refused_when_the_transport_only_claims_to_keep_messages() -> None:
    """A transport without the methods of a durable one is not taken at its word."""
    core: Mapping[str, Any] = {"default": CoreTransport()}
    with pytest.raises(ConfigurationError, match="needs durable, which"):
        check_capabilities(declaration(event("user.created", durable=True)), core)


def test_handler_is_refused_when_its_transport_is_not_configured() -> None:
    """A transport that no setting names stops the start, with those there are."""
    transports: dict[str, Transport] = {"default": MemoryTransport(), "bus": MemoryTransport()}
    with pytest.raises(
        ConfigurationError, match=r"'users.find' wants transport 'buss'; configured are \['bus', 'default'\]"
    ):
        check_capabilities(declaration(event("a", transport="buss")), transports)


def test_other_marks_need_nothing_when_capabilities_are_checked() -> None:
    """A mark of a plugin, or of error handling, asks nothing of a transport."""
    check_capabilities(declaration(handle_errors(KeyError)), {})


async def test_service_does_not_start_when_its_transport_lacks_something() -> None:
    """The check is part of every start, and what was opened is closed again."""

    class Plugin:
        transport = LimitedTransport()

    plugin = Plugin()
    plugin.transport.limits = Capabilities(fanout=False)
    service = CliffracerService(
        ServiceConfig("users", transport="limited://"), plugins={"limited": offering(plugin.transport)}
    )
    service.broadcast("user.created")(declaration().function)
    with pytest.raises(ConfigurationError, match="step 'transports': handler 'users.function' needs fanout"):
        await service.start()
    assert not plugin.transport.connected


def offering(transport: Transport) -> object:
    from cliffracer_core.hookspecs import hookimpl
    from cliffracer_core.interfaces import TransportFactory

    class Offer:
        @hookimpl
        def cliffracer_register_transports(self) -> Iterator[TransportFactory] | list[TransportFactory]:
            return [TransportFactory(schemes=("limited",), create=lambda url, service: transport)]

    return Offer()
