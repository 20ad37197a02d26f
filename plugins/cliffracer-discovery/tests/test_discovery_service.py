from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Sequence

import pytest
from cliffracer_discovery import discover, reset_stats
from cliffracer_discovery.plugin import Discovery
from pytest_cliffracer import ServiceFactory

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    ConfigurationError,
    ConnectionError,
    Plugins,
    ServiceConfig,
    ServiceInfo,
    hookimpl,
    rpc,
)
from cliffracer_core.assembly import BUILTIN, load_plugins
from cliffracer_core.interfaces import Capabilities, Lifespan, TransportFactory, Wiring
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.messages import Message


class Plain(CliffracerService):
    name = "plain"

    @rpc
    async def echo(self, text: str) -> str:
        """Give back."""
        return text


async def test_only_those_asked_answer_when_there_are_several(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """All services, those of a name, or one instance: each question reaches exactly these."""
    ids = [(await cliffracer_service(CliffracerService(ServiceConfig("twin")))).info.id for _ in range(2)]
    other = await cliffracer_service(CliffracerService(ServiceConfig("other")))
    everyone = await discover(cliffracer_client, "PING")
    assert [each.name for each in everyone] == ["other", "twin", "twin"]
    assert {each.id for each in everyone} == {*ids, other.info.id}
    assert {each.id for each in await discover(cliffracer_client, "PING", name="twin")} == set(ids)
    assert [each.id for each in await discover(cliffracer_client, "PING", name="twin", id=ids[1])] == [ids[1]]
    assert await discover(cliffracer_client, "PING", name="other", id=ids[0], timeout_s=0.05) == []


async def test_question_is_ignored_when_it_wants_no_answer(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """A message on `$SRV.PING` without a reply subject does no harm."""
    await cliffracer_service(CliffracerService(ServiceConfig("calm")))
    await cliffracer_client.emit("$SRV.PING")
    assert [each.name for each in await discover(cliffracer_client, "PING")] == ["calm"]
    assert not caplog.records


async def test_service_answers_again_when_one_answer_failed(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that cannot be sent is logged, and the next question is answered."""
    await cliffracer_service(CliffracerService(ServiceConfig("calm")))
    transport = cliffracer_client.caller.transport()
    broker = transport.broker  # type: ignore[attr-defined]  # past the transport's check of the reply subject
    message = Message("$SRV.PING", reply_to="no subject")
    broker.deliver(message, broker.route(message.subject))
    assert [each.name for each in await discover(cliffracer_client, "PING")] == ["calm"]
    assert "an answer to a discovery question could not be sent: invalid_subject" in caplog.text


async def test_service_is_silent_when_not_ready_yet(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """While it starts, a service is not found; once `start` returns it is."""
    seen: list[int] = []

    class Late:
        @hookimpl
        def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Lifespan]:
            @contextlib.asynccontextmanager
            async def late(wiring: Wiring) -> AsyncIterator[None]:
                seen.append(len(await discover(wiring.transports["default"], "PING", timeout_s=0.5)))
                yield

            return [late]

    await cliffracer_service(CliffracerService(ServiceConfig("slow")), plugins=None)
    await cliffracer_service(Plain, plugins={"zzz": Late()})
    assert seen == [1]  # the other one
    assert len(await discover(cliffracer_client, "PING")) == 2


async def test_service_is_silent_when_draining(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """From the beginning of its stop a service is not found, while a request it took still runs to its end."""
    made = CliffracerService(ServiceConfig("draining"))
    running, go_on = asyncio.Event(), asyncio.Event()

    @made.rpc
    async def work() -> str:
        running.set()
        await go_on.wait()
        return "done"

    await cliffracer_service(made)
    call = asyncio.create_task(cliffracer_client.send("draining.work"))
    await running.wait()
    stop = asyncio.create_task(made.stop())
    while made.runtime.ready:
        await asyncio.sleep(0)
    assert await discover(cliffracer_client, "PING", timeout_s=0.05) == []
    assert not call.done()
    go_on.set()
    assert await call == "done"
    await stop


async def test_service_is_not_announced_when_disabled(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """With `enabled` false there is no answer, no count, and any version will do."""
    config = ServiceConfig("hidden", discovery={"enabled": False}, version="latest")
    service = await cliffracer_service(CliffracerService(config))
    assert await discover(cliffracer_client, "PING", timeout_s=0.05) == []
    with pytest.raises(ConfigurationError, match="'hidden' keeps no statistics"):
        reset_stats(service)


async def test_reset_says_why_when_there_is_nothing_to_reset(cliffracer_service: ServiceFactory) -> None:
    """A service that does not run, or runs without the plugin, is named in the error."""
    service = CliffracerService(
        ServiceConfig("alone"), plugins=load_plugins(environment={"CLIFFRACER_DISABLE": "discovery"})
    )
    with pytest.raises(ConnectionError, match="'alone' is not running"):
        reset_stats(service)
    await cliffracer_service(service)
    with pytest.raises(ConfigurationError, match="'alone' runs without discovery"):
        reset_stats(service)


async def test_start_fails_when_version_is_none(cliffracer_service: ServiceFactory) -> None:
    """A version that cannot be announced stops the start, with service and remedy."""
    with pytest.raises(ConfigurationError, match=r"'odd'.*version 'latest' is no semantic version"):
        await cliffracer_service(CliffracerService(ServiceConfig("odd", version="latest")))


async def test_start_fails_when_transport_is_not_configured(cliffracer_service: ServiceFactory) -> None:
    """A transport that is not there stops the start, and those that are are named."""
    with pytest.raises(ConfigurationError, match=r"'discovery.transport' is 'nowhere'; configured are \['default'\]"):
        await cliffracer_service(CliffracerService(ServiceConfig("odd", discovery={"transport": "nowhere"})))


async def test_service_runs_unannounced_when_transport_cannot_fan_out(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """A transport without fan-out leaves the service running, and the log says why nobody finds it."""

    class Narrow(MemoryTransport):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities(fanout=False)

    class NarrowPlugin:
        @hookimpl
        def cliffracer_register_transports(self) -> Sequence[TransportFactory]:
            return [TransportFactory(schemes=["narrow"], create=lambda url, service: Narrow())]

    caplog.set_level(logging.INFO, "cliffracer.discovery")
    await cliffracer_service(Plain, plugins={"narrow": NarrowPlugin()}, transport="narrow://")
    assert await cliffracer_client.send("plain.echo", {"text": "a"}) == "a"
    assert await discover(cliffracer_client, "PING", timeout_s=0.05) == []
    assert "'plain': not discoverable, transport 'default' has no fan-out" in caplog.text


async def test_services_keep_apart_when_they_share_plugins(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """One loaded set of plugins serves several services, and each has its own numbers."""
    plugins = load_plugins()
    for name in ("one", "two"):
        await cliffracer_service(Plain, config=ServiceConfig(name), plugins=plugins)
    await cliffracer_client.send("one.echo", {"text": "a"})
    counted = {
        answer.name: [each.num_requests for each in answer.endpoints]
        for answer in await discover(cliffracer_client, "STATS")
    }
    assert counted == {"one": [1], "two": [0]}


async def test_nothing_is_kept_when_service_has_stopped(cliffracer_service: ServiceFactory) -> None:
    """A stopped service leaves nothing behind in a plugin that lives on."""
    plugins = load_plugins()
    service = Plain(ServiceConfig("gone"), plugins=plugins)
    async with service:
        handler = weakref.ref(service.runtime.handlers["echo"])
        (discovery,) = [each for each in plugins.manager.get_plugins() if isinstance(each, Discovery)]
        assert len(discovery.announcer._stats) == 1
    del service
    gc.collect()
    assert handler() is None
    assert len(discovery.announcer._stats) == 0
    assert not discovery.announcer._instances


def test_plugin_keeps_its_name_when_loaded() -> None:
    """The object that takes the module's place answers under the plugin's own name, in each set of plugins."""
    sets = [Plugins(BUILTIN, environment={"CLIFFRACER_PLUGINS": "discovery"}) for _ in range(2)]
    objects = [each.manager.get_plugin("discovery") for each in sets]
    assert all(isinstance(each, Discovery) for each in objects)
    assert objects[0] is not objects[1]
    assert sets[0].infos["discovery"].distribution == "cliffracer-discovery"
    assert [section.name for _, section in sets[0].ask("cliffracer_register_settings")] == ["discovery"]
