from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from cliffracer_discovery import PingResponse, discover
from pytest_cliffracer import ServiceFactory

from cliffracer_core import ClientProxy, CliffracerService, ServiceConfig, Transport, ValidationError
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.messages import Message
from cliffracer_core.testing import unique


@pytest_asyncio.fixture
async def transport() -> AsyncIterator[Transport]:
    opened = MemoryTransport(f"memory://{unique()}")
    await opened.open()
    yield opened
    await opened.close()


def ping(name: str) -> bytes:
    return msgspec.json.encode(PingResponse(name=name, id=name, version="1.0.0"))


async def answer_with(transport: Transport, *answers: Message, gap_s: float = 0.0) -> list[asyncio.Task[None]]:
    """Answer each PING with all of `answers`, with a pause after each."""
    tasks: list[asyncio.Task[None]] = []

    async def answer(reply_to: str) -> None:
        for each in answers:
            await transport.publish(Message(reply_to, each.body, each.headers))
            await asyncio.sleep(gap_s)

    def on_ping(message: Message) -> None:
        assert message.reply_to is not None
        tasks.append(asyncio.ensure_future(answer(message.reply_to)))

    await transport.subscribe("$SRV.PING", on_ping)
    return tasks


async def test_nobody_is_found_when_nobody_answers(transport: Transport) -> None:
    """The answer to silence is an empty list, after `timeout_s`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await discover(transport, "PING", timeout_s=0.1) == []
    assert loop.time() - began >= 0.1


async def test_wait_ends_when_it_stays_quiet(transport: Transport) -> None:
    """After the first answer a gap of `quiet_s` ends the wait, long before `timeout_s`."""
    await answer_with(transport, Message("", ping("a")))
    async with asyncio.timeout(10):
        assert len(await discover(transport, "PING", timeout_s=60, quiet_s=0.05)) == 1


async def test_wait_goes_on_when_answers_keep_coming(transport: Transport) -> None:
    """Answers further apart than nothing, and closer than `quiet_s`, are all collected."""
    await answer_with(transport, *(Message("", ping(name)) for name in "dcba"), gap_s=0.02)
    found = await discover(transport, "PING", timeout_s=60, quiet_s=2)
    assert [each.name for each in found] == ["a", "b", "c", "d"]


async def test_wait_ends_when_time_is_up_although_answers_keep_coming(transport: Transport) -> None:
    """An endless stream of answers does not outlast `timeout_s`."""
    tasks = await answer_with(transport, *[Message("", ping("a"))] * 100_000, gap_s=0.001)
    async with asyncio.timeout(10):
        assert await discover(transport, "PING", timeout_s=0.5, quiet_s=5)
    assert not tasks[0].done()
    tasks[0].cancel()


async def test_bad_answers_are_left_out_when_mixed_with_good(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """Rubbish, errors and answers to another verb are logged without their content; good ones are returned."""
    error = {"Nats-Service-Error": "no", "Nats-Service-Error-Code": "500"}
    other = b'{"type": "io.nats.micro.v1.info_response", "name": "b", "id": "b"}'
    await answer_with(
        transport, Message("", b"hunter2"), Message("", ping("c"), error), Message("", other), Message("", ping("a"))
    )
    assert [each.name for each in await discover(transport, "PING")] == ["a"]
    assert caplog.text.count("an answer was left out: validation_error: answer to 'PING'") == 3
    assert "hunter2" not in caplog.text


async def test_first_answer_is_enough_when_one_instance_is_asked(transport: Transport) -> None:
    """An id names one instance: nothing more is waited for."""
    held: list[asyncio.Future[None]] = []

    async def answer(message: Message) -> None:
        assert message.reply_to is not None
        await transport.publish(Message(message.reply_to, ping("a")))

    await transport.subscribe("$SRV.PING.a.a", lambda message: held.append(asyncio.ensure_future(answer(message))))
    async with asyncio.timeout(10):
        assert len(await discover(transport, "PING", name="a", id="a", timeout_s=60, quiet_s=60)) == 1


async def test_inbox_is_left_when_done(transport: MemoryTransport) -> None:
    """Nothing is listened to afterwards, not even when the question could not be asked."""
    await discover(transport, "PING", timeout_s=0.01)
    with pytest.raises(ValidationError):
        await discover(transport, "PING", prefix="no prefix", timeout_s=0.01)
    assert not transport._subscriptions


@pytest.mark.parametrize(
    ("name", "id", "timeout_s", "quiet_s"),
    [("a.b", None, 1, 1), (None, "x", 1, 1), (None, None, 0, 1), (None, None, 1, -1)],
)
async def test_argument_is_refused_when_it_is_none(
    transport: Transport, name: str | None, id: str | None, timeout_s: float, quiet_s: float
) -> None:
    """Names, ids and times are checked before anything is sent."""
    with pytest.raises(ValidationError):
        await discover(transport, name=name, id=id, timeout_s=timeout_s, quiet_s=quiet_s)


async def test_services_are_found_from_everywhere_when_asked(cliffracer_service: ServiceFactory) -> None:
    """A transport, a service's caller and a client, connected or not, all ask the same."""
    service = await cliffracer_service(CliffracerService(ServiceConfig("here")))
    proxy = ClientProxy("memory://")
    for source in (service.caller, service.caller.transport(), proxy, proxy):
        assert [each.name for each in await discover(source)] == ["here"]
    await proxy.close()
