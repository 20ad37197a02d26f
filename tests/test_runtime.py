"""One service from start to stop: the order of the steps, what a failure undoes, and what a stop leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Self

import pytest

from cliffracer_core import (
    CliffracerService,
    ConfigurationError,
    ConnectionError,
    Controller,
    DeadlineExceeded,
    Declaration,
    Injectable,
    MessageContext,
    MessagePattern,
    NoHandler,
    Overloaded,
    PluginError,
    ServiceConfig,
    ServiceInfo,
    StartupError,
    Transport,
    hookimpl,
    inject,
    mark,
)
from cliffracer_core.caller import Caller
from cliffracer_core.context import Identity
from cliffracer_core.interfaces import Entry, HealthCheck, HttpServer, Lifespan, Route, TransportFactory, Wiring
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.memory.transport import MemorySubscription
from cliffracer_core.messages import Message
from cliffracer_core.testing import eventually


class Recorder:
    """A plugin that takes part in every step, writes down which came when, and fails where it is told to."""

    def __init__(self, fails: str = "", *, error: BaseException | None = None) -> None:
        self.steps: list[str] = []
        self.fails = fails
        self.error = error or ValueError(f"no {fails}")
        self.wiring: Wiring | None = None
        self.routes: list[str] = []

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fails:
            raise self.error

    @hookimpl
    def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Lifespan]:
        @contextlib.asynccontextmanager
        async def lifespan(wiring: Wiring) -> AsyncIterator[None]:
            self.wiring = wiring
            self.step(f"lifespan in, ready {wiring.ready()}")
            yield
            self.step(f"lifespan out, ready {wiring.ready()}")

        return [lifespan]

    @hookimpl
    def cliffracer_register_routes(self, declaration: Declaration) -> Sequence[Route]:
        return [Route(path=f"/{declaration.name}")]

    @hookimpl
    def cliffracer_register_asgi_middleware(self, service: ServiceInfo) -> Sequence[Any]:
        return [lambda app: app]

    @hookimpl
    def cliffracer_register_http_server(self, service: ServiceInfo) -> Sequence[HttpServer]:
        return [_Server(self)]

    @hookimpl
    def cliffracer_register_entry_points(self, declaration: Declaration) -> Sequence[Any]:
        return [_Timer(self)]

    @hookimpl
    def cliffracer_on_ready(self, service: ServiceInfo) -> None:
        self.step("ready")

    @hookimpl
    def cliffracer_on_stopping(self, service: ServiceInfo) -> None:
        self.step("stopping")


class _Server:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    async def start(self, wiring: Wiring, routes: Sequence[tuple[Route, Entry]], asgi: Sequence[Any]) -> None:
        self.recorder.routes += [f"{route.path} {entry.name} {len(asgi)}" for route, entry in routes]
        self.recorder.step("listener start")

    async def stop(self) -> None:
        self.recorder.step("listener stop")


class _Timer:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    async def start(self, entry: Entry) -> None:
        self.recorder.step("timer start")

    async def stop(self) -> None:
        self.recorder.step("timer stop")


class Resource:
    """A provider that notes on its template which copies were opened and closed."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.bound_to = ""
        self.is_open = False

    def bind(self, service: ServiceInfo, name: str) -> Self:
        bound = copy.copy(self)
        bound.bound_to = f"{service.name}.{name}"
        return bound

    async def open(self) -> None:
        self.recorder.step("provider open")
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False
        self.recorder.step("provider close")


def recorded(name: str, recorder: Recorder, url: str = "memory://", **values: object) -> CliffracerService:
    """Make a service with something in every step."""

    class Service(CliffracerService):
        resource = Resource(recorder)

    service = Service(ServiceConfig(name, transport=url, **values), plugins={"recorder": recorder})

    @service.rpc
    async def ping() -> str:
        return "pong"

    return service


STARTED = ["provider open", "lifespan in, ready False", "listener start", "timer start", "ready"]
STOPPED = ["stopping", "timer stop", "listener stop", "lifespan out, ready False", "provider close"]


