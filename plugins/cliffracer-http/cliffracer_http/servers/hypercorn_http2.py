"""Hypercorn's HTTP/2, where no stream hinders the others of its connection.

Hypercorn forgets a stream when its response has ended, and fails the whole connection on the first piece of a body
that comes after. And where a handler takes its time to read, it reads nothing for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error
from hypercorn.events import Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.protocol.http_stream import HTTPStream

from .inbox import Inbox
from .interface import LINGER_BYTES

__all__ = ["Protocols"]

_WINDOW = 2**16
"""Bytes that a client may send on one stream before any are taken, as h2 has it."""


class Protocols(ProtocolWrapper):
    """What is spoken on one connection; see Hypercorn's.

    Args:
        write: sends bytes without waiting.
        arguments: Hypercorn's.
    """

    def __init__(self, write: Callable[[bytes], None], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._write = write
        if isinstance(self.protocol, H2Protocol):
            self._take_http2()

    def _take_http2(self) -> None:
        self.protocol = _Patient(
            self._write, self.app, self.config, self.context, self.task_group, self.state, self.ssl, self.client,
            self.server, self.send,
        )  # fmt: skip

    async def handle(self, event: Event) -> None:
        """Take what has come; a client that speaks HTTP/2 without TLS is answered in it."""
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as error:
            self._take_http2()
            await self.protocol.initiate()
            rest = error.data
        except H2CProtocolRequiredError as error:
            self._take_http2()
            await self.protocol.initiate(error.headers, error.settings)  # type: ignore[call-arg]  # HTTP/2's takes them
            rest = error.data
        else:
            return
        if rest:
            await self.protocol.handle(RawData(data=rest))


class _Patient(H2Protocol):
    """Gives parts of bodies to handlers without waiting: a client may send on what was taken (RFC 9113, section 5.2).

    What comes on a stream after its response is thrown away, up to `LINGER_BYTES`; then the stream is reset.
    """

    def __init__(self, write: Callable[[bytes], None], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._write = write
        self._late: Counter[int] = Counter()

    async def initiate(self, *arguments: Any) -> None:
        await super().initiate(*arguments)
        # each stream has a window of its own; that of the connection must not make them wait for each other
        self.connection.increment_flow_control_window(_WINDOW * self.config.h2_max_concurrent_streams)
        await self._flush()

    async def _handle_events(self, events: Any) -> None:
        await super()._handle_events(self._in_time(events))  # type: ignore[arg-type]  # it only loops over them

    def _in_time(self, events: list[Any]) -> Iterator[Any]:
        for event in events:
            stream_id = getattr(event, "stream_id", None)
            inbox = self._inbox(stream_id)
            if isinstance(event, DataReceived) and stream_id not in self.streams:
                self._throw_away(event.stream_id, event.flow_controlled_length or 0)
            elif isinstance(event, DataReceived) and inbox is not None:
                inbox.taken = inbox.taken or partial(self._taken, event.stream_id)
                inbox.add(bytes(event.data or b""), event.flow_controlled_length or 0, more=True)
            elif isinstance(event, StreamEnded) and inbox is not None:
                inbox.add(b"", 0, more=False)
            else:
                yield event
            if isinstance(event, StreamEnded | StreamReset):
                self._late.pop(event.stream_id, None)

    def _inbox(self, stream_id: Any) -> Inbox | None:
        stream = self.streams.get(stream_id)
        found = getattr(stream.app_put, "__self__", None) if isinstance(stream, HTTPStream) else None
        return found if isinstance(found, Inbox) else None

    def _taken(self, stream_id: int, size: int) -> None:
        """Let the client send as much again."""
        try:
            self.connection.acknowledge_received_data(size, stream_id)
        except H2Error:
            return  # the connection is at its end
        data = self.connection.data_to_send()
        if data:
            self._write(data)

    def _throw_away(self, stream_id: int, size: int) -> None:
        try:
            self._late[stream_id] += size
            self.connection.acknowledge_received_data(size, stream_id)
            if self._late[stream_id] > LINGER_BYTES:
                self._late.pop(stream_id)
                self.connection.reset_stream(stream_id, ErrorCodes.NO_ERROR)  # RFC 9113, section 8.1
        except H2Error:
            self._late.pop(stream_id, None)  # the client has given it up meanwhile
