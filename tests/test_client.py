"""Calling from outside a service, and typed clients."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    ConfigurationError,
    ConnectionError,
    Controller,
    DeadlineExceeded,
    EventPattern,
    InvalidSubject,
    MessageContext,
    MessagePattern,
    NoHandler,
    ServiceConfig,
    ServiceError,
    ValidationError,
    client,
    event,
    injected,
    rpc,
)
from cliffracer_core.caller import Caller
from cliffracer_core.testing import eventually


class User(msgspec.Struct):
    """For these tests."""

    id: int
    name: str = "Ada"


class Taken(ServiceError, code="client_taken", status=409):
    """For these tests."""


class Users(CliffracerService):
    """What typed clients call; each test starts it under a name of its own."""

    @rpc
    async def create(self, id: int, name: str = "Ada", context: MessageContext = injected()) -> User:
        """Make a user."""
        if id == 0:
            raise Taken("0 is taken")
        return User(id, f"{name} via {context.service}")

    @rpc
    def many(self, ids: list[int]) -> list[User]:
        """Make some."""
        return [User(each) for each in ids]

    @rpc
    async def nothing(self) -> None:
        """Return nothing."""

    @rpc(timeout=60)
    async def hang(self) -> None:
        """Never return."""
        await asyncio.Event().wait()

    @staticmethod
    @rpc
    async def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    @event("never.heard")
    async def on_never(self) -> None:
        """Hear nothing."""

    async def unmarked(self) -> None:
        """Serve nothing."""


def running(name: str, url: str) -> Users:
    return Users(ServiceConfig(name, transport=url))


def typed(name: str, caller: Caller | None, **options: Any) -> Any:
    """Make a typed client of `Users` under the name that a test gave it."""
    return client(type("Users", (Users,), {"name": name}), caller, **options)


async def test_result_has_its_type_when_a_typed_client_calls(transport_url: str, caller: Caller, name: str) -> None:
    """A typed client takes the method's arguments, by place or name, and returns the method's type."""
    users = typed(name, caller)
    async with running(name, transport_url):
        assert await users.create(7) == User(7, f"Ada via {name}")
        assert await users.create(id=7, name="Bo") == User(7, f"Bo via {name}")
        assert await users.many([1, 2]) == [User(1), User(2)]
        assert await users.nothing() is None
        assert await users.add(2, b=3) == 5
        assert users.create.__name__ == "create"
        assert users.create is users.create


async def test_error_has_its_class_when_a_typed_client_calls(transport_url: str, caller: Caller, name: str) -> None:
    """A typed client raises what `Caller.call` raises, and refuses at once what the signature does not have."""
    users = typed(name, caller)
    async with running(name, transport_url):
        with pytest.raises(Taken, match="0 is taken"):
            await users.create(0)
        with pytest.raises(ValidationError, match="'id'"):
            await users.create()
        with pytest.raises(TypeError, match="colour"):
            await users.create(1, colour="red")
        for wrong in ("missing", "unmarked", "on_never", "publish"):
            with pytest.raises(AttributeError, match=f"service '{name}' has no request handler '{wrong}'"):
                getattr(users, wrong)
        with pytest.raises(DeadlineExceeded):
            await typed(name, caller, timeout=0.05).hang()


async def test_name_is_the_class_when_a_typed_client_has_no_other(caller: Caller, transport_url: str) -> None:
    """A service class without a `name` runs, and is called, under its own in snake case."""

    class NobodyHere(CliffracerService):
        @rpc
        async def find(self) -> None: ...

    assert NobodyHere().name == "nobody_here"
    with pytest.raises(NoHandler, match="rpc.nobody_here.find"):
        await client(NobodyHere, caller).find()


async def test_typed_client_works_when_its_service_was_restarted(transport_url: str, name: str) -> None:
    """A client on a class calls as the service it stands in, each instance over its own, also after a restart."""

    class Front(CliffracerService):
        users = typed(name, None)

        @rpc
        async def ask(self, id: int) -> User:
            user: User = await self.users.create(id)
            return user

    first = Front(ServiceConfig(f"{name}-1", transport=transport_url))
    second = Front(ServiceConfig(f"{name}-2", transport=transport_url))
    async with running(name, transport_url):
        async with first, second:
            assert first.users is first.users
            assert first.users is not second.users
            assert await first.rpc_call(f"{name}-2", "ask", id=1) == {"id": 1, "name": f"Ada via {name}"}
            assert await second.rpc_call(f"{name}-1", "ask", id=1) == {"id": 1, "name": f"Ada via {name}"}
        async with first:
            assert await first.rpc_call(f"{name}-1", "ask", id=2) == {"id": 2, "name": f"Ada via {name}"}
    with pytest.raises(ConnectionError, match="is not running"):
        _ = first.users


async def test_typed_client_is_replaced_when_a_test_says_so(name: str) -> None:
    """`replace` puts an object of the test's own in the place of a client."""

    class Fake:
        async def create(self, id: int) -> User:
            return User(id, "fake")

    class Front(CliffracerService):
        users = typed(name, None)

        @rpc
        async def ask(self) -> User:
            user: User = await self.users.create(3)
            return user

    async with Front(ServiceConfig(f"{name}-1"), replace={"users": Fake()}) as front:
        assert await front.rpc_call(f"{name}-1", "ask") == {"id": 3, "name": "fake"}