async def test_steps_run_in_order_when_started_and_in_reverse_when_stopped(name: str) -> None:
    """Providers, lifespans, listeners, timers, ready; a stop runs them backwards, not ready from its beginning."""
    recorder = Recorder()
    service = recorded(name, recorder)
    async with service:
        assert recorder.steps == STARTED
        assert (service.ready, recorder.routes) == (True, [f"/ping {name}.ping 1"])
        assert recorder.wiring is not None
        assert recorder.wiring.ready()
        assert [each.where for each in recorder.wiring.declarations] == [f"{name}.ping"]
        assert set(recorder.wiring.transports) == set(recorder.wiring.stores) == {"default"}
        recorder.steps.clear()
    assert recorder.steps == STOPPED
    assert not service.ready


@pytest.mark.parametrize(
    ("fails", "step", "undone"),
    [
        ("provider open", "providers", []),
        ("lifespan in, ready False", "lifespans", ["provider close"]),
        ("listener start", "listeners", ["listener stop", "lifespan out, ready False", "provider close"]),
        ("timer start", "timers", STOPPED[1:]),
        ("ready", "ready", STOPPED),
    ],
)
async def test_start_is_undone_when_a_step_fails(
    transport_url: str, caller: Caller, name: str, fails: str, step: str, undone: list[str]
) -> None:
    """What was begun is undone in reverse, the error names service, step and cause, and nothing listens any more."""
    recorder = Recorder(fails)
    service = recorded(name, recorder, transport_url)
    with pytest.raises((StartupError, PluginError), match=f"service '{name}', step '{step}': .*no {fails}") as caught:
        await service.start()
    assert caught.value.__cause__ is recorder.error
    assert recorder.steps == [*STARTED[: STARTED.index(fails) + 1], *undone]
    assert not service.ready
    with pytest.raises(NoHandler):
        await caller.call(name, "ping")
    recorder.fails = ""
    async with service:
        assert await caller.call(name, "ping") == "pong"


async def test_error_keeps_its_class_when_a_step_fails_with_one_of_ours(name: str) -> None:
    """An error of ours is named with service and step, and stays what it was."""
    recorder = Recorder("provider open", error=ConnectionError("no database"))
    with pytest.raises(ConnectionError, match=f"^service '{name}', step 'providers': no database$"):
        await recorded(name, recorder).start()


async def test_cancellation_passes_when_a_start_is_cancelled(name: str) -> None:
    """A cancelled start is undone and stays a cancellation."""
    recorder = Recorder("timer start", error=asyncio.CancelledError())
    service = recorded(name, recorder)
    with pytest.raises(asyncio.CancelledError):
        await service.start()
    assert recorder.steps[-4:] == STOPPED[1:]
    assert not service.ready


async def test_transports_are_closed_when_one_cannot_be_opened(nats_url: str, name: str) -> None:
    """Where the second transport is not there, the first one is closed again."""
    urls = {"default": nats_url, "far": "nats://127.0.0.1:1"}
    service = CliffracerService(ServiceConfig(name, transport=urls))
    with pytest.raises(ConnectionError, match=f"service '{name}', step 'transports'"):
        await service.start()
    async with CliffracerService(ServiceConfig(name, transport=nats_url)) as other:
        assert other.ready


