"""The fixtures, used as a project uses them."""

from __future__ import annotations

import asyncio

import pytest
from pytest_cliffracer import Event, Events, ServiceFactory

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    ConfigurationError,
    Controller,
    Injectable,
    NoHandler,
    Provider,
    ServiceConfig,
    ServiceInfo,
    client,
    inject,
    rpc,
)
from cliffracer_core.testing import unique


class Mailbox(Provider):
    def __init__(self) -> None:
        self.open_now = False

    def bind(self, service: ServiceInfo, name: str) -> Mailbox:
        return Mailbox()

    async def open(self) -> None:
        self.open_now = True

    async def close(self) -> None:
        self.open_now = False

    def send(self, address: str) -> str:
        raise RuntimeError(f"a test must not write to {address}")


class FakeMailbox:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, address: str) -> str:
        self.sent.append(address)
        return "fake"


class Users(CliffracerService):
    name = "users"
    mailbox = Mailbox()

    @rpc
    async def create(self, email: str) -> str:
        sent = self.mailbox.send(email)
        await self.publish("user.created", {"email": email})
        return sent

    @rpc
    async def is_open(self) -> bool:
        return self.mailbox.open_now


@Injectable()
class Rates:
    def of(self, currency: str) -> float:
        raise RuntimeError(f"no network in tests for {currency}")


class FixedRates(Rates):
    def of(self, currency: str) -> float:
        return 2.0


@Controller()
class Prices:
    def __init__(self, rates: Rates = inject()) -> None:  # noqa: B008 - a marker, not a shared object
        self.rates = rates

    @rpc
    async def price(self, amount: float, currency: str) -> float:
        return amount * self.rates.of(currency)


class Shop(CliffracerService):
    name = "shop"
    controllers = (Prices,)


class Ordered(CliffracerService):
    stopped: list[str]

    async def stop(self) -> None:
        if self.config.name not in self.stopped:
            self.stopped.append(self.config.name)
        await super().stop()


async def test_service_answers_when_started(cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy) -> None:
    """A started service is ready and reachable by the client fixture, with its own providers open."""
    users = await cliffracer_service(Users)
    assert users.ready
    assert await cliffracer_client.send("users.is_open") is True


