"""Answering `$SRV` questions for one running service."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable

from cliffracer_core.errors import describe
from cliffracer_core.interfaces import Subscription, Transport
from cliffracer_core.messages import Message

from .instance import Instance
from .protocol import control_subject

__all__ = ["answering"]

logger = logging.getLogger("cliffracer.discovery")

MAX_WAITING = 1000
"""Questions that may wait to be answered; more are dropped, since whoever asks so often asks again."""


@contextlib.asynccontextmanager
async def answering(instance: Instance, transport: Transport, ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Answer while the block runs, as long as `ready()`.

    A service that has not started yet, or drains already, stays silent: nobody should find it.
    """
    questions: asyncio.Queue[tuple[str, Callable[[], bytes]]] = asyncio.Queue(MAX_WAITING)

    def on_question(make: Callable[[], bytes], message: Message) -> None:
        if message.reply_to is not None and ready() and not questions.full():
            questions.put_nowait((message.reply_to, make))

    subscriptions: list[Subscription] = []
    worker = asyncio.create_task(_answer(questions, transport))
    try:
        for verb, make in instance.answers.items():
            for name, id in ((None, None), (instance.name, None), (instance.name, instance.id)):
                subject = control_subject(verb, name, id)
                subscriptions.append(await transport.subscribe(subject, functools.partial(on_question, make)))
        yield
    finally:
        try:
            await asyncio.gather(*(each.drain() for each in subscriptions))
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)


async def _answer(questions: asyncio.Queue[tuple[str, Callable[[], bytes]]], transport: Transport) -> None:
    while True:
        reply_to, make = await questions.get()
        try:
            await transport.publish(Message(reply_to, make()))
        except Exception as error:  # one bad answer must not be the last
            logger.warning("an answer to a discovery question could not be sent: %s", describe(error))
