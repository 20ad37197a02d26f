"""One client of the Centrifuge protocol, from its first command to its last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from cliffracer_core.errors import CliffracerError, NotFoundError, ValidationError
from cliffracer_core.interfaces import Entry
from cliffracer_core.messages import AUTHORIZATION, JSON

from .calls import Arguments
from .heartbeat import Heartbeat
from .outbox import Event
from .protocol import (
    BAD_REQUEST,
    CENTRIFUGE,
    INSUFFICIENT_STATE,
    REJECT_UNRECOVERED,
    STALE,
    ChannelRequest,
    Command,
    ConnectRequest,
    Failure,
    HistoryRequest,
    PublishRequest,
    RpcRequest,
    SendRequest,
    SubscribeRequest,
    failure_of,
    publication_json,
    push,
    reply,
)
from .publication import Position, check_group, encode_data
from .rooms import EVERYONE, Member
from .socket import WebSocket

if TYPE_CHECKING:
    from .endpoint import Session
    from .sockets import Sockets

__all__ = ["ChannelClient", "channel_session"]

logger = logging.getLogger("cliffracer.websocket")

_CONNECT_S = 10.0
_SUBPROTOCOL = "centrifuge-json"
_decode = JSON.decoder(Command)

Result = Mapping[str, object]


def channel_session(sockets: Sockets, entry: Entry, path: str, arguments: Arguments) -> Session:
    """Serve the service's groups as channels; `entry` says who may subscribe."""

    async def session(websocket: WebSocket) -> None:
        websocket.on_accept = None
        offered = websocket.scope.get("subprotocols") or ()
        await websocket.accept(_SUBPROTOCOL if _SUBPROTOCOL in offered else None)
        client = ChannelClient(sockets, websocket, entry, path, arguments)
        await sockets.opened(websocket)
        try:
            await client.run()
        finally:
            client.stop()

    return session