async def test_every_step_ends_when_one_cannot_be_undone(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A step that fails to stop is logged with its name, and the ones before it are undone all the same."""
    recorder = Recorder()
    service = recorded(name, recorder)
    await service.start()
    recorder.fails, recorder.error = "listener stop", ValueError("no listener stop")
    recorder.steps.clear()
    await service.stop()
    assert recorder.steps == STOPPED
    assert f"service '{name}', stop of step 'listeners': ValueError: no listener stop" in caplog.text


async def test_stop_goes_on_when_a_plugin_fails_to_hear_of_it(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that breaks when it is told of the stop is logged, and everything else stops."""
    recorder = Recorder()
    service = recorded(name, recorder)
    await service.start()
    recorder.fails, recorder.error = "stopping", ValueError("deaf")
    recorder.steps.clear()
    await service.stop()
    assert recorder.steps == STOPPED
    assert "a plugin did not hear of the stop" in caplog.text


class Undrained(MemoryTransport):
    """In memory, with subscriptions that cannot be ended."""

    async def subscribe(
        self, pattern: str, on_message: Callable[[Message], None], *, queue: str | None = None
    ) -> MemorySubscription:
        subscription = await super().subscribe(pattern, on_message, queue=queue)
        if queue is not None:
            subscription.drain = self.fail  # type: ignore[method-assign]  # this one is broken
        return subscription

    async def fail(self) -> None:
        raise ConnectionError("no answer")


class UndrainedPlugin:
    """Offers it."""

    @hookimpl
    def cliffracer_register_transports(self) -> Sequence[TransportFactory]:
        return [TransportFactory(schemes=("undrained",), create=lambda url, service: Undrained())]


async def test_handlers_finish_when_unsubscribing_fails(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that does not answer an unsubscribe costs no call that runs its end."""
    service = CliffracerService(ServiceConfig(name, transport="undrained://"), plugins={"undrained": UndrainedPlugin()})
    begun, release = asyncio.Event(), asyncio.Event()

    @service.rpc
    async def slow() -> str:
        begun.set()
        await release.wait()
        return "finished"

    await service.start()
    call = asyncio.create_task(service.rpc_call(name, "slow"))
    await asyncio.wait_for(begun.wait(), 10)
    stopping = asyncio.create_task(service.stop())
    await eventually(lambda: "unsubscribing failed: connection_error: no answer" in caplog.text)
    release.set()
    assert await asyncio.wait_for(call, 10) == "finished"
    await asyncio.wait_for(stopping, 10)


async def test_stop_is_bounded_when_a_step_hangs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that never closes is left behind when the grace time is over, and named in the log."""

    class Stuck(Resource):
        async def close(self) -> None:
            await asyncio.Event().wait()

    recorder = Recorder()

    class Service(CliffracerService):
        one = Stuck(recorder)

    service = Service(ServiceConfig(name, shutdown_grace_s=0.1), plugins={"recorder": recorder})
    await service.start()
    await asyncio.wait_for(service.stop(), 10)
    assert "stop of step 'providers': TimeoutError" in caplog.text


async def test_stop_is_bounded_when_a_handler_hangs(
    transport_url: str, caller: Caller, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end of the grace time what runs and what waits is cut, and every caller is told to call again."""
    service = CliffracerService(
        ServiceConfig(name, transport=transport_url, shutdown_grace_s=1.5)
    )  # a fifth of it is left to tell them

    @service.rpc(concurrency=1)
    async def hang() -> None:
        await asyncio.Event().wait()

    await service.start()
    calls = [asyncio.create_task(caller.call(name, "hang", timeout=60)) for _ in range(3)]
    gate = service.runtime.handlers["hang"].gate
    await eventually(lambda: len(gate.waiting) == 2)
    await asyncio.wait_for(service.stop(), 10)
    for call in calls:
        with pytest.raises(Overloaded, match="its service stops; call again"):
            await asyncio.wait_for(call, 10)
    assert "3 calls were cut at the end of the grace time" in caplog.text


async def test_events_are_forgotten_when_they_are_over_and_found_when_they_are_not(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Thousands that were handled leave nothing behind; one that still runs is cut with its service."""
    service = CliffracerService(ServiceConfig(name, shutdown_grace_s=0.2))
    handled: list[int] = []

    @service.event(f"{name}.*")
    async def on(number: int) -> None:
        handled.append(number)
        if number == 0:
            await asyncio.Event().wait()

    with caplog.at_level(logging.WARNING, "cliffracer"):
        await service.start()
        for number in range(3000):
            await service.publish(f"{name}.a", {"number": number})
            if number % 100 == 0:
                await asyncio.sleep(0)
        await eventually(lambda: len(handled) == 3000)
        scope = service.runtime.scope
        assert len(scope.runs) + len(scope.brief) < 1000
        await service.stop()
    assert "1 calls were cut at the end of the grace time" in caplog.text
    assert scope.idle


async def test_calls_leave_nothing_for_the_garbage_collector(transport_url: str, name: str) -> None:
    """Calls and events, those that wait for something too, are freed as they end: no cycle holds them."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url))
    heard: list[int] = []

    @service.rpc
    async def echo(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @service.event(f"{name}.a")
    async def on(number: int) -> None:
        await asyncio.sleep(0)
        heard.append(number)

    async def use(times: int) -> None:
        heard.clear()
        for number in range(times):
            assert await service.rpc_call(name, "echo", number=number) == number
            await service.publish(f"{name}.a", {"number": number})
        await eventually(lambda: len(heard) == times)

    async with service:
        await use(20)
        gc.collect()
        gc.disable()
        try:
            await use(200)
            found = gc.collect()
        finally:
            gc.enable()
    assert found < 100, "less than one for every second call"


async def test_events_that_wait_are_dropped_when_the_grace_time_is_over(
    transport_url: str, caller: Caller, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Core events cut by a stop are counted in the log, those that ran by name; durable ones come again."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url, shutdown_grace_s=0.5))
    begun: list[str] = []

    @service.event(f"{name}.core", concurrency=1)
    async def core() -> None:
        begun.append("core")
        await asyncio.Event().wait()

    @service.event(f"{name}.kept", durable=True, retries=3, concurrency=1)
    @service.event(f"{name}.also", durable=True, retries=3, queue=f"{name}.second", concurrency=1)
    async def kept() -> None:
        begun.append("kept")
        if len(begun) < 3:
            await asyncio.Event().wait()

    with caplog.at_level(logging.WARNING, "cliffracer"):
        await service.start()
        for subject in ("core", "core", "kept", "also"):
            await caller.publish(f"{name}.{subject}", None, durable=subject in ("kept", "also"))
        gates = service.runtime.scope.gates
        await eventually(lambda: [len(gate.waiting) for gate in gates] == [1, 1])
        await asyncio.wait_for(service.stop(), 10)
    assert "4 calls were cut at the end of the grace time" in caplog.text
    assert caplog.text.count(f"{name}.core was cut: its service stops") == 1
    assert sorted(begun) == ["core", "kept"]
    begun.append("restarted")
    async with service:
        await eventually(lambda: begun.count("kept") == 3)


async def test_no_accepted_request_is_lost_when_stopped_under_load(
    transport_url: str, caller: Caller, name: str
) -> None:
    """Of many requests in flight and queued at a stop, each is answered; what comes later finds nobody, at once."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url, concurrency=5))
    ran: list[int] = []

    @service.rpc
    async def work(number: int) -> int:
        await asyncio.sleep(0.001)
        ran.append(number)
        return number

    await service.start()
    calls = [asyncio.create_task(caller.call(name, "work", {"number": number}, timeout=60)) for number in range(300)]
    gate = service.runtime.handlers["work"].gate
    await eventually(lambda: gate.waiting and ran)
    stopping = asyncio.create_task(service.stop())
    late = [
        asyncio.create_task(caller.call(name, "work", {"number": 1000 + number}, timeout=60)) for number in range(50)
    ]
    await stopping
    assert await asyncio.wait_for(asyncio.gather(*calls), 10) == list(range(300))
    answers = await asyncio.wait_for(asyncio.gather(*late, return_exceptions=True), 10)
    answered = {each for each in answers if isinstance(each, int)}
    assert all(isinstance(each, int | NoHandler) for each in answers)
    assert {each for each in ran if each >= 1000} == answered


async def test_draining_handler_can_call_when_its_service_stops(transport_url: str, caller: Caller, name: str) -> None:
    """The connection is the last thing to close: a handler that finishes during a stop still calls and publishes."""
    front = CliffracerService(ServiceConfig(f"{name}-front", transport=transport_url))
    back = CliffracerService(ServiceConfig(f"{name}-back", transport=transport_url))
    begun, release, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @front.rpc
    async def slow() -> str:
        begun.set()
        await release.wait()
        await front.publish(f"{name}.told")
        return str(await front.rpc_call(f"{name}-back", "help"))

    @back.rpc
    async def help() -> str:
        return "helped"

    @back.event(f"{name}.told")
    async def on_told() -> None:
        told.set()

    async def listens_no_more() -> bool:
        try:
            await caller.call(f"{name}-front", "slow", timeout=0.2)
        except DeadlineExceeded:  # it was on its way before, and is accepted
            return False
        except NoHandler:
            return True
        raise AssertionError("it was answered before the release")

    await front.start()
    async with back:
        call = asyncio.create_task(caller.call(f"{name}-front", "slow", timeout=60))
        await asyncio.wait_for(begun.wait(), 10)
        stopping = asyncio.create_task(front.stop())
        await eventually(lambda: not front.ready)
        await eventually(listens_no_more)
        assert not stopping.done()
        release.set()
        assert await asyncio.wait_for(call, 10) == "helped"
        await asyncio.wait_for(stopping, 10)
        await asyncio.wait_for(told.wait(), 10)


async def test_instances_share_nothing_when_a_class_has_a_provider(name: str) -> None:
    """A provider on a class is a template: each instance opens a copy of its own, and closes that one."""
    recorder = Recorder()

    class Service(CliffracerService):
        resource = Resource(recorder)

    template = Service.resource
    first, second = Service(ServiceConfig(f"{name}-1")), Service(ServiceConfig(f"{name}-2"))
    async with first:
        async with second:
            assert first.resource is not second.resource
            assert (first.resource.bound_to, second.resource.bound_to) == (f"{name}-1.resource", f"{name}-2.resource")
        assert (first.resource.is_open, second.resource.is_open) == (True, False)
    assert Service.resource is template
    assert (template.bound_to, template.is_open) == ("", False)


async def test_replacement_stands_in_when_one_is_given(name: str) -> None:
    """`replace` puts a provider, which is bound and opened, or a plain object in the place of the class's."""
    recorder, others = Recorder(), Recorder()

    class Service(CliffracerService):
        resource: Any = Resource(recorder)
        mailbox: Any = Resource(recorder)

    fake = Resource(others)
    service = Service(ServiceConfig(name), replace={"resource": fake, "mailbox": ["plain"]})
    async with service:
        assert service.mailbox == ["plain"]
        assert service.resource.bound_to == f"{name}.resource"
        assert service.resource.is_open
    assert others.steps == ["provider open", "provider close"]
    assert recorder.steps == []


async def test_start_fails_when_a_replacement_names_no_attribute(name: str) -> None:
    """A misspelt name must not leave the real thing in place in a test that believes it is replaced."""

    class Service(CliffracerService):
        mailbox: Any = Resource(Recorder())

    with pytest.raises(ConfigurationError, match="replace names 'mailbx', which is no attribute"):
        await Service(ServiceConfig(name), replace={"mailbx": ["plain"]}).start()


@pytest.mark.parametrize("what", ["injectable type 'Marker'", "health check 'disk'"])
async def test_start_fails_when_two_plugins_offer_the_same(name: str, what: str) -> None:
    """Neither wins in silence: the error names both, and how to disable one."""

    class Offers:
        @hookimpl
        def cliffracer_register_injectables(self) -> Mapping[type, Any]:
            return {Marker: lambda context: Marker()} if "Marker" in what else {}

        @hookimpl
        def cliffracer_register_health_checks(self) -> Mapping[str, Any]:
            return {"disk": dict} if "disk" in what else {}

    service = CliffracerService(ServiceConfig(name), plugins={"one": Offers(), "two": Offers()})
    with pytest.raises(ConfigurationError, match=f"'one' and 'two' both offer {what}; disable one with"):
        await service.start()


class Marker:
    """What two plugins would inject."""


@Injectable()
class Clock:
    """Built by `inject()`, opened and closed by the service."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def open(self) -> None:
        self.log.append("open")

    async def close(self) -> None:
        self.log.append("close")


@Controller()
class ClockController:
    """Holds a handler and what it needs."""

    def __init__(self, clock: Clock = inject()) -> None:
        self.clock = clock

    @MessagePattern("*.clock.log")
    async def log(self) -> list[str]:
        return self.clock.log


async def test_injectable_is_opened_when_a_controller_asks_for_it(name: str) -> None:
    """What a controller injects is opened before its handlers serve, and closed after they stopped."""

    class Service(CliffracerService):
        controllers = [ClockController]

    service = Service(ServiceConfig(name))
    async with service:
        clock = service.runtime.builder.built[Clock]
        assert await service.caller.request(f"rpc.{name}.clock.log", {}) == ["open"]
    assert isinstance(clock, Clock)
    assert clock.log == ["open", "close"]


async def test_service_is_reached_on_each_when_it_has_several_transports(nats_url: str, name: str) -> None:
    """A handler listens on the transport it names, and calls and events go out on the one they name."""
    service = CliffracerService(ServiceConfig(name, transport={"default": "memory://", "wire": nats_url}))
    heard: asyncio.Queue[str] = asyncio.Queue()

    @service.rpc
    async def here() -> str:
        return "in memory"

    @service.rpc(transport="wire")
    async def there() -> str:
        return "on nats"

    @service.event(f"{name}.made", transport="wire", durable=True)
    async def on_made(where: str) -> None:
        heard.put_nowait(where)

    async with service, CliffracerService(ServiceConfig(f"{name}-2", transport=nats_url)) as other:
        assert await service.rpc_call(name, "here") == "in memory"
        assert await other.rpc_call(name, "there") == "on nats"
        assert await service.caller.call(name, "there", transport="wire") == "on nats"
        for method, transport in (("there", "default"), ("here", "wire")):
            with pytest.raises(NoHandler):
                await service.caller.call(name, method, transport=transport)
        await service.publish(f"{name}.made", {"where": "wire"}, transport="wire", durable=True)
        assert await asyncio.wait_for(heard.get(), 10) == "wire"
        assert (await service.health())["transport wire"] == {"connected": True}


async def test_start_fails_when_a_handler_names_a_transport_that_is_not_there(name: str) -> None:
    """A handler on an unknown transport is an error at start that names both."""
    service = CliffracerService(ServiceConfig(name))

    @service.rpc(transport="wire")
    async def there() -> None: ...

    with pytest.raises(ConfigurationError, match=f"'{name}.there' wants transport 'wire'; configured are"):
        await service.start()


async def test_start_fails_when_routes_have_no_server(name: str) -> None:
    """Routes that nobody serves, or two would, are an error at start that says what to install."""

    class Routes:
        @hookimpl
        def cliffracer_register_routes(self, declaration: Declaration) -> Sequence[Route]:
            return [Route(path="/")]

    def service(**plugins: object) -> CliffracerService:
        made = CliffracerService(ServiceConfig(name), plugins={"routes": Routes(), **plugins})

        @made.rpc
        async def ping() -> None: ...

        return made

    with pytest.raises(ConfigurationError, match="exactly one HTTP server, offered by: none; install cliffracer-http"):
        await service().start()
    with pytest.raises(ConfigurationError, match="offered by: 'one', 'two'"):
        await service(one=Recorder(), two=Recorder()).start()


async def test_start_fails_when_something_is_declared_wrongly(name: str) -> None:
    """Two handlers of one name, a mark nobody honours, an unknown setting: an error at start that says what to do."""
    twice = CliffracerService(ServiceConfig(name))

    @twice.rpc
    async def find() -> None: ...

    async def other() -> None: ...

    other.__name__ = "find"
    twice.rpc(other)
    with pytest.raises(ConfigurationError, match=r"two handlers named 'find': .* rename one"):
        await twice.start()

    guarded = CliffracerService(ServiceConfig(name))

    @guarded.rpc
    @guarded.handler(lambda function: mark(function, "vault", "requires_key"))
    async def secret() -> None: ...

    with pytest.raises(ConfigurationError, match="install cliffracer-vault or enable it"):
        await guarded.start()

    with pytest.raises(ConfigurationError, match="timeout"):
        await CliffracerService(ServiceConfig(name, timout=3)).start()
    with pytest.raises(PluginError, match="two plugins are named 'core'"):
        await CliffracerService(ServiceConfig(name), plugins={"core": object()}).start()


async def test_identity_and_measurements_are_there_when_plugins_give_them(name: str) -> None:
    """The first authenticator that knows the caller says who it is; sinks get each call's time and outcome."""
    measured: list[tuple[str, Mapping[str, str]]] = []

    class Security:
        def __init__(self, known: str) -> None:
            self.known = known

        async def authenticate(self, headers: Mapping[str, str]) -> Identity | None:
            token = headers.get("X-Token")
            return Identity(id=f"{self.known} {token}") if token and token.startswith(self.known) else None

        def record(self, metric: str, value: float, labels: Mapping[str, str]) -> None:
            measured.append((metric, labels))

        @hookimpl
        def cliffracer_register_authenticators(self, service: ServiceInfo) -> Sequence[Any]:
            return [self, Security("b")]

        @hookimpl
        def cliffracer_register_metrics_sinks(self, service: ServiceInfo) -> Sequence[Any]:
            return [self]

    service = CliffracerService(ServiceConfig(name), plugins={"security": Security("a")})

    @service.rpc
    async def fail() -> None:
        raise KeyError("fail")

    @service.rpc
    async def me(context: MessageContext) -> str | None:
        return context.identity.id if context.identity else None

    async with service:
        for token, expected in (("a1", "a a1"), ("b1", "b b1"), ("c1", None)):
            assert await service.caller.call(name, "me", headers={"X-Token": token}) == expected
        with pytest.raises(Exception, match="internal error"):
            await service.rpc_call(name, "fail")
    assert [metric for metric, _ in measured] == ["calls", "seconds"] * 4
    assert [labels["outcome"] for metric, labels in measured if metric == "calls"] == ["ok"] * 3 + ["KeyError"]
    assert measured[0][1] == {"handler": f"{name}.me", "kind": "rpc", "outcome": "ok"}


async def test_health_says_what_is_unwell_when_a_check_fails(transport_url: str, name: str) -> None:
    """Health has an entry for each transport and each check; one that raises has `error`."""

    async def well() -> Mapping[str, object]:
        return {"rows": 3}

    async def unwell() -> Mapping[str, object]:
        raise OSError("disk gone")

    class Checks:
        @hookimpl
        def cliffracer_register_health_checks(self, service: ServiceInfo) -> Mapping[str, HealthCheck]:
            return {"archive": well, "disk": unwell}

    service = CliffracerService(ServiceConfig(name, transport=transport_url), plugins={"checks": Checks()})
    with pytest.raises(ConnectionError, match="is not running"):
        await service.health()
    async with service:
        report = await service.health()
    assert report["transport default"] == {"connected": True}
    assert (report["archive"], report["disk"]) == ({"rows": 3}, {"error": "OSError: disk gone"})


async def test_drain_failure_is_logged_when_the_connection_is_gone(
    transport_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A service whose connection was closed under it stops all the same."""
    recorder = Recorder()
    service = recorded(name, recorder, transport_url)
    await service.start()
    transport: Transport = service.runtime.transports["default"]
    await transport.close()
    assert not service.ready
    await asyncio.wait_for(service.stop(), 10)
    assert recorder.steps[-1] == "provider close"
    with pytest.raises(ConnectionError):
        await transport.publish(Message(f"{name}.x"))