@Controller()
class UserController:
    """As the documents show one, with a subject of the test's own in front."""

    heard: list[tuple[dict[str, Any], str]] = []

    @MessagePattern("*.user.create")
    async def handle_create_user(self, data: dict[str, Any], context: MessageContext) -> dict[str, Any]:
        """Make a user."""
        return {"success": True, "user": data, "pattern": context.pattern, "to": bool(context.reply_to)}

    @EventPattern("t*.user.created".replace("t*", "clientdoc"))
    async def on_user_created(self, data: dict[str, Any], context: MessageContext) -> None:
        """Keep it."""
        self.heard.append((data, context.pattern))


async def test_request_and_event_arrive_when_a_proxy_sends_them(name: str) -> None:
    """`send` gets what a `MessagePattern` handler returns, `emit` reaches an `EventPattern` handler, as documented."""

    class Service(CliffracerService):
        controllers = [UserController]

    UserController.heard.clear()
    proxy = ClientProxy(transport="memory")
    async with Service(ServiceConfig(name)):
        reply = await proxy.send(pattern=f"{name}.user.create", data={"name": "John"})
        assert reply == {"success": True, "user": {"name": "John"}, "pattern": "rpc.*.user.create", "to": True}
        await proxy.emit(pattern="clientdoc.user.created", data={"id": "123"})
        await eventually(lambda: UserController.heard)
    await proxy.close()
    assert UserController.heard == [({"id": "123"}, "clientdoc.user.created")]


async def test_pattern_takes_the_whole_body_when_a_typed_client_calls_it(
    transport_url: str, caller: Caller, name: str
) -> None:
    """A handler of a pattern gets its payload whole, from `send` and from a typed client alike."""
    pattern = f"{name}.sum"

    class Sums(CliffracerService):
        @MessagePattern(pattern)
        async def total(self, numbers: list[int]) -> int:
            return sum(numbers)

    async with Sums(ServiceConfig(name, transport=transport_url)), ClientProxy(transport_url) as proxy:
        assert await client(Sums, caller).total([1, 2, 3]) == 6
        assert await proxy.send(pattern, [4, 5], returns=int) == 9
        with pytest.raises(ValidationError):
            await proxy.send(pattern)


@pytest.mark.parametrize("way", ["url", "options"])
async def test_proxy_connects_when_given_a_url_or_options(transport_url: str, name: str, way: str) -> None:
    """A proxy takes a URL, or a scheme and what its URL is made of; it connects once, with its first use."""
    if way == "url":
        proxy = ClientProxy(transport_url, timeout=5)
    else:
        proxy = ClientProxy(transport_url.partition(":")[0], {"url": transport_url})
    with pytest.raises(ConnectionError, match="is not connected"):
        _ = proxy.caller
    async with running(name, transport_url):
        first, second = await asyncio.gather(proxy.connect(), proxy.connect())
        assert first is second is proxy.caller
        assert await proxy.send(f"{name}.add", {"a": 1}, timeout=5) == 2
    await proxy.close()
    await proxy.close()
    with pytest.raises(ConnectionError, match="client is closed"):
        await proxy.send(f"{name}.add", {"a": 1})


async def test_proxy_says_what_to_do_when_it_cannot_connect() -> None:
    """A transport that is not installed, or not there, is a typed error; nothing stays open."""
    with pytest.raises(ConfigurationError, match="'carrier-pigeon' is not installed"):
        await ClientProxy("carrier-pigeon").connect()
    proxy = ClientProxy("nats://127.0.0.1:1")
    with pytest.raises(ConnectionError):
        await proxy.send("user.create")
    await proxy.close()


@pytest.mark.parametrize("pattern", ["", "user create", "user.", "user.*", ">", "user\r\n", "a" * 2000])
async def test_proxy_refuses_a_pattern_when_it_is_no_subject(pattern: str) -> None:
    """`send` and `emit` go to one subject each; anything else is `InvalidSubject`."""
    async with ClientProxy("memory://") as proxy:
        with pytest.raises(InvalidSubject):
            await proxy.send(pattern)
        with pytest.raises(InvalidSubject):
            await proxy.emit(pattern)


async def test_proxy_closes_what_it_opened_when_closed_while_it_connects(nats_url: str) -> None:
    """A close that comes while a proxy connects leaves no connection behind."""
    proxy = ClientProxy(nats_url)
    connecting = asyncio.create_task(proxy.connect())
    while proxy._opening is None or not proxy._opening.locked():
        await asyncio.sleep(0)
    await asyncio.wait_for(proxy.close(), 10)
    caller = await connecting
    assert not caller.transport().connected
    with pytest.raises(ConnectionError):
        _ = proxy.caller
