"""Calls and publishes: one compiled chain out for calls and one for publishes.

payload -> observe -> guard -> shape -> encode -> transport
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from typing import Any

from .context import chosen_correlation_id, current_context, running_call
from .dispatch import sort_layers
from .errors import (
    DeadlineExceeded,
    NoHandler,
    RPCError,
    ValidationError,
)
from .inbox import Inbox
from .interfaces import Middleware, Outgoing, OutgoingDeclaration, Send, Transport
from .messages import (
    JSON,
    REPLY_ALL_TO,
    Message,
)
from .replies import read_reply
from .scatter import ReplicaReply, all_subject, gather
from .sending import Sender
from .stream_in import DEFAULT_WINDOW, Accepted, Inbound, not_a_stream, validate_window
from .subjects import validate_subject, validate_token
from .validation import validate_timeout

__all__ = ["Caller"]


class Caller:
    """Send on behalf of one service, or of a script.

    Args:
        service: who sends, for errors and middleware.
        transports: by name, one of them `default`.
        timeout_s: the time a call has where nobody says otherwise.
        content_type: how payloads are encoded.
        ask: gives the outgoing layers that plugins registered for a kind.
    """

    def __init__(
        self,
        service: str,
        transports: Mapping[str, Transport],
        *,
        timeout_s: float,
        content_type: str = JSON.content_type,
        ask: Callable[[OutgoingDeclaration], Iterable[tuple[str, Middleware]]] = lambda declaration: (),
    ) -> None:
        self._sender = sender = Sender(transports, timeout_s, content_type)
        self._service = service
        self._transports = transports
        self._timeout_s = timeout_s
        self._call, self.call_layers = self._compile("call", sender.request, ask)
        self._publish, self.publish_layers = self._compile("publish", sender.publish, ask)
        self._inboxes: dict[str, Inbox] = {}
        self._subject = functools.lru_cache(4096)(_request_subject)

    def _compile(
        self, kind: Any, step: Send, ask: Callable[[OutgoingDeclaration], Iterable[tuple[str, Middleware]]]
    ) -> tuple[Send, list[str]]:
        layers = sort_layers(list(ask(OutgoingDeclaration(self._service, kind))))
        for layer in reversed(layers):
            step = layer.wrap(step)
        return step, [f"{layer.stage} {layer.name}" for layer in layers]

    def call(
        self,
        service: str,
        method: str,
        arguments: object = None,
        *,
        returns: Any = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        transport: str = "default",
    ) -> Coroutine[Any, Any, Any]:
        """Call `method` of `service` and return its result.

        Args:
            service: the service's name.
            method: the handler's name.
            arguments: a mapping of the named arguments, or a Struct or dataclass with such fields.
            returns: the type to decode the result into; builtins where None.
            timeout: seconds; the service's default where None, never more than the running call has left.
            headers: sent along.
            idempotency_key: lets the service recognise a repeated call.
            transport: which of the service's transports.

        Raises:
            NoHandler: nobody serves it; at once. A retry helps once someone does.
            DeadlineExceeded: the time ran out; the callee is cancelled too.
            Overloaded: the callee is at its limit; a retry helps later.
            ValidationError: the callee refused an argument.
            EncodingError, MessageTooLarge, InvalidSubject, InvalidHeader: nothing was sent.
            RPCError: any other failure of the callee; its own errors under their class where it is known here.
        """
        payload = {} if arguments is None else arguments
        return self._begin(
            self._subject(service, method), payload, returns, timeout, headers, idempotency_key, transport
        )

    def request(
        self,
        subject: str,
        payload: object,
        *,
        returns: Any = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        transport: str = "default",
    ) -> Coroutine[Any, Any, Any]:
        """Send a request on a full subject below `rpc.`; otherwise as `call`."""
        return self._begin(subject, payload, returns, timeout, headers, idempotency_key, transport)

    def _begin(
        self,
        subject: str,
        payload: object,
        returns: Any,
        timeout: float | None,
        headers: Mapping[str, str] | None,
        idempotency_key: str | None,
        transport: str,
    ) -> Coroutine[Any, Any, Any]:
        sender = self._sender
        plain = timeout is None and not headers and idempotency_key is None
        if plain and running_call() is None and chosen_correlation_id() is None:
            sent: dict[str, str] = sender.usual
            left_s = self._timeout_s
            deadline = time.monotonic() + left_s
        else:
            sent, deadline, left_s = sender.prepare(subject, timeout, headers, idempotency_key)
        if not self.call_layers:
            to = self._transports.get(transport) or sender.transport(transport)
            return sender.exchange(to, subject, payload, sent, returns, deadline, left_s)
        outgoing = Outgoing(
            kind="call", service=self._service, subject=subject, payload=payload, headers=dict(sent),
            deadline=deadline, returns=returns, transport=transport,
        )  # fmt: skip
        return self._through_layers(outgoing)

    async def _through_layers(self, outgoing: Outgoing) -> object:
        return await self._call(outgoing)

    def stream(
        self,
        service: str,
        method: str,
        arguments: object = None,
        *,
        returns: Any = None,
        timeout: float | None = None,
        window: int = DEFAULT_WINDOW,
        headers: Mapping[str, str] | None = None,
        transport: str = "default",
    ) -> AsyncGenerator[Any, None]:
        """Call a `method` that streams its reply: `async for item in caller.stream("users", "export")`.

        The call begins with the first item asked for. Leaving the loop ends it at the callee, too, once
        the iterator is closed or no longer held; `contextlib.aclosing` does that at a certain point.

        Args:
            service: the service's name.
            method: the handler's name.
            arguments: as `call`.
            returns: the type to decode each item into; builtins where None.
            timeout: seconds between two items, and until the first one; the service's default where None.
            window: items the callee may be ahead; it waits there until some are taken.
            headers: sent along with the request.
            transport: which of the service's transports.

        Raises:
            DeadlineExceeded: there was no item in time; the callee is cancelled too.
            ConnectionError: an item was lost on the way. A retry starts anew.
            Overloaded: the callee's service stops, or is at its limit; a retry helps later.
            CliffracerError: any other error of `call`, before the first item or between two.
        """
        return self.request_stream(
            self._subject(service, method), {} if arguments is None else arguments, returns=returns,
            timeout=timeout, window=window, headers=headers, transport=transport,
        )  # fmt: skip

    async def request_stream(
        self,
        subject: str,
        payload: object,
        *,
        returns: Any = None,
        timeout: float | None = None,
        window: int = DEFAULT_WINDOW,
        headers: Mapping[str, str] | None = None,
        transport: str = "default",
    ) -> AsyncGenerator[Any, None]:
        """Send a request on a full subject below `rpc.`; otherwise as `stream`."""
        gap_s = self._timeout_s if timeout is None else validate_timeout(timeout)
        validate_window(window)
        box = await self._inbox(transport).open()
        stream = Inbound(box, self.transport(transport), subject, window=window, gap_s=gap_s)
        try:
            try:
                accepted = await self.request(
                    subject, payload, returns=Accepted, timeout=gap_s, headers={**(headers or {}), **stream.headers},
                    transport=transport,
                )  # fmt: skip
            except RPCError as error:
                raise not_a_stream(subject, error) from error.__cause__
            stream.begin(accepted)
            while (item := await stream.next()) is not None:
                yield read_reply(subject, item, returns, self._sender.decoder)
        finally:
            await stream.close()

    async def call_all(
        self,
        service: str,
        method: str,
        arguments: object = None,
        *,
        returns: Any = None,
        count: int | None = None,
        quiet_s: float | None = 0.25,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        transport: str = "default",
    ) -> list[ReplicaReply]:
        """Call `method` at every replica of `service`, and collect what they answer.

        Args:
            service: the service's name.
            method: the handler's name.
            arguments: as `call`.
            returns: the type to decode each value into; builtins where None.
            count: replies after which to stop; as many as come where None.
            quiet_s: seconds without a further reply after which to stop, from the first reply on; None
                waits for `count` or the deadline.
            timeout: seconds in all; the service's default where None.
            headers: sent along.
            transport: which of the service's transports.

        Returns:
            The replies in the order they came; each with the replica's id, and its value or its error.
            A replica that had not answered when it stopped is cancelled.

        Raises:
            NoHandler: no replica listens; at once.
            DeadlineExceeded: there are replicas, and none answered in time.
            EncodingError, MessageTooLarge, InvalidSubject, InvalidHeader: nothing was sent.
        """
        self._subject(service, method)  # for its checks
        if count is not None and count < 1:
            raise ValidationError(f"count {count!r} is not a number of replies above 0")
        seconds = self._timeout_s if timeout is None else validate_timeout(timeout)
        deadline = min(time.monotonic() + seconds, getattr(current_context(), "deadline", None) or math.inf)
        subject = all_subject(service, method)
        box = await self._inbox(transport).open()
        expired = False
        try:
            await self.request(
                subject, {} if arguments is None else arguments, timeout=seconds,
                headers={**(headers or {}), REPLY_ALL_TO: box.address}, transport=transport,
            )  # fmt: skip
            read = functools.partial(read_reply, subject, returns=returns, decoder=self._sender.decoder)
            replies, expired = await gather(box, read, count=count, quiet_s=quiet_s, deadline=deadline)
        except NoHandler:
            expired = True  # nobody is there to be told
            raise
        finally:
            box.close()
            if not expired:
                await self._sender.give_up(self.transport(transport), Message(subject, reply_to=box.address))
        if not replies:
            raise DeadlineExceeded(f"no replica answered {subject!r} within {seconds:g} s; raise the timeout")
        return replies

    def _inbox(self, transport: str) -> Inbox:
        inbox = self._inboxes.get(transport)
        if inbox is None:
            inbox = self._inboxes[transport] = Inbox(self.transport(transport))
        return inbox

    def publish(
        self,
        subject: str,
        payload: object,
        *,
        durable: bool = False,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        stream: str | None = None,
        timeout: float | None = None,
        transport: str = "default",
        outbox: bool | str = False,
    ) -> Coroutine[Any, Any, object]:
        """Publish an event.

        Args:
            subject: without wildcards.
            payload: anything that can be encoded.
            durable: return only when the broker has confirmed that it is stored.
            headers: sent along.
            message_id: the same id within two minutes is stored once; only with `durable`.
            stream: the stream to create where none takes the subject yet; by the subject's first token where None.
            timeout: seconds to wait for the broker's confirmation.
            transport: which of the service's transports.
            outbox: write it down with the running database transaction, and send it once that is committed;
                a text is the key within which events keep their order (cliffracer-db).

        Raises:
            ConfigurationError: no plugin keeps an outbox.
            NotStored: the broker did not confirm in time; a retry under the same `message_id` is safe.
            EncodingError, MessageTooLarge, InvalidSubject, InvalidHeader: nothing was sent.
            ConnectionError: not connected, and the buffer is full.
        """
        if not (self.publish_layers or durable or outbox) and timeout is None:
            sender = self._sender  # what follows is `Sender.publish`, with fewer function calls
            sent = sender.plain
            if headers or running_call() is not None or chosen_correlation_id() is not None:
                sent = sender.headers(headers) or None
            to = self._transports.get(transport) or sender.transport(transport)
            try:
                body = sender.encode_quickly(payload)
            except Exception:
                body = b"null"  # which the codec looks at, to say in words of ours what is wrong
            if body.find(b"null") >= 0:
                body = sender.encode(payload)
            return to.publish(Message(subject, body, sent))
        outgoing = Outgoing(
            kind="publish", service=self._service, subject=validate_subject(subject), payload=payload,
            headers=self._sender.headers(headers), transport=transport, durable=durable, stream=stream,
            message_id=message_id, outbox=outbox,
            deadline=time.monotonic() + (self._timeout_s if timeout is None else validate_timeout(timeout)),
        )  # fmt: skip
        return self._publish_through(outgoing)

    async def _publish_through(self, outgoing: Outgoing) -> None:
        await self._publish(outgoing)

    def transport(self, name: str = "default") -> Transport:
        """Return one of the transports, opened. Raises ConfigurationError for a name that is not configured."""
        return self._sender.transport(name)


def _request_subject(service: str, method: str) -> str:
    return f"rpc.{validate_token(service, 'service')}.{validate_token(method, 'method')}"
