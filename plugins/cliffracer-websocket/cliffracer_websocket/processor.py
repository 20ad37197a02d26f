"""`RealTimeStreamProcessor`: clients, groups and what is sent to them, at all replicas of a service."""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import msgspec

from cliffracer_core.errors import CliffracerError, ConfigurationError, NotFoundError
from cliffracer_core.interfaces import ServiceInfo, Transport

from .answers import body_of, send_error, send_result
from .codes import POLICY_VIOLATION
from .envelopes import Post
from .faces import Receiver, Socket, accept
from .history import History
from .incoming import Incoming
from .log import Log, MemoryLog
from .outbox import Outbox, OutboxLimits, Policy
from .publication import PLAIN, Encoding, Position, Publication, check_group, encode_data
from .replicas import Replicas
from .rooms import EVERYONE, Member, Rooms
from .settings import WebSocketSettings, settings_of
from .stalls import Sweep

__all__ = ["RealTimeStreamProcessor"]


class RealTimeStreamProcessor:
    """Clients and groups.

    As a class attribute of a service it spans all its replicas; made by itself it is this process's alone.
    What is None is taken from the service's section `websocket`.

    Args:
        policy: what happens to a client that reads too slowly: `drop_oldest`, `conflate` or `disconnect`.
        queue_messages: what may wait for one client.
        history_size: messages kept of each group; 0 keeps none.
        history_ttl_s: for how long, in seconds.
        history: `auto`, `memory` or `stream`.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        queue_messages: int | None = None,
        history_size: int | None = None,
        history_ttl_s: float | None = None,
        history: str | None = None,
    ) -> None:
        given = {
            "policy": policy, "queue_messages": queue_messages, "history_size": history_size,
            "history_ttl_s": history_ttl_s, "history": history,
        }  # fmt: skip
        self._given = {name: value for name, value in given.items() if value is not None}
        self.incoming = Incoming()
        self._configure(WebSocketSettings(), "")

    def _configure(self, settings: WebSocketSettings, name: str) -> None:
        try:
            merged = {**msgspec.structs.asdict(settings), **self._given}
            self.settings = settings = msgspec.convert(merged, WebSocketSettings)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"RealTimeStreamProcessor {name!r}: {error}; correct the argument") from None
        self.name = name
        self.id = uuid.uuid4().hex
        self.rooms = Rooms()
        self.stalled: set[Outbox] = set()
        self.limits = OutboxLimits(policy=settings.policy, messages=settings.queue_messages, bytes=settings.queue_bytes)
        self.log: Log | None = None
        if settings.history_size:
            self.log = MemoryLog(History(settings.history_size, settings.history_ttl_s), self.rooms.deliver)
        self.on_lost: list[Callable[[], None]] = []
        """Called where publications may have been lost unseen."""
        self._replicas = Replicas(name, self.id, settings, self.rooms, self._posted, self._lost)
        self._sweep = Sweep(self.stalled, settings.stall_timeout_s, self._expire)

    # --- a provider ---------------------------------------------------------------------------------

    def bind(self, service: ServiceInfo, name: str) -> Self:
        """Return a copy for one service instance, with that service's settings."""
        bound = copy.copy(self)
        bound.incoming = self.incoming.copy()
        bound._configure(settings_of(service), name)
        return bound

    async def open(self) -> None:
        """Begin to look after clients that do not read."""
        self._sweep.start()

    async def close(self) -> None:
        """Leave the other replicas and forget all clients."""
        await self.detach()
        await self._sweep.stop()
        for id in list(self.rooms.members):
            member = self.rooms.remove(id)
            if member is not None:
                member.outbox.forget()

    async def attach(self, service: str, transport: Transport) -> None:
        """Meet the processors of this name at the service's other replicas; `open` comes before.

        Raises:
            ConfigurationError: the transport lacks fan-out, or cannot store what `history='stream'` wants stored.
            ConnectionError: the transport is closed.
        """
        await self._replicas.join(service, transport)
        if self._replicas.stream is not None:
            self.log = self._replicas.stream

    async def detach(self) -> None:
        """Leave the other replicas."""
        await self._replicas.leave()

    # --- clients ------------------------------------------------------------------------------------

    async def add_connection(
        self, client_id: str, websocket: Socket, groups: Iterable[str] = (), *, user: str = ""
    ) -> None:
        """Take a socket in, accepted or not, and put it into groups.

        A socket that this id had before is closed with 1008: the newer one is the one that lives.

        Args:
            client_id: unique at all replicas.
            websocket: this plugin's WebSocket, or Starlette's.
            groups: names of groups.
            user: who it belongs to, for `presence`.

        Raises:
            ValidationError: an id or a group that is no name.
        """
        names = [check_group(group) for group in groups]
        check_group(client_id)
        await accept(websocket)
        outbox = getattr(websocket, "outbox", None)
        if not isinstance(outbox, Outbox):
            outbox = Outbox(websocket.send, self.limits, PLAIN.notice, self.stalled)
            await self.open()
        else:
            joined = websocket.joined  # type: ignore[attr-defined]  # it is this plugin's
            for id in (websocket.id, joined.get(self, client_id)):  # type: ignore[attr-defined]  # likewise
                self.release(id, outbox)
            joined[self] = client_id
        member = self.admit(client_id, outbox, PLAIN, user)
        for group in names:
            self.join_member(member, group)

    def admit(self, client_id: str, outbox: Outbox, encoding: Encoding, user: str = "") -> Member:
        """Take a client in by its way out; the client that had this id is closed."""
        old = self._remove(client_id)
        if old is not None and old.outbox is not outbox:
            old.outbox.close(POLICY_VIOLATION, "this client connected again")
        member = Member(client_id, outbox, encoding, user)
        self.rooms.add(member)
        self._replicas.joined(EVERYONE, member)
        return member

    async def remove_connection(self, client_id: str) -> None:
        """Take a client out of all groups; its socket stays open. Nothing happens where there is none."""
        self._remove(client_id)

    def _remove(self, client_id: str) -> Member | None:
        member = self.rooms.remove(client_id)
        if member is not None:
            for group in (EVERYONE, *member.groups):
                self._replicas.left(group, client_id)
        return member

    def release(self, client_id: str, outbox: Outbox) -> None:
        """Take a client out if it still has this way out: its socket has closed."""
        member = self.rooms.members.get(client_id)
        if member is not None and member.outbox is outbox:
            self._remove(client_id)

    async def join(self, client_id: str, group: str) -> None:
        """Put a client of this process into a group.

        Raises:
            NotFoundError: it is not connected here.
            ValidationError: the group's name is none.
        """
        self.join_member(self._member(client_id), check_group(group))

    async def leave(self, client_id: str, group: str) -> None:
        """Take a client of this process out of a group. Raises NotFoundError."""
        self.leave_member(self._member(client_id), group)

    def join_member(self, member: Member, group: str) -> None:
        """Put a member into a group."""
        if self.rooms.join(member, group):
            self._replicas.joined(group, member)

    def leave_member(self, member: Member, group: str) -> None:
        """Take a member out of a group."""
        if self.rooms.leave(member, group):
            self._replicas.left(group, member.id)

    def _member(self, client_id: str) -> Member:
        member = self.rooms.members.get(client_id)
        if member is None:
            raise NotFoundError(f"client {client_id!r} is not connected here; add_connection comes first")
        return member

    def presence(self, group: str | None = None) -> Mapping[str, str]:
        """Return client id and user of each client of a group, or of all, at every replica."""
        name = EVERYONE if group is None else group
        return {**self._replicas.users(name), **self.rooms.users(name)}

    # --- messages -----------------------------------------------------------------------------------

    async def send_to_client(self, client_id: str, message: object, *, key: str | None = None) -> bool:
        """Send a message to one client, wherever it is connected.

        Returns:
            False where no replica is known to have it; nothing was sent.

        Raises:
            EncodingError: the message has no JSON.
            ConnectionError: another replica has it, and cannot be reached.
        """
        data = encode_data(message)
        if self.rooms.deliver_to(client_id, data, key):
            return True
        if client_id not in self._replicas.users():
            return False
        await self._replicas.post("client", client_id, data, key)
        return True

    async def broadcast_to_group(self, group: str, message: object, *, key: str | None = None) -> None:
        """Send a message to all of a group, at every replica; with history, keep it.

        Args:
            group: its name.
            message: anything JSON can carry; encoded once.
            key: with the policy `conflate`, it takes the place of a waiting message of this key.

        Raises:
            ValidationError: the group's name is none.
            EncodingError: the message has no JSON.
            NotStored: the history's stream did not confirm it; a retry helps, and may send it twice.
            ConnectionError: sent here, but not to other replicas.
        """
        check_group(group)
        data = encode_data(message)
        if self.log is None:
            self.rooms.deliver(Publication(group, data, 0, key))
        else:
            await self.log.append(group, data, key)
        if self._replicas.stream is None:
            await self._replicas.post("group", group, data, key)

    async def broadcast_all(self, message: object, *, key: str | None = None) -> None:
        """Send a message to all clients at every replica; errors as `broadcast_to_group`."""
        data = encode_data(message)
        self.rooms.deliver_to_all(data, key)
        await self._replicas.post("all", "", data, key)

    def register_processor(self, type: str, handler: Callable[..., Any]) -> None:
        """Handle clients' messages whose `type` is this; what `handler` returns is sent back, unless it is None.

        The message is decoded into the type its first parameter is annotated with; `client_id` is given where
        the handler has a parameter of that name. In a service it is a handler as others are: the same middleware,
        deadline and limit, injected parameters, a thread where it is not async. One registered before is replaced.

        Raises:
            ConfigurationError: the handler takes something else.
        """
        self.incoming.register(type, handler)

    async def listen(self, client_id: str, websocket: Receiver) -> None:
        """Hand a client's messages to the functions registered for them until it goes, and remove it then.

        For sockets that no service has: in a service, those it serves are listened to.

        Args:
            client_id: as it was given to `add_connection`.
            websocket: likewise.

        Raises:
            NotFoundError: it is not connected here.
            Exception: what a function raised that is no error of the framework's.
        """
        outbox = self._member(client_id).outbox
        try:
            while (message := await websocket.receive())["type"] != "websocket.disconnect":
                body = body_of(message)
                try:
                    send_result(outbox, await self.incoming.handle(client_id, body))
                except CliffracerError as error:
                    send_error(outbox, body, error, self.name)
        finally:
            self.release(client_id, outbox)

    def position(self) -> Position:
        """Return where history stands. Raises ConfigurationError where none is kept."""
        log = self._kept()
        return Position(log.history.last, log.epoch)

    def replay(self, group: str, since: Position) -> tuple[list[Publication], bool]:
        """Return what a group was sent since a position, and whether that is all of it.

        Raises:
            ConfigurationError: no history is kept.
        """
        log = self._kept()
        if since.epoch != log.epoch:
            return [], False
        return log.history.since(group, since.offset)

    def _kept(self) -> Log:
        if self.log is None:
            raise ConfigurationError(f"processor {self.name!r} keeps no history; set history_size above 0")
        return self.log

    def _posted(self, post: Post) -> None:
        if post.to == "client":
            self.rooms.deliver_to(post.name, post.data, post.key)
        elif post.to == "all":
            self.rooms.deliver_to_all(post.data, post.key)
        elif isinstance(self.log, MemoryLog):
            self.log.take(post.name, post.data, post.key)
        else:
            self.rooms.deliver(Publication(post.name, post.data, 0, post.key))

    def _lost(self) -> None:
        for each in list(self.on_lost):
            each()

    def _expire(self) -> None:
        if isinstance(self.log, MemoryLog):
            self.log.history.expire(time.time())
