"""`Streams`: durable streams: made where missing, checked, published to, browsed."""

from __future__ import annotations

import asyncio
import base64
import datetime
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from cliffracer_core.errors import (
    CliffracerError,
    ConfigurationError,
    ConnectionError,
    DeadlineExceeded,
    NoHandler,
    NotStored,
)
from cliffracer_core.messages import Message, StoredMessage
from cliffracer_core.subjects import covers, default_stream_subjects, overlaps, validate_token

from . import jetstream as js
from .headers import parse_headers
from .jetstream import NANOSECONDS, JetStream, JetStreamError

__all__ = ["MESSAGE_ID", "Streams", "published_headers"]

MESSAGE_ID = "Nats-Msg-Id"
EXPECTED_STREAM = "Nats-Expected-Stream"
REQUESTS = "rpc.>"
_OURS = frozenset({MESSAGE_ID, EXPECTED_STREAM})
_ATTEMPT_S = 2.0  # a lost answer is asked for again under the same message id, which is stored once


class Streams:
    """The streams of one account."""

    def __init__(self, jetstream: JetStream) -> None:
        self.jetstream = jetstream
        self.settings = jetstream.settings
        self._ensuring = asyncio.Lock()
        self._known: dict[str, Sequence[str]] = {}
        """What each stream made sure of takes; forgotten when one does not answer."""

    async def check_streams(self) -> None:
        """Refuse streams that would answer requests.

        Raises:
            ConfigurationError: a stream of the account takes subjects below `rpc.`.
        """
        found = await self.jetstream.ask("STREAM.NAMES", {"subject": REQUESTS})
        for name in found.get("streams") or ():
            _refuse_requests(name, await self.subjects(name) or ())

    async def subjects(self, stream: str) -> list[str] | None:
        """Return what a stream takes; None where there is no such stream."""
        try:
            info = await self.jetstream.ask(f"STREAM.INFO.{validate_token(stream, 'stream')}")
        except JetStreamError as error:
            if error.err_code == js.STREAM_NOT_FOUND:
                return None
            raise
        return list(info["config"].get("subjects") or ())

    async def ensure(self, stream: str, pattern: str) -> None:
        """Make sure that a stream exists and covers a whole pattern; replicas may do so at once.

        Raises:
            ConfigurationError: it exists and does not, takes requests, or another stream has the subjects.
        """
        subjects = await self.subjects(stream) or await self._create(stream, pattern)
        _refuse_requests(stream, subjects)
        if not any(covers(subject, pattern) for subject in subjects):
            raise ConfigurationError(
                f"stream {stream!r} takes {subjects!r}, which does not cover {pattern!r}; "
                f"narrow the pattern, add it with 'nats stream edit {stream}', or name another with stream='NAME'"
            )
        self._known[stream] = subjects

    async def _create(self, stream: str, pattern: str) -> Sequence[str]:
        subjects = default_stream_subjects(stream, pattern)
        config = {
            "name": stream,
            "subjects": subjects,
            "storage": self.settings.storage,
            "num_replicas": self.settings.replicas,
            "duplicate_window": int(self.settings.duplicate_window_s * NANOSECONDS),
            "retention": "limits",
            "discard": "old",
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_consumers": -1,
        }
        try:
            await self.jetstream.ask(f"STREAM.CREATE.{stream}", config)
        except JetStreamError as error:
            existing = await self.subjects(stream)  # another replica was faster, perhaps with another pattern
            if existing is not None:
                return existing
            if error.err_code == js.STREAM_OVERLAP:
                others = (await self.jetstream.ask("STREAM.NAMES", {"subject": subjects[-1]})).get("streams") or ["?"]
                raise ConfigurationError(
                    f"stream {stream!r} would take {subjects!r}, which stream {others[0]!r} takes already; "
                    f"name that one with stream={others[0]!r}"
                ) from error
            raise ConfigurationError(
                f"stream {stream!r} cannot be created ({error}); check 'nats.replicas' and the account's limits"
            ) from error
        return subjects

    async def publish(self, message: Message, *, stream: str, message_id: str, timeout_s: float) -> None:
        """Store a message under an id, in the named stream; returns once it is confirmed.

        An answer that does not come is asked for again under the same id, so a server that restarts
        costs time and not the message.

        Raises:
            NotStored: no confirmation within `timeout_s` seconds, or the stream cannot take it.
            InvalidSubject, InvalidHeader, MessageTooLarge: nothing was sent.
        """
        validate_token(stream, "stream")
        deadline = time.monotonic() + timeout_s
        sent = Message(
            message.subject, message.body, {**(message.headers or {}), MESSAGE_ID: message_id, EXPECTED_STREAM: stream}
        )
        self.jetstream.wire.check(sent)
        pause = 0.02
        what = f"message {message_id!r} on {message.subject!r}"
        while (left := deadline - time.monotonic()) > 0:
            try:
                if await self._ready(stream, message.subject, what):
                    await self.jetstream.store(sent, min(left, _ATTEMPT_S))
                    return
            except (NoHandler, DeadlineExceeded):
                self._known.pop(stream, None)  # gone, or a plain subscriber is all that hears the subject
                pause = max(pause, 0.1)  # a stream made while it is still being deleted comes out deaf
            except JetStreamError as error:
                if error.err_code == js.STREAM_MISMATCH:
                    raise NotStored(
                        f"{what}: another stream than {stream!r} takes this subject; name that one with stream='NAME'"
                    ) from error
                raise NotStored(f"{what}: stream {stream!r} refused it ({error}); check its limits") from error
            except NotStored:
                raise
            except ConnectionError as error:
                raise NotStored(f"{what}: {error}") from error
            await asyncio.sleep(min(pause, max(deadline - time.monotonic(), 0)))  # the stream may be on its way up
            pause = min(pause * 2, 0.5)
        raise NotStored(f"{what}: not confirmed by stream {stream!r} within {timeout_s:g} s; send it again with its id")

    async def _ready(self, stream: str, subject: str, what: str) -> bool:
        """Make sure, once, that the stream takes the subject; False while JetStream cannot be asked.

        Before the first publish and not after a failed one: where a plain subscriber hears the subject,
        the server does not say that no stream does.
        """
        if self._takes(stream, subject):
            return True
        if not self.jetstream.wire.connection.live().server_info.get("jetstream"):
            raise NotStored(f"{what}: there is no JetStream; start nats-server with -js")
        try:
            async with self._ensuring:
                if not self._takes(stream, subject):
                    await self.ensure(stream, subject)
        except ConnectionError:
            return False
        except CliffracerError as refused:
            raise NotStored(f"{what}: {refused}") from refused
        return True

    def _takes(self, stream: str, subject: str) -> bool:
        known = self._known.get(stream)
        return known is not None and any(covers(each, subject) for each in known)

    async def browse(self, stream: str, after: int) -> AsyncIterator[StoredMessage]:
        """Yield what a stream holds past a sequence number, oldest first; nothing where there is no stream."""
        validate_token(stream, "stream")
        sequence = after + 1
        while True:
            found = await self.get(stream, {"seq": max(sequence, 1), "next_by_subj": ">"})
            if found is None:
                return
            yield found
            sequence = found.sequence + 1

    async def get(self, stream: str, which: Mapping[str, object]) -> StoredMessage | None:
        """Read one stored message from the stream's leader; None where there is none such, or no stream.

        Source: NATS documentation, `$JS.API.STREAM.MSG.GET`.
        """
        try:
            answer = await self.jetstream.ask(f"STREAM.MSG.GET.{stream}", which)
        except JetStreamError as error:
            if error.err_code in (js.MESSAGE_NOT_FOUND, js.STREAM_NOT_FOUND):
                return None
            raise
        stored = answer["message"]
        headers = published_headers(parse_headers(base64.b64decode(stored["hdrs"]))) if stored.get("hdrs") else None
        body = base64.b64decode(stored.get("data") or "")
        return StoredMessage(stored["seq"], Message(stored["subject"], body, headers), _epoch_seconds(stored["time"]))

    async def stored_subjects(self, stream: str, pattern: str) -> list[str]:
        """Return the subjects matching a pattern under which a stream holds something."""
        found: list[str] = []
        while True:
            question = {"subjects_filter": pattern, "offset": len(found)}
            answer = await self.jetstream.ask(f"STREAM.INFO.{stream}", question)
            page = answer["state"].get("subjects") or ()
            found += page
            if not page or len(found) >= answer.get("total", 0):  # the server gives 100,000 at a time
                return found

    async def delete(self, stream: str, sequence: int) -> bool:
        """Remove one message; False where it was gone."""
        validate_token(stream, "stream")
        try:
            answer = await self.jetstream.ask(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except JetStreamError as error:
            if error.err_code in (js.SEQUENCE_NOT_FOUND, js.MESSAGE_NOT_FOUND, js.STREAM_NOT_FOUND):
                return False
            raise
        return bool(answer.get("success"))


def published_headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the headers as the publisher gave them, without those that `publish` added."""
    if headers is None:
        return None
    return {name: value for name, value in headers.items() if name not in _OURS} or None


def _refuse_requests(stream: str, subjects: Sequence[str]) -> None:
    for subject in subjects:
        if overlaps(subject, REQUESTS):
            raise ConfigurationError(
                f"stream {stream!r} takes {subject!r}, which overlaps {REQUESTS!r}: it would answer requests in the "
                f"services' stead; give it other subjects with 'nats stream edit {stream}'"
            )


def _epoch_seconds(text: str) -> float:
    """Read an RFC 3339 time with up to nine decimals, as Go writes it."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
