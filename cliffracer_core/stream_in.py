"""The consumer's end of a streamed reply: items in order, credit for more, and the word that it gives up."""

from __future__ import annotations

import asyncio

import msgspec

from .errors import CliffracerError, ConnectionError, DeadlineExceeded, RPCError, ValidationError
from .inbox import Box
from .interfaces import Transport
from .messages import STREAM_END, STREAM_GAP_MS, STREAM_SEQ, STREAM_TO, STREAM_WINDOW, Message
from .replies import is_error

__all__ = ["DEFAULT_WINDOW", "GIVE_UP", "Accepted", "Inbound", "not_a_stream", "validate_window"]

DEFAULT_WINDOW = 64
"""Items a producer may be ahead of its consumer."""
GIVE_UP = b"stop"
"""What a consumer that wants no more sends in place of a credit."""
_MAX_WINDOW = 100_000


class Accepted(msgspec.Struct, tag="stream"):
    """The reply to a request whose results are streamed: the producer begins."""

    control: str
    """The subject that takes credits; also the reply subject of every message of the stream."""
    gap_ms: int
    """The producer gives up after so many milliseconds without a word from the consumer."""


def validate_window(window: int) -> int:
    """Return `window` if it is a whole number from 1 to 100,000. Raises ValidationError."""
    if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= _MAX_WINDOW:
        raise ValidationError(f"window {window!r} is not a whole number from 1 to {_MAX_WINDOW}")
    return window


class Inbound:
    """One stream as its consumer sees it.

    Args:
        box: what the producer sends to.
        transport: what credits go out on.
        subject: what was called, for errors.
        window: items the producer may be ahead.
        gap_s: seconds to wait for an item.
    """

    def __init__(self, box: Box, transport: Transport, subject: str, *, window: int, gap_s: float) -> None:
        self._box = box
        self._transport = transport
        self._subject = subject
        self._window = window
        self._gap_s = gap_s
        self._control: str | None = None
        self._granted = window
        self._taken = 0
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the request says of the stream that is wanted."""
        gap_ms = str(max(1, int(self._gap_s * 1000)))
        return {STREAM_TO: self._box.address, STREAM_WINDOW: str(self._window), STREAM_GAP_MS: gap_ms}

    def begin(self, accepted: Accepted) -> None:
        """Take the producer's word that it streams."""
        self._control = accepted.control
        self._every_s = accepted.gap_ms / 3000
        self._timer = self._loop.call_later(self._every_s, self._sign_of_life)

    async def next(self) -> Message | None:
        """Return the next item, None after the last one; an error message is the last, too.

        Raises:
            DeadlineExceeded: nothing came in time.
            ConnectionError: an item is missing, or the transport was closed.
        """
        if self._ended:
            return None
        await self._grant()
        message = await self._take()
        while self._is_repeated(message):
            message = await self._take()
        if is_error(message):
            self._ended = True
            return message
        headers = message.headers or {}
        if STREAM_END in headers:
            self._ended = True
            self._expect(headers[STREAM_END], self._taken)
            return None
        self._taken += 1
        self._expect(headers.get(STREAM_SEQ), self._taken)
        return message

    async def _take(self) -> Message:
        while True:
            try:
                message = await self._box.get(self._gap_s)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"no item of {self._subject!r} within {self._gap_s:g} s; raise the timeout"
                ) from None
            if message.reply_to == self._control:  # else of an attempt before this one, made by a layer that retries
                return message

    def _is_repeated(self, message: Message) -> bool:
        number = (message.headers or {}).get(STREAM_SEQ, "")
        return number.isdigit() and int(number[:18]) <= self._taken

    def _expect(self, number: str | None, wanted: int) -> None:
        if number != str(wanted):
            raise ConnectionError(
                f"the stream of {self._subject!r} lost items: expected number {wanted}, got {number}; call again"
            )

    async def _grant(self) -> None:
        """Let the producer go on once half of the window is used up; counts are totals, so a lost one is healed."""
        granted = self._taken + self._window
        if granted - self._granted >= max(1, self._window // 2):
            self._granted = granted
            await self._tell(b"%d" % granted)

    def _sign_of_life(self) -> None:
        """Repeat the last credit: a consumer that is slow is not one that died."""
        self._beat = self._loop.create_task(self._live())
        self._timer = self._loop.call_later(self._every_s, self._sign_of_life)

    async def _live(self) -> None:
        try:
            await self._tell(b"%d" % self._granted)
        except CliffracerError as error:
            self._box.fail(error)

    async def _tell(self, word: bytes) -> None:
        if self._control is not None:
            await self._transport.publish(Message(self._control, word))

    async def close(self) -> None:
        """Forget the stream, and tell the producer if it had more to say; safe to call twice."""
        self._box.close()
        if self._timer is not None:
            self._timer.cancel()
        if not self._ended:
            self._ended = True
            try:
                await self._tell(GIVE_UP)
            except CliffracerError:
                return  # not connected: the producer hears nothing from here any more, and ends by that


def not_a_stream(subject: str, error: RPCError) -> RPCError:
    """Say what is wrong where a reply came in place of a stream; return other errors as they are."""
    if isinstance(error.__cause__, ValidationError):
        return RPCError(f"{subject!r} answered with one reply and no stream; call it with call()")
    return error
