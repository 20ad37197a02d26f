"""The face users see: classes, functions, starting, stopping, and what a service tells about itself."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest

from cliffracer_core import (
    CliffracerService,
    ConfigurationError,
    ConnectionError,
    MessageContext,
    NoHandler,
    ServiceConfig,
    ServiceInfo,
    StartupError,
    ValidationError,
    broadcast,
    event,
    rpc,
    validated_rpc,
)
from cliffracer_core.caller import Caller
from cliffracer_core.testing import eventually


class Greeter(CliffracerService):
    """Class style, with a constructor of its own."""

    version = "1.2.3"
    description = "greets"

    def __init__(self, config: ServiceConfig, greeting: str = "hello") -> None:
        super().__init__(config)
        self.greeting = greeting
        self.heard: list[str] = []

    @rpc
    async def greet(self, who: str) -> str:
        return f"{self.greeting} {who}"

    @validated_rpc
    def strict(self, who: str) -> str:
        return f"{self.greeting} {who}"

    @event("greeter.*")
    async def on_event(self, context: MessageContext) -> None:
        self.heard.append(context.subject)

    @broadcast("greeter.all")
    async def on_all(self) -> None:
        self.heard.append("all")


class Louder(Greeter):
    """A subclass: handlers are inherited and may be overridden."""

    @rpc
    async def greet(self, who: str) -> str:
        return (await super().greet(who)).upper()


async def test_methods_are_handlers_when_a_class_marks_them(transport_url: str, caller: Caller, name: str) -> None:
    """Methods answer calls with the instance's own state, sync and async, and stay callable as methods."""
    service = Greeter(ServiceConfig(name, transport=transport_url), "good day")
    assert await service.greet("Ada") == "good day Ada"
    assert service.strict("Ada") == "good day Ada"
    async with service:
        assert await caller.call(name, "greet", {"who": "Ada", "extra": 1}) == "good day Ada"
        assert await caller.call(name, "strict", {"who": "Ada"}) == "good day Ada"
        with pytest.raises(ValidationError, match="'extra'"):
            await caller.call(name, "strict", {"who": "Ada", "extra": 1})
        assert service.info.version == "1.2.3"
        assert service.info.description == "greets"


async def test_handlers_are_inherited_when_a_service_is_subclassed(name: str) -> None:
    """A subclass serves its parent's handlers and its own version of them, once each."""
    async with Louder(ServiceConfig(name)) as service:
        assert await service.rpc_call(name, "greet", who="Ada") == "HELLO ADA"
        assert await service.rpc_call(name, "strict", who="Ada") == "hello Ada"
        await service.publish("greeter.all")
        await eventually(lambda: sorted(service.heard) == ["all", "greeter.all"])