class ChannelClient:
    """One client.

    Args:
        sockets: the service's.
        websocket: accepted.
        entry: the handler that lets clients subscribe.
        path: where it is served.
        arguments: which of those offered the handler takes.
    """

    def __init__(self, sockets: Sockets, websocket: WebSocket, entry: Entry, path: str, arguments: Arguments) -> None:
        self._sockets = sockets
        self._processor = sockets.processor
        self._websocket = websocket
        self._outbox = websocket.outbox
        self._outbox.notice = self._gap
        self._entry = entry
        self._arguments = arguments
        self._fixed = arguments.from_path(websocket.scope.get("path_params") or {})
        self._caller = sockets.caller(websocket, path)
        self._member: Member | None = None
        self._heartbeat = Heartbeat(websocket.outbox, sockets.settings)
        self._commands = {
            "subscribe": self._subscribe, "unsubscribe": self._unsubscribe, "publish": self._publish,
            "presence": self._presence, "presence_stats": self._presence_stats, "history": self._history,
            "rpc": self._rpc, "send": self._send,
        }  # fmt: skip

    async def run(self) -> None:
        """Obey commands until the socket closes. Raises WebSocketDisconnect."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                body = await self._websocket.take()
        except TimeoutError:
            await self._websocket.end(STALE, "stale: connect comes first")
            return
        while True:
            lines = [line for line in body.split(b"\n") if line and not line.isspace()]
            if not self._websocket.incoming.afford(max(0, len(lines) - 1)):
                return
            for line in lines:
                if not await self._obey(line):
                    return
            body = await self._websocket.take()

    def stop(self) -> None:
        """Forget the client."""
        self._heartbeat.stop()
        if self._lost in self._processor.on_lost:
            self._processor.on_lost.remove(self._lost)

    async def _obey(self, line: bytes) -> bool:
        """Run one command; False where the socket was closed for it."""
        try:
            command = _decode(line)
        except ValidationError as error:
            self._outbox.close(BAD_REQUEST, f"bad request: {error}")
            return False
        request = command.request()
        if request is None:
            self._heartbeat.heard()
            return True
        name, content = request
        if self._member is None:
            if name != "connect" or not command.id:
                self._outbox.close(BAD_REQUEST, "bad request: connect comes first, with an id")
                return False
            self._outbox.push(reply(command.id, "connect", self._connect(content)))
            return True
        result: Result | Failure | None
        try:
            result = await self._run(name, content)
        except Failure as failure:
            result = failure
        except CliffracerError as error:
            result = failure_of(error)
        except Exception:
            logger.exception("command %r of a client of %r failed", name, self._sockets.service)
            result = Failure(100, "internal server error", True)
        if command.id and result is not None:
            self._outbox.push(reply(command.id, name, result))
        await self._outbox.drained()
        return True

    async def _run(self, name: str, content: object) -> Result | None:
        if name == "ping":
            return {}
        run = self._commands.get(name)
        if run is None:
            raise Failure(107 if name == "connect" else 104, "bad request" if name == "connect" else "method not found")
        return await run(content)  # type: ignore[operator,no-any-return]  # each takes the request of its name

    # --- the connection -----------------------------------------------------------------------------

    def _connect(self, request: ConnectRequest) -> Result:
        if request.token:
            self._caller.headers[AUTHORIZATION] = f"Bearer {request.token}"
        self._member = self._processor.admit(self._websocket.id, self._outbox, CENTRIFUGE)
        self._processor.on_lost.append(self._lost)
        self._heartbeat.start()
        version, interval_s = self._sockets.version, self._heartbeat.interval_s
        return {"client": self._websocket.id, "version": f"cliffracer {version}", "ping": interval_s, "pong": True}

    # --- channels -----------------------------------------------------------------------------------

    async def _allowed(self, channel: str, action: str, data: msgspec.Raw) -> None:
        """Ask the handler. Raises Failure, or what the handler raises."""
        offered = {
            "channel": channel, "client": self._websocket.id, "action": action, "data": msgspec.json.decode(data),
            "websocket": self._websocket, **self._fixed,
        }  # fmt: skip
        wanted = {name: value for name, value in offered.items() if name in self._arguments.names}
        if await self._caller.call(self._entry, wanted) is not True:
            raise Failure(103, "permission denied")

    async def _subscribe(self, request: SubscribeRequest) -> Result:
        channel, member = check_group(request.channel), self._here()
        if channel in member.groups:
            raise Failure(105, "already subscribed")
        if len(member.groups) >= self._sockets.settings.max_channels:
            raise Failure(106, f"limit exceeded: {self._sockets.settings.max_channels} channels; unsubscribe from some")
        await self._allowed(channel, "subscribe", request.data)
        # from here to the join nothing waits, so that no message falls between history and what is live
        result: dict[str, object] = {}
        if self._processor.log is not None:
            position = self._processor.position()
            result |= {"recoverable": True, "positioned": True, "epoch": position.epoch, "offset": position.offset}
            if request.recover:
                missed, whole = self._processor.replay(channel, Position(request.offset, request.epoch))
                if not whole and request.flag & REJECT_UNRECOVERED:
                    raise Failure(112, "unrecoverable position")
                found = [publication_json(each) for each in missed] if whole else []
                result |= {"was_recovering": True, "recovered": whole, "publications": found}
        self._processor.join_member(member, channel)
        return result

    async def _unsubscribe(self, request: ChannelRequest) -> Result:
        self._processor.leave_member(self._here(), request.channel)
        return {}

    async def _publish(self, request: PublishRequest) -> Result:
        if "action" not in self._arguments.names:
            raise Failure(103, "permission denied")
        channel = check_group(request.channel)
        await self._allowed(channel, "publish", request.data)
        await self._processor.broadcast_to_group(channel, _one_line(request.data))
        return {}

    async def _presence(self, request: ChannelRequest) -> Result:
        found = self._processor.presence(self._joined(request.channel))
        return {"presence": {client: {"client": client, "user": user} for client, user in found.items()}}

    async def _presence_stats(self, request: ChannelRequest) -> Result:
        found = self._processor.presence(self._joined(request.channel))
        return {"num_clients": len(found), "num_users": len(set(found.values()))}

    async def _history(self, request: HistoryRequest) -> Result:
        channel = self._joined(request.channel)
        if self._processor.log is None:
            raise Failure(108, "not available")
        position = self._processor.position()
        if request.since is not None:
            found, whole = self._processor.replay(channel, Position(request.since.offset, request.since.epoch))
            if not whole:
                raise Failure(112, "unrecoverable position")
        else:
            found = list(self._processor.log.history.read(channel))
        if request.reverse:
            found = found[::-1]
        if request.limit >= 0:
            found = found[: request.limit]
        publications = [publication_json(each) for each in found]
        return {"publications": publications, "epoch": position.epoch, "offset": position.offset}

    async def _rpc(self, request: RpcRequest) -> Result:
        try:
            result = await self._processor.incoming.call(
                request.method, self._here().id, bytes(request.data), self._caller
            )
        except NotFoundError as error:
            raise Failure(104, "method not found") from error
        return {"data": msgspec.Raw(encode_data(result))}

    async def _send(self, request: SendRequest) -> Result | None:
        try:
            await self._processor.incoming.handle(self._here().id, bytes(request.data), self._caller)
        except CliffracerError as error:
            logger.debug("a message of a client of %r was not handled: %s", self._sockets.service, error)
        return None

    def _here(self) -> Member:
        assert self._member is not None  # no command gets here before `connect`
        return self._member

    def _joined(self, channel: str) -> str:
        if channel not in self._here().groups:
            raise Failure(103, "permission denied: subscribe first")
        return channel

    # --- gaps ---------------------------------------------------------------------------------------

    def _gap(self, lost: dict[str, int]) -> Iterable[Event]:
        """Unsubscribe from channels of which messages were lost: the client subscribes again, and recovers."""
        events = []
        for group, count in lost.items():
            if group == EVERYONE:
                events.append(CENTRIFUGE.message(encode_data({"type": "gap", "dropped": count})))
            elif self._member is not None and group in self._member.groups:
                events.append(self._insufficient(group))
        return events

    def _lost(self) -> None:
        for group in list(self._here().groups):
            self._outbox.push(self._insufficient(group))

    def _insufficient(self, group: str) -> Event:
        self._processor.leave_member(self._here(), group)
        self._outbox.discard(group)
        return push(group, {"unsubscribe": {"code": INSUFFICIENT_STATE, "reason": "insufficient state"}})


def _one_line(data: msgspec.Raw) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.format(bytes(data), indent=-1))