async def test_provider_is_replaced_when_named(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """An object given by attribute name stands where the provider would."""
    fake = FakeMailbox()
    users = await cliffracer_service(Users, replace={"mailbox": fake})
    assert vars(users)["mailbox"] is fake
    typed = client(Users, cliffracer_client.caller)
    assert await typed.create(email="ada@example.com") == "fake"
    assert fake.sent == ["ada@example.com"]


@pytest.mark.parametrize("key", [Rates, "rates"])
async def test_injectable_is_replaced_when_named_or_typed(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy, key: object
) -> None:
    """An injectable is replaced by its class or by its name."""
    await cliffracer_service(Shop, replace={key: FixedRates()})
    assert await cliffracer_client.send("shop.price", {"amount": 3.0, "currency": "EUR"}) == 6.0


async def test_service_is_returned_running_when_made_already(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """A service in function style starts on the test's transport, whatever its own settings say."""
    made = CliffracerService(ServiceConfig("made", transport="nats://nowhere.invalid:1"))

    @made.rpc
    async def hello(name: str) -> str:
        return f"hello {name}"

    assert await cliffracer_service(made) is made
    assert await cliffracer_client.send("made.hello", {"name": "Ada"}) == "hello Ada"


async def test_config_is_used_when_given(cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy) -> None:
    """A configuration of the test's own counts, its transport included; nobody hears on another."""
    config = ServiceConfig("people", transport="memory://elsewhere", timeout=3.0)
    people = await cliffracer_service(Users, config=config)
    assert people.info.name == "people"
    with pytest.raises(NoHandler):
        await cliffracer_client.send("people.is_open")
    async with ClientProxy("memory://elsewhere") as elsewhere:
        assert await elsewhere.send("people.is_open") is True


async def test_transport_wins_when_given(cliffracer_service: ServiceFactory) -> None:
    """An explicit transport is stronger than the configuration's."""
    config = ServiceConfig("people", transport="nats://nowhere.invalid:1")
    await cliffracer_service(Users, config=config, transport={"default": "memory://explicit"})
    async with ClientProxy("memory://explicit") as explicit:
        assert await explicit.send("people.is_open") is True


async def test_services_stop_in_reverse_order_when_factory_stops() -> None:
    """The last one started stops first, and settings that were changed are as before."""
    stopped: list[str] = []
    factory = ServiceFactory(f"memory://{unique()}")
    configs = [ServiceConfig(name, transport="nats://nowhere.invalid:1") for name in ("first", "second", "third")]
    for config in configs:
        service = Ordered(config)
        service.stopped = stopped
        await factory(service)
        assert service.ready
    await factory.stop()
    assert stopped == ["third", "second", "first"]
    assert {config.values["transport"] for config in configs} == {"nats://nowhere.invalid:1"}


async def test_every_service_stops_when_one_fails_to() -> None:
    """A stop that fails is raised, after the other services have stopped too."""

    class Stubborn(CliffracerService):
        async def stop(self) -> None:
            await super().stop()
            raise RuntimeError("no")

    factory = ServiceFactory(f"memory://{unique()}")
    users = await factory(Users)
    await factory(Stubborn)
    with pytest.raises(RuntimeError, match="no"):
        await factory.stop()
    assert not users.ready


async def test_factory_refuses_options_when_service_is_made_already(cliffracer_service: ServiceFactory) -> None:
    """What cannot be applied is refused with a remedy, never ignored."""
    with pytest.raises(ConfigurationError, match=r"was made already and takes no \['replace'\]; give its class"):
        await cliffracer_service(Users(), replace={"mailbox": FakeMailbox()})


async def test_factory_says_what_to_do_when_class_takes_no_options(cliffracer_service: ServiceFactory) -> None:
    """A class whose constructor takes nothing is refused with a remedy."""

    class Closed(CliffracerService):
        def __init__(self) -> None:
            super().__init__(ServiceConfig("closed"))

    assert (await cliffracer_service(Closed)).ready
    with pytest.raises(ConfigurationError, match=r"let its __init__ take \*\*options"):
        await cliffracer_service(Closed, replace={"mailbox": FakeMailbox()})


async def test_events_are_recorded_when_published(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy, cliffracer_events: Events
) -> None:
    """The recorder has subject, decoded body and headers, in order; `wait` returns once there are enough."""
    created = await cliffracer_events("user.*")
    users = await cliffracer_service(Users, replace={"mailbox": FakeMailbox()})
    await cliffracer_client.send("users.create", {"email": "a@example.com"})
    await users.publish("user.removed", [1, 2], headers={"X-Why": "test"})
    await users.publish("other.thing", 3)
    first, second = await created.wait(2)
    assert first.data == {"email": "a@example.com"}
    assert first.headers["X-Correlation-ID"]
    assert second == Event("user.removed", [1, 2], {"X-Why": "test"})
    assert created.subjects == ["user.created", "user.removed"]
    assert created.data == [{"email": "a@example.com"}, [1, 2]]


async def test_nothing_is_recorded_when_stopped(cliffracer_client: ClientProxy) -> None:
    """After the test a recorder hears no more, though the transport lives on."""
    events = Events(cliffracer_client.caller.transport())
    seen = await events("a.>")
    await cliffracer_client.emit("a.b")
    await seen.wait()
    await events.stop()
    other = await events("a.>")
    await cliffracer_client.emit("a.c")
    await other.wait()
    assert (seen.subjects, other.subjects) == (["a.b"], ["a.c"])
    await events.stop()


async def test_body_is_kept_as_bytes_when_it_cannot_be_decoded(
    cliffracer_client: ClientProxy, cliffracer_events: Events
) -> None:
    """A body that is no JSON, or none at all, is recorded too."""
    from cliffracer_core.messages import Message

    odd = await cliffracer_events("odd")
    transport = cliffracer_client.caller.transport()
    await transport.publish(Message("odd", b"\xff"))
    await transport.publish(Message("odd"))
    await odd.wait(2)
    assert odd.data == [b"\xff", None]


async def test_wait_names_what_came_when_too_little_did(
    cliffracer_client: ClientProxy, cliffracer_events: Events
) -> None:
    """The failure says how many were expected, and which came."""
    seen = await cliffracer_events("a.*")
    await cliffracer_client.emit("a.b")
    await seen.wait()
    with pytest.raises(AssertionError, match=r"1 of 2 events on 'a\.\*' came within 0\.01 s: \['a\.b'\]"):
        await seen.wait(2, timeout_s=0.01)


def test_factory_refuses_when_loops_differ() -> None:
    """A factory of another loop says which settings bring both together."""

    async def make() -> ServiceFactory:
        return ServiceFactory("memory://")

    async def use(factory: ServiceFactory) -> None:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await factory(Users)

    factory = asyncio.run(make())
    asyncio.run(use(factory))


class TestOnNats:
    """Overriding one fixture moves the whole test onto a real server."""

    @pytest.fixture
    def cliffracer_transport(self, nats_url: str) -> str:
        return nats_url

    async def test_fixtures_work_when_on_nats(
        self, cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy, cliffracer_events: Events
    ) -> None:
        """Service, client and recorder meet on the embedded server."""
        created = await cliffracer_events("user.created")
        name = unique()
        await cliffracer_service(Users, config=ServiceConfig(name), replace={"mailbox": FakeMailbox()})
        assert await cliffracer_client.send(f"{name}.create", {"email": "b@example.com"}) == "fake"
        assert [event.data for event in await created.wait()] == [{"email": "b@example.com"}]
        assert type(cliffracer_client.caller.transport()).__name__ == "NatsTransport"
