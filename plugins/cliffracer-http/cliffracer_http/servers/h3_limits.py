"""What aioquic lacks: flow control that follows the application's reading, and a bound for a request's head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import FrameType, H3Connection, HeadersState, Setting, encode_frame
from aioquic.quic.connection import END_STATES, QuicConnection

__all__ = ["CONNECTION_WINDOW", "STREAM_WINDOW", "Heads", "Windowed"]

STREAM_WINDOW = 256 * 1024
"""Bytes of a stream that may wait to be read."""
CONNECTION_WINDOW = 4 * 1024 * 1024
"""Bytes of all streams of a connection that may."""
_FIELD_BYTES = 32
"""What a field counts beyond its name and value (RFC 9114, 4.2.2)."""


class Windowed(QuicConnection):
    """A connection that lets its peer send as much as is read; aioquic's doubles what it may send without end.

    aioquic makes its connections itself; `watch` turns one into this.
    """

    unread: Callable[[int], int | None]
    """Bytes of a stream that wait for the application; None where it reads no more."""

    @classmethod
    def watch(cls, connection: QuicConnection, unread: Callable[[int], int | None]) -> Windowed:
        """Take over a connection on which nothing has come yet."""
        connection.__class__ = cls
        watched = cast(Windowed, connection)
        watched.unread = unread
        return watched

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        limit = self._local_max_data
        if limit.used + CONNECTION_WINDOW - limit.value >= CONNECTION_WINDOW // 2:
            allowed = limit.used - self._waiting() + CONNECTION_WINDOW
            if allowed - limit.value >= CONNECTION_WINDOW // 2:
                limit.value = allowed
        used, limit.used = limit.used, 0  # so that it is not doubled
        try:
            super()._write_connection_limits(builder=builder, space=space)
        finally:
            limit.used = used

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        receiver = stream.receiver
        if stream.max_stream_data_local and not receiver.is_finished:
            unread = self.unread(stream.stream_id)
            if unread is not None:
                allowed = receiver.starting_offset() - unread + STREAM_WINDOW
                if allowed - stream.max_stream_data_local >= STREAM_WINDOW // 2:
                    stream.max_stream_data_local = allowed
        highest, receiver.highest_offset = receiver.highest_offset, 0  # so that it is not doubled
        try:
            super()._write_stream_limits(builder=builder, space=space, stream=stream)
        finally:
            receiver.highest_offset = highest

    def _waiting(self) -> int:
        """Return how many bytes wait for those before them, or for the application."""
        found = 0
        for stream_id, stream in self._streams.items():
            receiver = stream.receiver
            if not receiver.is_finished:
                found += receiver.highest_offset - receiver.starting_offset()
            found += self.unread(stream_id) or 0
        return found

    def backlog(self, stream_id: int) -> int:
        """Return how many bytes of a stream the peer has not acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def is_receiving(self, stream_id: int) -> bool:
        """Tell whether more may come on a stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.receiver.is_finished

    def is_sending(self, stream_id: int) -> bool:
        """Tell whether the peer still wants what is sent on a stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.sender._reset_error_code is None

    @property
    def owes(self) -> bool:
        """Whether a response that was sent whole has not yet arrived whole."""
        senders = (stream.sender for stream in self._streams.values())
        return any(each._buffer_fin is not None and not each.is_finished for each in senders)

    @property
    def is_over(self) -> bool:
        """Whether either side has closed it; aioquic says so only after a time for stragglers."""
        return self._state in END_STATES

    @property
    def next_request(self) -> int:
        """The stream of the first request that has not come in any part."""
        return self._local_max_streams_bidi.used * 4


class Heads(H3Connection):
    """HTTP/3 without a dynamic table, whose entries would let a small head become a large one.

    Args:
        quic: its connection.
        max_header_bytes: of a head; a longer one is in `too_long`, and reads as another.
    """

    def __init__(self, quic: QuicConnection, max_header_bytes: int) -> None:
        self._max_header_bytes = max_header_bytes
        self.too_long: set[int] = set()
        super().__init__(quic)
        self._decoder = type(self._decoder)(0, 0)

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        settings.pop(Setting.ENABLE_CONNECT_PROTOCOL)
        nothing: dict[int, int] = {Setting.QPACK_MAX_TABLE_CAPACITY: 0, Setting.QPACK_BLOCKED_STREAMS: 0}
        return {**settings, **nothing, Setting.MAX_FIELD_SECTION_SIZE: self._max_header_bytes}

    def _decode_headers(self, stream_id: int, frame_data: bytes | None) -> Any:
        found = super()._decode_headers(stream_id, frame_data)
        if sum(len(name) + len(value) + _FIELD_BYTES for name, value in found) <= self._max_header_bytes:
            return found
        self.too_long.add(stream_id)
        return [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"-"), (b":path", b"/")]

    def buffered(self, stream_id: int) -> int:
        """Return how many bytes of a stream wait for the rest of their frame."""
        stream = self._stream.get(stream_id)
        return 0 if stream is None else len(stream.buffer)

    def awaits_head(self, stream_id: int) -> bool:
        """Tell whether a request has begun on a stream whose head is not complete."""
        stream = self._stream.get(stream_id)
        return stream is not None and stream.headers_recv_state is HeadersState.INITIAL

    def end_sending(self, stream_id: int) -> None:
        """Forget a stream that was reset once its peer has ended it too."""
        stream = self._stream.get(stream_id)
        if stream is not None:
            stream.sending_ended = True
            if stream.is_ended():
                del self._stream[stream_id]

    def send_goaway(self, stream_id: int) -> None:
        """Say that no request from this one on is served (RFC 9114, 5.2)."""
        assert self._local_control_stream_id is not None
        self._quic.send_stream_data(
            self._local_control_stream_id, encode_frame(FrameType.GOAWAY, encode_uint_var(stream_id))
        )
