"""`Sockets`: what one running service has of sockets: its processors, endpoints and open connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from cliffracer_http.servers.choice import make_server
from cliffracer_http.settings import settings_of as http_of

from cliffracer_core.errors import ConfigurationError, describe
from cliffracer_core.handlers import Bridge, Declaration
from cliffracer_core.interfaces import Entry, SocketLimits, Wiring

from .absence import Absence
from .admission import Admission
from .calls import Arguments, Caller
from .channels import channel_session
from .codes import GOING_AWAY, NORMAL
from .endpoint import Endpoint, Session, per_message, per_socket
from .marks import CHANNELS, HOOKS, OWNER, SOCKET, SocketOptions, path_names
from .ownport import OwnPort
from .processor import RealTimeStreamProcessor
from .publication import PLAIN
from .settings import settings_of
from .socket import WebSocket

__all__ = ["Sockets"]

logger = logging.getLogger("cliffracer.websocket")

_LEAVE_S = 1.0
_FAREWELL = (GOING_AWAY, "the service stops; connect again and resume where you were")
_GRACE = 0.3
"""Of the grace time, what a stop waits for messages that are handled; the HTTP server needs its own share."""
_OUT_S = 0.1
"""What handlers take to end once they are cancelled."""


class Sockets:
    """The sockets of one running service.

    Args:
        wiring: the service.

    Raises:
        ConfigurationError: the transport that is set does not exist.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.service = wiring.service.name
        self.version = wiring.service.version
        self.settings = settings_of(wiring.service)
        self.admission = Admission(self.settings)
        self.absence = Absence(wiring.timeout_s, self._release)
        self.started = asyncio.Event()
        settings = self.settings
        self.server_limits = SocketLimits(
            max_message_bytes=settings.max_message_bytes, ping_interval_s=settings.ping_interval_s,
            ping_timeout_s=settings.ping_timeout_s, compression=settings.compression,
        )  # fmt: skip
        self.closes_waiting = make_server(http_of(wiring.service).server).capabilities.socket_close
        self.own: OwnPort | None = None
        """What listens, where the sockets have a port of their own."""
        if settings.port is not None:
            self.own = OwnPort(http_of(wiring.service), settings.host, settings.port, self.server_limits)
        self.entries: dict[str, Entry] = {}
        self._settling = False
        self.connections: set[WebSocket] = set()
        self._wiring = wiring
        self._arguments: dict[str, Arguments] = {}
        self.processors = {
            name: each for name, each in wiring.providers.items() if isinstance(each, RealTimeStreamProcessor)
        }
        if not self.processors:
            self.processors["sockets"] = RealTimeStreamProcessor().bind(wiring.service, "sockets")
        self.processor = next(iter(self.processors.values()))
        """The service's own: broadcasts and bridges go to it; the first on the class, else a built-in one."""
        if self.settings.transport not in wiring.transports:
            raise ConfigurationError(
                f"setting 'websocket.transport' is {self.settings.transport!r}; "
                f"configured are {sorted(wiring.transports)}"
            )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Span the replicas while the block runs.

        Raises:
            ConfigurationError, ConnectionError: as `RealTimeStreamProcessor.attach`.
        """
        transport = self._wiring.transports[self.settings.transport]
        self._check_handlers()
        async with contextlib.AsyncExitStack() as stack:
            for name, processor in self.processors.items():
                processor.incoming.serve(name, self._wiring.adopt)
                await processor.open()
                stack.push_async_callback(processor.close)
                await processor.attach(self.service, transport)
            if self.own is not None:
                routes = [each for declaration in self._wiring.declarations for each in self.endpoints(declaration)]
                await self.own.start(routes)
                stack.push_async_callback(self.own.stop)
            yield

    def own_url(self) -> str:
        """Return where the sockets are reached. Raises ConfigurationError where that is the HTTP server's port."""
        if self.own is None:
            raise ConfigurationError(f"service {self.service!r} serves sockets on its HTTP port; see service.http.url")
        return self.own.url

    def _check_handlers(self) -> None:
        for declaration in self._wiring.declarations:
            for mark in declaration.find(OWNER):
                if isinstance(mark.options, Bridge):
                    continue
                options = mark.options
                names = path_names(options.path) if isinstance(options, SocketOptions) else []
                signature = self._wiring.signatures[declaration.name]
                self._arguments[declaration.name] = Arguments(declaration, signature, names)

    def endpoints(self, declaration: Declaration) -> list[tuple[str, Endpoint]]:
        """Return path and application of each route of a handler."""
        found: list[tuple[str, Endpoint]] = []
        for mark in declaration.find(OWNER):
            if isinstance(mark.options, SocketOptions):
                path = mark.options.path
                made = self._declared if mark.kind == SOCKET else self._channels
                found.append((path, Endpoint(self, lambda made=made, path=path: made(declaration, path))))  # type: ignore[misc]  # bound early
            elif mark.kind in HOOKS and mark.kind == self._default_hook():
                found.append((self.settings.path, Endpoint(self, self._default)))
        return found

    def _default_hook(self) -> str | None:
        """Name the method that brings the default path: none where all a service has are routes of its own."""
        kinds = {mark.kind for declaration in self._wiring.declarations for mark in declaration.find(OWNER)}
        for kind in ("websocket_handler", "on_websocket_message"):
            if kind in kinds:
                return kind
        routed = kinds & {SOCKET, CHANNELS}
        return None if routed else next((kind for kind in HOOKS if kind in kinds), None)

    def _declared(self, declaration: Declaration, path: str) -> Session:
        entry, arguments = self.entries[declaration.name], self._arguments[declaration.name]
        injected = self._wiring.signatures[declaration.name].injected
        if arguments.wants_socket or any(issubclass(each, WebSocket.__mro__[1]) for each in injected.values()):
            return per_socket(self, entry, path, arguments)
        return per_message(self, entry, path, arguments)

    def _channels(self, declaration: Declaration, path: str) -> Session:
        return channel_session(self, self.entries[declaration.name], path, self._arguments[declaration.name])

    def _default(self) -> Session:
        path = self.settings.path
        handler = self.entries.get("websocket_handler")
        if handler is not None:
            return per_socket(self, handler, path, self._arguments["websocket_handler"])
        hook = self.entries.get("on_websocket_message")
        if hook is not None:
            return per_message(self, hook, path, self._arguments["on_websocket_message"])
        return _listen

    async def accepted(self, websocket: WebSocket) -> None:
        """Take a socket in that was just accepted: broadcasts reach it."""
        self.processor.admit(websocket.id, websocket.outbox, PLAIN)
        await self.opened(websocket)

    async def opened(self, websocket: WebSocket) -> None:
        """Note an open socket, and tell the handler that wants to know. Raises what that raises."""
        self.connections.add(websocket)
        await self.tell("on_websocket_connect", websocket)

    async def closed(self, websocket: WebSocket) -> None:
        """Forget a socket, and tell the handler that wants to know."""
        known = websocket in self.connections
        self.connections.discard(websocket)
        websocket.working = False
        websocket.incoming.stop(NORMAL, "")
        self._release(websocket)
        if known:
            try:
                await self.tell("on_websocket_disconnect", websocket)
            except Exception as error:
                logger.error("on_websocket_disconnect of %r failed: %s", self.service, describe(error))

    def _release(self, websocket: WebSocket) -> None:
        for processor, client_id in (*websocket.joined.items(), (self.processor, websocket.id)):
            processor.release(client_id, websocket.outbox)

    def caller(self, websocket: WebSocket, path: str) -> Caller:
        """Make what calls handlers for a socket."""
        return Caller(websocket, path, self._wiring.timeout_s)

    async def tell(self, hook: str, websocket: WebSocket) -> None:
        """Call one of the handlers that have their names for marks, where the service has it."""
        entry = self.entries.get(hook)
        if entry is None:
            return
        arguments: dict[str, object] = {"websocket": websocket} if self._arguments[hook].wants_socket else {}
        await self.caller(websocket, self.settings.path).call(entry, arguments)

    def drain(self) -> None:
        """Open no more sockets, and close those there are: clients connect to another replica and resume.

        One whose message is handled just now closes after the answer.
        """
        self.admission.draining = True
        self.started.set()
        for websocket in list(self.connections):
            if websocket.working:
                websocket.farewell = _FAREWELL
            else:
                websocket.outbox.close(*_FAREWELL)
        if self.connections:
            asyncio.get_running_loop().call_later(_LEAVE_S, self._leave)

    async def settle(self) -> None:
        """Wait, within bounds, for messages that are handled, and for handlers to hear that their socket is closed.

        Each of the service's handlers asks for it; once is enough.
        """
        if self._settling:
            return
        self._settling = True
        self.drain()
        if not await self._until(lambda each: not each.working, _GRACE * self._wiring.grace_s):
            for each in list(self.connections):
                each.outbox.close(*_FAREWELL)
        await self._until(lambda each: False, _LEAVE_S + _OUT_S)  # none is left, or those are that heed nothing

    async def _until(self, condition: Callable[[WebSocket], bool], timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not all(map(condition, self.connections)):
            if loop.time() >= end:
                return False
            await asyncio.sleep(0.01)
        return True

    def _leave(self) -> None:
        """End the handlers that do not heed that their socket is closed."""
        for websocket in list(self.connections):
            if not websocket.working:
                websocket.leave()


async def _listen(websocket: WebSocket) -> None:
    """Send broadcasts to a socket, and ignore what it says."""
    while True:
        await websocket.receive_body()
