"""`PullConsumer`: receives a stream's messages under a durable name, with a pull loop of its own.

nats-py's `fetch` asks anew for each batch and stalls after a reconnect (nats-py issue 986). Here pulls
are open for as many messages as can be started at once, so that nothing lies prefetched whose delivery
count would grow in a crash; when there is room for a quarter as many, the next pull leaves. Source: ADR-37,
"JetStream Simplification", pull requests.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cliffracer_core.errors import CliffracerError, ConfigurationError
from cliffracer_core.interfaces import DurableSubscription
from cliffracer_core.messages import Delivery, Message

from . import jetstream as js
from .delivery import JetStreamDelivery, read_ack_subject
from .headers import StatusHeaders
from .jetstream import NANOSECONDS, JetStreamError
from .streams import MESSAGE_ID, Streams, published_headers
from .wire import Listening, Wire

__all__ = ["PullConsumer", "consumer_name"]

_log = logging.getLogger("cliffracer.nats")
EXPIRES_S = 30.0
HEARTBEAT_S = 5.0
SILENCE_S = 2 * HEARTBEAT_S + 1
MAX_ACK_PENDING = 65_536
PENDING = "Nats-Pending-Messages"
"""The header that says how many messages of its batch a pull that ended did not bring."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 2.0
_DELETION_S = 0.25
"""A consumer ends before the stream it goes with is wholly deleted, and a stream made meanwhile hears nothing."""


def consumer_name(durable: str) -> str:
    """Turn `<service>.<handler>` into a consumer's name, which may hold no dot."""
    return durable.replace(".", "-")


