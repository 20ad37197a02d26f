"""Hypercorn's HTTP/2, where a response may end before its request has.

Hypercorn forgets a stream when its response has ended, and fails the whole connection, with all others on it, on the
first piece of a body that comes after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from hypercorn.events import Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError

from .interface import LINGER_BYTES

__all__ = ["Protocols"]


class Protocols(ProtocolWrapper):
    """What is spoken on one connection; see Hypercorn's."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if isinstance(self.protocol, H2Protocol):
            self._take_http2()

    def _take_http2(self) -> None:
        self.protocol = _Patient(
            self.app, self.config, self.context, self.task_group, self.state, self.ssl, self.client, self.server,
            self.send,
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
    """Takes what comes on a stream after its response: up to `LINGER_BYTES`, then the stream is reset."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._late: Counter[int] = Counter()

    async def _handle_events(self, events: Any) -> None:
        await super()._handle_events(self._in_time(events))  # type: ignore[arg-type]  # it only loops over them

    def _in_time(self, events: list[Any]) -> Iterator[Any]:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                self._throw_away(event.stream_id, event.flow_controlled_length or 0)
                continue
            if isinstance(event, StreamEnded | StreamReset):
                self._late.pop(event.stream_id, None)
            yield event

    def _throw_away(self, stream_id: int, size: int) -> None:
        try:
            self._late[stream_id] += size
            self.connection.acknowledge_received_data(size, stream_id)
            if self._late[stream_id] > LINGER_BYTES:
                self._late.pop(stream_id)
                self.connection.reset_stream(stream_id, ErrorCodes.NO_ERROR)  # RFC 9113, section 8.1
        except ProtocolError:
            self._late.pop(stream_id, None)  # the client has given it up meanwhile
