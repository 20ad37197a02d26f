"""Commands, replies and pushes of the Centrifuge client protocol, version 2, in JSON.

Source: centrifugal/protocol, definitions/client.proto; codes: the Centrifugo documentation, "Client protocol codes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cliffracer_core.errors import CliffracerError
from cliffracer_core.messages import JSON

from .outbox import Event
from .publication import Publication

__all__ = ["CENTRIFUGE", "Command", "Failure", "HistoryRequest", "SubscribeRequest", "failure_of", "push", "reply"]
__all__ += ["BAD_REQUEST", "INSUFFICIENT_STATE", "NO_PONG", "PING", "REJECT_UNRECOVERED", "STALE", "publication_json"]

INSUFFICIENT_STATE = 2500
"""Unsubscribed because messages were lost: the client subscribes again, from where it was."""
NO_PONG = 3012
BAD_REQUEST = 3501
STALE = 3502
REJECT_UNRECOVERED = 2
"""A flag of `subscribe`: fail with 112 rather than go on with a gap."""

_NULL = msgspec.Raw(b"null")


class ConnectRequest(msgspec.Struct):
    """Who connects; the token goes to the authenticators as a bearer token."""

    token: str = ""
    data: msgspec.Raw = _NULL
    name: str = ""
    version: str = ""


class SubscribeRequest(msgspec.Struct):
    """A channel, and where in its history the client is."""

    channel: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    data: msgspec.Raw = _NULL
    flag: int = 0


class ChannelRequest(msgspec.Struct):
    """A channel."""

    channel: str = ""


class PublishRequest(msgspec.Struct):
    """A message for a channel."""

    channel: str = ""
    data: msgspec.Raw = _NULL


class StreamPosition(msgspec.Struct):
    """A place in a channel's history."""

    offset: int = 0
    epoch: str = ""


class HistoryRequest(msgspec.Struct):
    """What of a channel's history is wanted; a limit of 0 is none of it, a negative one all."""

    channel: str = ""
    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


class RpcRequest(msgspec.Struct):
    """A call of a method."""

    method: str = ""
    data: msgspec.Raw = _NULL


class SendRequest(msgspec.Struct):
    """A message without an answer."""

    data: msgspec.Raw = _NULL


class Command(msgspec.Struct):
    """What a client sends; the first request that is there counts; nothing, not even an id, answers a ping."""

    id: int = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    ping: dict[str, Any] | None = None
    send: SendRequest | None = None
    rpc: RpcRequest | None = None
    refresh: dict[str, Any] | None = None
    sub_refresh: dict[str, Any] | None = None

    def request(self) -> tuple[str, Any] | None:
        """Return name and content of the request, None for a pong; the name is empty where none of these is there."""
        for name in self.__struct_fields__[1:]:
            found = getattr(self, name)
            if found is not None:
                return name, found
        return ("", None) if self.id else None


class Failure(Exception):
    """A command that failed: a code of the protocol's, and whether to try again."""

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.temporary = temporary


_CODES = {400: 107, 401: 101, 403: 103, 404: 102, 409: 107, 413: 106, 422: 107, 429: 111}


def failure_of(error: CliffracerError) -> Failure:
    """Translate an error of ours."""
    code = _CODES.get(error.status, 100)
    message = str(error) if code != 100 else "internal server error"
    return Failure(code, message, error.retryable)


def _text(body: bytes) -> Event:
    return {"type": "websocket.send", "text": body.decode()}


def reply(id: int, name: str, result: Mapping[str, object] | Failure) -> Event:
    """Make the answer to a command."""
    if isinstance(result, Failure):
        error = {"code": result.code, "message": result.message, "temporary": result.temporary}
        return _text(JSON.encode({"id": id, "error": error}))
    return _text(JSON.encode({"id": id, name: result}))


def push(channel: str, content: Mapping[str, object]) -> Event:
    """Make a message that no command asked for."""
    return _text(JSON.encode({"push": {"channel": channel, **content}}))


PING: Event = {"type": "websocket.send", "text": "{}"}


def publication_json(publication: Publication) -> msgspec.Raw:
    """Encode a publication as the protocol has it."""
    offset = b',"offset":%d' % publication.offset if publication.offset else b""
    return msgspec.Raw(b'{"data":%s%s}' % (publication.data, offset))


class _Centrifuge:
    """How clients of the protocol are spoken to."""

    def publication(self, publication: Publication) -> Event:
        """Make the push of a channel's message."""
        return push(publication.group, {"pub": publication_json(publication)})

    def message(self, data: bytes) -> Event:
        """Make the push of a message to this client."""
        return push("", {"message": {"data": msgspec.Raw(data)}})


CENTRIFUGE = _Centrifuge()
