"""A consumer is ended by `kill -9` in each of its attempts at one message."""

from __future__ import annotations

import signal
from collections.abc import Callable

import msgspec
from cliffracer_nats import EmbeddedNats

from cliffracer_core import ClientProxy
from cliffracer_core.deadletters import DEAD, dlq_stream
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.messages import ORIGINAL_MESSAGE_ID, Message
from cliffracer_core.testing import eventually

from .conftest import Start
from .records import Records
from .workers.printer import RETRIES, Document

FOR_EVER_S = 3600.0
BYSTANDERS = 20


async def dead_letters(proxy: ClientProxy) -> list[Message]:
    """Return what lies in the printer's dead-letter stream."""
    transport = proxy.caller.transport()
    assert isinstance(transport, DurableTransport)
    return [each.message async for each in transport.browse(dlq_stream("printer"))]


async def test_a_message_whose_consumer_dies_each_time_becomes_a_dead_letter(
    nats: EmbeddedNats, proxy: ClientProxy, start: Start, records: Records, report: Callable[[str], None]
) -> None:
    """Attempts that end with their process are counted; past the last the message lies in the dead-letter stream."""

    async def send(document: Document) -> None:
        await proxy.caller.publish("document.sent", document, durable=True, message_id=document.title)

    [printer] = await start("printer", nats.url)
    deadly = Document("deadly", FOR_EVER_S)
    await send(deadly)
    for attempt in range(1, RETRIES + 2):
        await eventually(lambda: records.times("print", "began")["deadly"] == attempt, 30)  # noqa: B023  # awaited here
        for number in range(BYSTANDERS):
            await send(Document(f"{attempt}.{number}"))
        assert await dead_letters(proxy) == []
        printer.kill()
        assert await printer.ended() == -signal.SIGKILL
        [printer] = await start("printer", nats.url)

    await eventually(lambda: dead_letters(proxy), 30)
    [letter] = await dead_letters(proxy)
    assert msgspec.json.decode(letter.body, type=Document) == deadly
    headers = dict(letter.headers or {})
    assert headers[DEAD + "Cause"].startswith("attempts_exhausted: ")
    assert headers[DEAD + "Attempts"] == str(RETRIES + 1)
    assert headers[DEAD + "Handler"] == "print_document"
    assert headers[DEAD + "Subject"] == "document.sent"
    assert headers[ORIGINAL_MESSAGE_ID] == "deadly"
    began = [each for each in records.entries("print", "began") if each.id == "deadly"]
    assert [each.attempt for each in began] == list(range(1, RETRIES + 2))
    assert len({each.pid for each in began}) == RETRIES + 1
    others = {f"{attempt}.{number}" for attempt in range(1, RETRIES + 2) for number in range(BYSTANDERS)}
    await eventually(lambda: others <= set(records.times("print", "done")), 30)
    report(f"{RETRIES + 1} processes died over it, then a dead letter; {len(others)} others all handled")
