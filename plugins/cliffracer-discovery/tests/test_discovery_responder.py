from __future__ import annotations

import asyncio

import pytest
from cliffracer_discovery.instance import Instance
from cliffracer_discovery.responder import MAX_WAITING, answering

from cliffracer_core import NoHandler, ServiceInfo
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.messages import Message
from cliffracer_core.testing import unique


async def test_nothing_is_left_when_answering_ends() -> None:
    """After the block nobody listens on any of the subjects, and no task is left."""
    transport = MemoryTransport(f"memory://{unique()}")
    await transport.open()
    instance = Instance(ServiceInfo(name="a", version="1.0.0", id="1"), [], window=10, max_payload=None)
    tasks = asyncio.all_tasks()
    async with answering(instance, transport, lambda: True):
        assert (await transport.request(Message("$SRV.PING.a.1"), 5)).body == instance.answers["PING"]()
    assert asyncio.all_tasks() == tasks
    for verb in ("PING", "INFO", "STATS"):
        for subject in (f"$SRV.{verb}", f"$SRV.{verb}.a", f"$SRV.{verb}.a.1"):
            with pytest.raises(NoHandler):
                await transport.request(Message(subject), 5)
    await transport.close()


async def test_questions_are_dropped_when_too_many_wait() -> None:
    """A flood of questions takes no more than its room; the service answers as many, and goes on."""
    transport = MemoryTransport(f"memory://{unique()}")
    await transport.open()
    instance = Instance(ServiceInfo(name="a", version="1.0.0", id="1"), [], window=10, max_payload=None)
    answers: list[Message] = []
    subscription = await transport.subscribe("_INBOX.flood", answers.append)
    async with answering(instance, transport, lambda: True):
        for _ in range(MAX_WAITING + 500):
            await transport.publish(Message("$SRV.PING", reply_to="_INBOX.flood"))
        while len(answers) < MAX_WAITING:
            await asyncio.sleep(0)
        await transport.request(Message("$SRV.PING"), 5)
        await subscription.drain()
    assert len(answers) == MAX_WAITING
    await transport.close()