class PullConsumer:
    """One subscriber of a durable consumer.

    Each pull answers to an inbox of its own generation. A pull given up as lost keeps no interest at the
    server, which then sends nothing for it; so at most `max_in_flight` deliveries are ever out.
    """

    def __init__(
        self,
        wire: Wire,
        streams: Streams,
        wanted: DurableSubscription,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        self._wire = wire
        self._streams = streams
        self._wanted = wanted
        self._on_delivery = on_delivery
        self._name = consumer_name(wanted.durable)
        self._label = f"consumer {self._name!r} of stream {wanted.stream!r}"
        self._out: set[JetStreamDelivery] = set()
        self._asked = 0
        """Messages that the open pulls may still bring; 0 while none is open."""
        self._refill_at = max(1, wanted.max_in_flight // 4)
        self._wait_s = wanted.ack_wait_s
        self._low = wanted.max_in_flight - self._refill_at
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{wanted.stream}.{self._name}"
        self._loop: asyncio.AbstractEventLoop
        self._inboxes: list[Listening] = []
        """The present one last; before it at most those that are being left."""
        self._inbox_subject = ""
        self._heard_at = 0.0
        self._wake = asyncio.Event()
        self._lost = ""
        """Why the open pull is taken for lost; empty while it is not."""
        self._losses = 0
        """Pulls lost in a row, without a sign of life between."""
        self._draining = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make sure that stream and consumer are there, and begin to pull.

        Raises:
            ConfigurationError: the stream does not cover the pattern, or the name belongs to another
                kind of consumer.
        """
        self._loop = asyncio.get_running_loop()
        await self._ensure()
        await self._renew_inbox()
        self._wire.connection.on_reconnect.append(self._on_reconnect)
        self._task = asyncio.create_task(self._run(), name=self._label)

    async def drain(self) -> None:
        """Stop pulling; what had arrived has been handed over when this returns.

        The inbox goes first: with it goes the open pull's interest, so the server sends nothing more for
        it. What was on its way comes before the server's PONG, fits into the free slots the pull asked
        for, and is handed over. Deliveries that are out are finished by whoever holds them.
        """
        self._draining = True
        if self._on_reconnect in self._wire.connection.on_reconnect:
            self._wire.connection.on_reconnect.remove(self._on_reconnect)
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again, if need be: nats-py swallows a cancellation in `drain` and `flush`
            await asyncio.wait({self._task}, timeout=0.2)
        for inbox in self._inboxes:
            await inbox.drain()

    # --- the consumer at the server

    async def _ensure(self) -> None:
        wanted, jetstream = self._wanted, self._streams.jetstream
        await self._streams.ensure(wanted.stream, wanted.pattern)
        config: dict[str, Any] = {
            "durable_name": self._name,
            "name": self._name,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_ack_pending": MAX_ACK_PENDING,
        }
        try:
            existing = (await jetstream.ask(f"CONSUMER.INFO.{wanted.stream}.{self._name}"))["config"]
        except JetStreamError as error:
            if error.err_code != js.CONSUMER_NOT_FOUND:
                raise
            existing = None
        ours = {"filter_subject": wanted.pattern, "ack_wait": int(wanted.ack_wait_s * NANOSECONDS), "max_deliver": -1}
        if existing is not None:
            if existing.get("deliver_subject") or existing.get("ack_policy") != "explicit":
                raise self._other_kind("it is a push consumer or does not ask for acks")
            if all(existing.get(key) == value for key, value in ours.items()):
                return
            config = {key: value for key, value in existing.items() if key != "filter_subjects"}
        try:
            await jetstream.ask(
                f"CONSUMER.DURABLE.CREATE.{wanted.stream}.{self._name}",
                {"stream_name": wanted.stream, "config": {**config, **ours}},
            )
        except JetStreamError as error:
            raise self._other_kind(str(error)) from error

    def _other_kind(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._label} cannot serve {self._wanted.durable!r}: {why}; "
            f"remove it with 'nats consumer rm {self._wanted.stream} {self._name}', or choose another durable name"
        )

    # --- the loop

    async def _run(self) -> None:
        while True:
            try:
                if self._lost:
                    await self._recover()
                await self._pull()
                await self._wait()
            except Exception as error:  # the loop must not end while the service runs
                if self._wire.connection.closed:
                    return
                if not isinstance(error, CliffracerError):
                    _log.exception("%s: failed", self._label)
                self._lost = str(error) or type(error).__name__
                self._losses += 1

    async def _wait(self) -> None:
        """Sleep until there is something to do: a slot, a status, a reconnect, or too long a silence."""
        loop = asyncio.get_running_loop()
        if self._asked:
            until = self._heard_at + SILENCE_S
        else:  # all slots are taken; the broker counts one as given back once its ack wait is over
            until = min((each.expires_at for each in self._out), default=loop.time() + SILENCE_S)
        try:
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        except TimeoutError:
            if self._asked and loop.time() >= self._heard_at + SILENCE_S:
                self._lost = f"no heartbeat for {SILENCE_S:g} s"
            self._out = {each for each in self._out if each.expires_at > loop.time()}
        self._wake.clear()

    async def _pull(self) -> None:
        message = self._refill()
        if message is not None:
            await self._wire.publish(message)

    def _has_room(self) -> bool:
        """Whether a pull is worth while: for a quarter of what may be in flight, or for anything while none is open."""
        room = self._wanted.max_in_flight - len(self._out) - self._asked
        return room >= self._refill_at or (room > 0 and self._asked == 0)

    def _refill(self) -> Message | None:
        """Return the request for as many messages as there is room for; None where that is not worth while."""
        if not self._has_room():
            return None
        if self._asked == 0:
            self._heard_at = self._loop.time()
        room = self._wanted.max_in_flight - len(self._out) - self._asked
        self._asked += room
        return Message(self._next, _pull_request(room), None, self._inbox_subject)

    async def _recover(self) -> None:
        """Give the open pull up, and ask anew once stream and consumer are known to be there."""
        _log.info("%s: pulling anew: %s", self._label, self._lost)
        if self._lost.startswith(("409", "503")):
            await asyncio.sleep(_DELETION_S)
        while True:
            if self._losses:
                pause = min(_FIRST_PAUSE_S * 2 ** min(self._losses, 10), _LAST_PAUSE_S)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            self._losses += 1
            self._lost = ""
            try:
                await self._ensure()
                await self._renew_inbox()
                return
            except ConfigurationError as error:
                _log.error("%s: %s", self._label, error)
            except CliffracerError as error:
                if self._wire.connection.closed:
                    raise
                _log.warning("%s: %s; trying again", self._label, error)

    async def _renew_inbox(self) -> None:
        self._inbox_subject = self._wire.connection.live().new_inbox()
        self._inboxes.append(await self._wire.listen_raw(self._inbox_subject, self._receive))
        self._asked = 0
        while len(self._inboxes) > 1:
            await self._inboxes[0].drain()
            self._inboxes.pop(0)

    def _on_reconnect(self) -> None:
        self._losses = 0
        self._lose("connected again")

    def _lose(self, why: str) -> None:
        self._lost = why
        self._wake.set()

    # --- what arrives

    def _receive(self, subject: bytes, reply_to: bytes | None, headers: Mapping[str, str] | None, body: bytes) -> None:
        now = self._heard_at = self._loop.time()
        if type(headers) is StatusHeaders:
            self._on_status(headers, subject.decode())
            return
        self._losses = 0
        if self._asked:
            self._asked -= 1
        shown = None if headers is None else published_headers(headers)
        message = Message(subject.decode("utf-8", "replace"), body, shown)
        try:
            ack_to = reply_to or b""
            attempt, message_id = read_ack_subject(ack_to)
            if headers is not None:
                message_id = headers.get(MESSAGE_ID, message_id)
            delivery = JetStreamDelivery(
                self._wire, message, ack_to, attempt, message_id, now + self._wait_s, self._wait_s, self._ended
            )
            self._out.add(delivery)
            self._on_delivery(delivery)
        except Exception:
            _log.exception("%s: a delivery could not be handed over", self._label)
        if self._asked <= self._low and not self._draining and not self._lost:
            self._refill_now()
            if self._asked == 0:  # the loop must watch what is out
                self._wake.set()

    def _refill_now(self) -> None:
        """Ask for more behind the acks of what was handled; the loop does it where nothing can be sent at once."""
        if not self._wire.connection.live().ready:
            self._wake.set()
        elif (message := self._refill()) is not None:
            full = self._wire.put(message)
            if full is not None:
                full.close()  # it is in the buffer, which is all that matters here

    def _on_status(self, headers: Mapping[str, str], subject: str) -> None:
        status, description = headers["Status"], headers.get("Description", "")
        if subject != self._inbox_subject:  # word of a pull given up
            return
        if status in ("100", "408"):
            self._losses = 0
        if status == "100":  # a heartbeat
            return
        if status in ("404", "408") or description.startswith("Batch Completed"):
            left = headers.get(PENDING, "")
            self._asked = max(0, self._asked - int(left)) if left.isdigit() else 0
            self._wake.set()
            return
        if "Consumer Deleted" in description or status == "503":
            _log.warning("%s: is gone (%s %s); making it again", self._label, status, description)
        self._lose(f"{status} {description}".strip())

    def _ended(self, delivery: JetStreamDelivery) -> None:
        self._out.discard(delivery)
        room = self._wanted.max_in_flight - len(self._out) - self._asked
        if room >= self._refill_at or self._asked == 0:  # `_has_room()`, for each message
            self._wake.set()


@functools.lru_cache
def _pull_request(batch: int) -> bytes:
    expires, heartbeat = int(EXPIRES_S * NANOSECONDS), int(HEARTBEAT_S * NANOSECONDS)
    return msgspec.json.encode({"batch": batch, "expires": expires, "idle_heartbeat": heartbeat})