async def test_functions_are_handlers_when_a_service_decorates_them(
    transport_url: str, caller: Caller, name: str
) -> None:
    """Function style serves plain functions, and with a first parameter `self` as methods of the service."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url))
    heard: list[str] = []

    @service.rpc
    async def plain(number: int) -> int:
        return number + 1

    @service.rpc(timeout=5)
    async def as_method(self: CliffracerService, number: int) -> int:
        return int(await self.rpc_call(self.name, "plain", number=number))

    @service.validated_rpc
    def strict(number: int) -> int:
        return number

    @service.validated_rpc(concurrency=3)
    def strict_too(self: CliffracerService) -> str:
        return self.name

    @service.event(f"{name}.made")
    async def on_made(self: CliffracerService, id: int) -> None:
        heard.append(f"event {id}")

    @service.broadcast(f"{name}.made")
    async def on_all(id: int) -> None:
        heard.append(f"broadcast {id}")

    async with service:
        assert await caller.call(name, "plain", {"number": 1}) == 2
        assert await caller.call(name, "as_method", {"number": 2}) == 3
        assert await caller.call(name, "strict", {"number": 3}) == 3
        assert await caller.call(name, "strict_too") == name
        with pytest.raises(ValidationError):
            await caller.call(name, "strict", {"number": 3, "extra": 1})
        await service.publish_event(f"{name}.made", {"id": 5})
        await eventually(lambda: sorted(heard) == ["broadcast 5", "event 5"])
    assert await plain(1) == 2


async def test_function_is_one_handler_when_it_has_two_decorators(name: str) -> None:
    """A function that answers calls and hears events is registered once, with both marks."""
    service, heard = CliffracerService(ServiceConfig(name)), list[int]()

    @service.event(f"{name}.made")
    @service.rpc
    async def both(id: int) -> int:
        heard.append(id)
        return id

    async with service:
        assert list(service.runtime.handlers) == ["both"]
        assert await service.rpc_call(name, "both", id=1) == 1
        await service.publish(f"{name}.made", {"id": 2})
        await eventually(lambda: heard == [1, 2])


async def test_aliases_do_the_same_when_the_documents_names_are_used(transport_url: str, name: str) -> None:
    """`call_rpc` is `rpc_call` and `publish_event` is `publish`, for arguments of any name."""
    service, heard = CliffracerService(ServiceConfig(name, transport=transport_url)), list[Any]()

    @service.rpc
    async def find(service: str, method: str, timeout: int) -> list[object]:
        return [service, method, timeout]

    @service.event(f"{name}.made")
    async def on_made(data: Any) -> None:
        heard.append(data)

    async with service:
        assert await service.call_rpc(name, "find", service="s", method="m", timeout=1) == ["s", "m", 1]
        await service.publish_event(f"{name}.made", [1, 2])
        await service.publish(f"{name}.made", "text")
        await service.publish(f"{name}.made")
        await eventually(lambda: heard == [[1, 2], "text", None])


async def test_event_without_data_is_heard_when_its_handler_takes_none(
    transport_url: str, caller: Caller, name: str
) -> None:
    """`publish` of a subject alone reaches a handler that needs no arguments."""
    service, heard = CliffracerService(ServiceConfig(name, transport=transport_url)), list[int]()

    @service.event(f"{name}.flushed")
    async def on_flushed(count: int = 3) -> None:
        heard.append(count)

    async with service:
        await service.publish(f"{name}.flushed")
        await eventually(lambda: heard == [3])


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (type("UserProfiles", (CliffracerService,), {}), "user_profiles"),
        (type("Users2Go", (CliffracerService,), {}), "users2_go"),
        (type("Users", (CliffracerService,), {"name": "people"}), "people"),
    ],
)
def test_name_is_the_classes_when_no_config_is_given(cls: type[CliffracerService], name: str) -> None:
    """Without a config a service is named by its class attribute, else by its class in snake case."""
    assert cls().name == name


async def test_service_starts_again_when_it_was_stopped(transport_url: str, caller: Caller, name: str) -> None:
    """A service may be started after a stop, not while it runs; stopping twice is no error."""
    service = Greeter(ServiceConfig(name, transport=transport_url))
    for _ in range(2):
        await service.start()
        ready = [service.ready]
        with pytest.raises(ConfigurationError, match="is running; stop it first"):
            await service.start()
        assert await caller.call(name, "greet", {"who": "Ada"}) == "hello Ada"
        await service.stop()
        await service.stop()
        assert [*ready, service.ready] == [True, False]
        with pytest.raises(NoHandler):
            await caller.call(name, "greet", {"who": "Ada"})


async def test_error_says_so_when_a_service_does_not_run(name: str) -> None:
    """Calling through, or asking about, a service that is not started is an error that says what to do."""
    service = Greeter(ServiceConfig(name))
    with pytest.raises(ConnectionError, match="is not running; use 'async with service' or await start"):
        await service.rpc_call("users", "find")
    with pytest.raises(ConnectionError):
        _ = service.info


async def test_store_is_there_when_it_is_configured(name: str) -> None:
    """A service reaches its stores by name, and is told which there are where one is not."""
    config = ServiceConfig(name, store={"default": "memory://", "cache": f"memory://{name}"})
    async with CliffracerService(config) as service:
        await service.store("cache").put("key", b"value")
        assert await service.store().get("key") is None
        assert (await service.store("cache").get("key") or (b"",))[0] == b"value"
        with pytest.raises(ConfigurationError, match=r"'vault' is not configured; known are \['cache', 'default'\]"):
            service.store("vault")


class Slow:
    """A provider that opens when it is let."""

    def __init__(self) -> None:
        self.opening, self.release, self.log = asyncio.Event(), asyncio.Event(), list[str]()

    def bind(self, service: ServiceInfo, name: str) -> Self:
        return self

    async def open(self) -> None:
        self.opening.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        self.log.append("open")

    async def close(self) -> None:
        self.log.append("close")


async def test_start_is_undone_when_stopped_while_it_starts(name: str) -> None:
    """A stop that comes during a start ends it: nothing runs afterwards, and the starter is told why."""
    slow = Slow()
    cls = type("Slowly", (CliffracerService,), {"slow": slow})
    service: CliffracerService = cls(ServiceConfig(name))
    starting = asyncio.create_task(service.start())
    await asyncio.wait_for(slow.opening.wait(), 10)
    await asyncio.wait_for(service.stop(), 10)
    with pytest.raises(StartupError, match=f"service '{name}' was stopped while it started"):
        await starting
    assert starting.cancelling() == 0
    assert slow.log == ["cancelled"]
    slow.release.set()
    async with service:
        assert service.ready
    assert slow.log == ["cancelled", "open", "close"]


async def test_start_stays_cancelled_when_its_task_is(name: str) -> None:
    """A start that is cancelled from outside raises the cancellation, not an error."""
    slow = Slow()
    service: CliffracerService = type("Slowly", (CliffracerService,), {"slow": slow})(ServiceConfig(name))
    starting = asyncio.create_task(service.start())
    await asyncio.wait_for(slow.opening.wait(), 10)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not service.ready


async def test_chain_is_shown_when_a_service_does_not_run(name: str) -> None:
    """`explain` needs no connection: a service with a far transport shows its chains, running or not."""
    service = Greeter(ServiceConfig(name, transport="nats://127.0.0.1:1"))
    chains = await service.explain("greet")
    assert (chains["in"][-1], chains["call"][-1], chains["publish"][-1]) == (f"{name}.greet", "encode", "encode")
    with pytest.raises(ConfigurationError, match=f"service '{name}' has no handler 'missing'; it has greet, on_all"):
        await service.explain("missing")
    async with Greeter(ServiceConfig(name)) as running:
        assert (await running.explain("greet"))["in"] == chains["in"]


async def test_wiring_is_compiled_without_io_when_a_service_does_not_run() -> None:
    """Tools read declarations, signatures and settings of a service whose broker is away; a wrong one is refused."""

    class Users(CliffracerService):
        name = "users"
        version = "1.2.0"

        @rpc
        async def find(self, id: int) -> str:
            return str(id)

    service = Users(ServiceConfig("users", transport="memory://nowhere", timeout=3))
    wiring = await service.wiring()
    assert (wiring.service.name, wiring.service.version, wiring.timeout_s) == ("users", "1.2.0", 3)
    assert [each.name for each in wiring.declarations] == ["find"]
    assert wiring.signatures["find"].returns is str
    assert not any(each.connected for each in wiring.transports.values())
    assert not service.ready
    async with service:
        assert await service.wiring() is service.runtime.wiring

    class Wrong(CliffracerService):
        @rpc
        async def take(self, *rest: int) -> None: ...

    with pytest.raises(ConfigurationError, match="cannot be sent by name"):
        await Wrong().wiring()
