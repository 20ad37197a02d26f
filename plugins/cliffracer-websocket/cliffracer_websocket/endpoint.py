"""`Endpoint`: the ASGI application behind one path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from cliffracer_http.handshakes import deny
from starlette.websockets import WebSocketDisconnect

from cliffracer_core.errors import CliffracerError, describe
from cliffracer_core.interfaces import Entry

from .admission import Refused
from .answers import send_error, send_result
from .calls import Arguments
from .codes import INTERNAL_ERROR, NORMAL, code_for
from .socket import WebSocket

if TYPE_CHECKING:
    from .sockets import Sockets

__all__ = ["Endpoint", "Session", "per_message", "per_socket"]

logger = logging.getLogger("cliffracer.websocket")

Session = Callable[[WebSocket], Awaitable[None]]
"""What is done with a socket from its handshake until it is closed."""


class Endpoint:
    """Open sockets on one path, within the service's limits.

    Args:
        sockets: the service's.
        session: asked for once the service has started.
    """

    def __init__(self, sockets: Sockets, session: Callable[[], Session]) -> None:
        self._sockets = sockets
        self._make = session
        self._session: Session | None = None

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]], values: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Serve one handshake and its socket; `values` stand in the path."""
        sockets = self._sockets
        scope["path_params"] = values
        try:
            sockets.admission.enter(scope)
        except Refused as refused:
            await deny(scope, receive, send, refused.status, refused.reason)
            return
        try:
            await sockets.started.wait()
            if self._session is None:
                self._session = self._make()
            websocket = WebSocket(
                scope, receive, send, sockets.settings, sockets.processor, sockets.accepted,
                closes_waiting=sockets.closes_waiting,
            )  # fmt: skip
            await self._run(websocket, self._session)
        finally:
            sockets.admission.leave(scope)

    async def _run(self, websocket: WebSocket, session: Session) -> None:
        try:
            await session(websocket)
            await websocket.end(NORMAL)
        except WebSocketDisconnect:
            await websocket.end()  # a close frame of ours may still be on its way
        except CliffracerError as error:
            await _end(websocket, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not websocket.aborted or task is None:
                raise
            task.uncancel()
        except Exception:
            logger.exception("a websocket handler of %r failed", self._sockets.service)
            await _end(websocket, None)
        finally:
            await self._sockets.closed(websocket)


async def _end(websocket: WebSocket, error: CliffracerError | None) -> None:
    """Close a socket for an error, or refuse it where it is not accepted yet."""
    status, reason = (500, "internal error") if error is None else (error.status, describe(error))
    if websocket.application_state.name == "CONNECTING":
        await websocket.refuse(status, reason)
    else:
        code = INTERNAL_ERROR if error is None else code_for(status, error.retryable)
        await websocket.end(code, "internal error" if code == INTERNAL_ERROR else reason)


def per_socket(sockets: Sockets, entry: Entry, path: str, arguments: Arguments) -> Session:
    """Run the handler once, as long as the socket; one that it gave to a processor stays when it is done."""

    async def session(websocket: WebSocket) -> None:
        values = arguments.from_path(websocket.scope.get("path_params") or {})
        if arguments.wants_socket:
            values["websocket"] = websocket
        sockets.absence.begin(websocket)
        try:
            await sockets.caller(websocket, path).attend(entry, values)
        finally:
            sockets.absence.end(websocket)
        if websocket.joined and websocket.open:
            await _keep(sockets, websocket, path)

    return session


def per_message(sockets: Sockets, entry: Entry, path: str, arguments: Arguments) -> Session:
    """Run the handler for each message, one after the other; what it returns is sent back."""

    async def session(websocket: WebSocket) -> None:
        fixed = arguments.from_path(websocket.scope.get("path_params") or {})
        caller = None
        if arguments.wants_socket:
            fixed["websocket"] = websocket
        while True:
            body = await websocket.take()
            try:
                if caller is None:  # likewise
                    caller = sockets.caller(websocket, path)
                values = {**arguments.from_message(body), **fixed}
                result = await caller.call(entry, values)
            except CliffracerError as error:
                send_error(websocket.outbox, body, error, sockets.service)
                continue
            send_result(websocket.outbox, result)
            await websocket.outbox.drained()

    return session


async def _keep(sockets: Sockets, websocket: WebSocket, path: str) -> None:
    """Hand a socket's messages to the processor it was added to."""
    caller = None
    while True:
        body = await websocket.take()
        processor, client_id = next(iter(websocket.joined.items()))
        if caller is None:  # an idle socket needs none
            caller = sockets.caller(websocket, path)
        try:
            result = await processor.incoming.handle(client_id, body, caller)
        except CliffracerError as error:
            send_error(websocket.outbox, body, error, sockets.service)
            continue
        send_result(websocket.outbox, result)
        await websocket.outbox.drained()
