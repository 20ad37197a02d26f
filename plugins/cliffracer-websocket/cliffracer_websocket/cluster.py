"""`Cluster`: one processor at all replicas of its service, over the transport's fan-out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from cliffracer_core.errors import CliffracerError, ConnectionError, MessageTooLarge
from cliffracer_core.interfaces import Subscription, Transport
from cliffracer_core.messages import Message

from .envelopes import Ask, Beat, Bye, Changes, Envelope, Post, State, pack, unpack
from .presence import Presence
from .rooms import EVERYONE, Rooms

__all__ = ["Cluster"]

logger = logging.getLogger("cliffracer.websocket")

_BEATS_TO_EXPIRE = 3


class Cluster:
    """Tell the other replicas, and hear them.

    Args:
        rooms: the sockets here.
        transport: an open one that fans out.
        subject: where the replicas meet.
        id: this replica.
        beat_s: seconds between two signs of life.
        on_post: hears what another replica posted.
    """

    def __init__(
        self, rooms: Rooms, transport: Transport, subject: str, id: str, beat_s: float, on_post: Callable[[Post], None]
    ) -> None:
        self.id = id
        self.presence = Presence(_BEATS_TO_EXPIRE * beat_s)
        self._rooms = rooms
        self._transport = transport
        self._subject = subject
        self._beat_s = beat_s
        self._on_post = on_post
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._revision = 0
        self._joined: dict[tuple[str, str], str] = {}
        self._left: dict[tuple[str, str], None] = {}
        self._asked = False
        self._wanted: str | None = None

    async def open(self) -> None:
        """Meet the others.

        Raises:
            ConnectionError: the transport is closed.
        """
        self._subscription = await self._transport.subscribe(self._subject, self._heard)
        await self._send(Ask(self.id))
        self._asked = True
        self._wake.set()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Say good-bye, and hear no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        with suppress(CliffracerError):
            await self._send(Bye(self.id))
        if self._subscription is not None:
            await self._subscription.drain()
            self._subscription = None

    @property
    def leads(self) -> bool:
        """Whether this replica is the one that tidies up for all."""
        return self.id <= min(self.presence.replicas, default=self.id)

    async def post(self, to: str, name: str, data: bytes, key: str | None) -> None:
        """Hand a message to the other replicas.

        Raises:
            MessageTooLarge: the transport does not carry it.
            ConnectionError: closed, or disconnected for so long that its buffer is full.
        """
        await self._send(Post(self.id, to, name, data, key))

    def joined(self, group: str, client: str, user: str) -> None:
        """Note that a socket came into a group."""
        self._left.pop((group, client), None)
        self._joined[group, client] = user
        self._wake.set()

    def left(self, group: str, client: str) -> None:
        """Note that a socket left a group."""
        self._joined.pop((group, client), None)
        self._left[group, client] = None
        self._wake.set()

    def _heard(self, message: Message) -> None:
        envelope = unpack(message.body)
        if envelope is None:
            logger.warning("a message on %r is none of a replica; publish nothing there", self._subject)
        elif envelope.origin != self.id:
            self._handle(envelope)

    def _handle(self, envelope: Envelope) -> None:
        origin, known = envelope.origin, True
        if isinstance(envelope, Post):
            self._on_post(envelope)
        elif isinstance(envelope, Changes):
            known = self.presence.change(envelope)
        elif isinstance(envelope, State):
            self.presence.replace(envelope)
        elif isinstance(envelope, Beat):
            known = self.presence.heard(origin, envelope.revision)
        elif isinstance(envelope, Bye):
            self.presence.remove(origin)
        elif isinstance(envelope, Ask) and envelope.whom in ("", self.id):
            self._asked = True
            self._wake.set()
        if not known:
            self._wanted = origin
            self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + self._beat_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_beat):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._tell()
                if loop.time() >= next_beat:
                    next_beat = loop.time() + self._beat_s
                    self.presence.expire()
                    await self._send(Beat(self.id, self._revision))
            except MessageTooLarge as error:
                logger.warning(
                    "presence of %d sockets is not told to other replicas: %s", len(self._rooms.members), error
                )
            except ConnectionError:
                next_beat = loop.time() + self._beat_s  # told again with the next beat's revision
                self._asked = True

    async def _tell(self) -> None:
        if self._wanted is not None:
            whom, self._wanted = self._wanted, None
            await self._send(Ask(self.id, whom))
        joined, left = self._joined, self._left
        if not (self._asked or joined or left):
            return
        self._joined, self._left = {}, {}
        self._revision += 1
        if self._asked:
            self._asked = False
            rooms = {group: self._rooms.users(group) for group in (EVERYONE, *self._rooms.groups())}
            await self._send(State(self.id, self._revision, rooms))
        else:
            news = [(group, client, user) for (group, client), user in joined.items()]
            await self._send(Changes(self.id, self._revision, news, list(left)))

    async def _send(self, envelope: Envelope) -> None:
        await self._transport.publish(Message(self._subject, pack(envelope)))
