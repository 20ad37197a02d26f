"""nats-py's client with what had to be mended; the only file that touches its private parts.

Each method says what goes wrong in nats-py 2.16 without it.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import ParseResult

from nats import errors
from nats.aio.client import PING_PROTO, Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from .datapath import DataPath, Receive
from .headers import parse_headers

__all__ = ["MendedClient"]


_CONNECTED = Client.CONNECTED


async def _never(msg: Msg) -> None:
    """Stand in as nats-py's callback of a subscription whose messages the data path takes."""


class _Wire(TcpTransport):
    """TCP that sends CONNECT and the PING after it in one piece.

    A server that refuses the credentials answers and closes at once. With PING written separately the
    answer is often lost to a connection reset, and wrong credentials look like a dead server.
    """

    _held = b""

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self.close()  # type: ignore[no-untyped-call]  # nats-py forgets the socket of an attempt that was refused
        await super().connect(uri, buffer_size, connect_timeout)

    def write(self, payload: bytes) -> None:
        if payload.startswith(b"CONNECT "):
            self._held = payload
            return
        held, self._held = self._held, b""
        super().write(held + payload)  # type: ignore[no-untyped-call]  # nats-py has none here

    def __bool__(self) -> bool:
        return True  # false makes nats-py replace it by its own


class MendedClient(Client):
    """A connection that outlives errors the server reports, and timeouts of ours.

    Args:
        direct: read and write messages on a `DataPath` in place of nats-py's parser and queues.
        pending_bytes: what a subscription through nats-py's queue keeps unhandled.
    """

    def __init__(self, *, direct: bool = True, pending_bytes: int = 0) -> None:
        super().__init__()
        self.pending_bytes = pending_bytes
        self.data_path = DataPath() if direct else None
        self._transport = self.data_path or _Wire()  # type: ignore[no-untyped-call]  # nats-py has none here

    @property
    def server_info(self) -> dict[str, Any]:
        """The server's INFO; nats-py shows only `max_payload` of it, and JetStream stands there."""
        return self._server_info

    async def listen(self, pattern: str, queue: str, receive: Receive) -> Subscription:
        """Subscribe with a plain callback: on the data path where there is one, else through nats-py's queue."""
        path = self.data_path
        if path is None:

            async def handle(msg: Msg) -> None:
                receive(msg.subject.encode(), msg.reply.encode() or None, msg.headers, msg.data)

            limit = self.pending_bytes
            return await self.subscribe(pattern, queue, cb=handle, pending_msgs_limit=0, pending_bytes_limit=limit)
        path.hear(b"%d" % (self._sid + 1), receive)  # nats-py takes that number before it first waits
        return await self.subscribe(pattern, queue, cb=_never)

    @property
    def ready(self) -> bool:
        """Whether what is sent now goes onto the data path."""
        return self.data_path is not None and self._status == _CONNECTED and not self._pending

    def send(self, parts: tuple[bytes, ...], size: int) -> bool | None:
        """Send on the data path, with what else this turn of the loop says.

        Args:
            parts: one command, in pieces.
            size: bytes of its headers and body.

        Returns:
            True; False where the socket is full, then `DataPath.drain`; None where it was not sent: while disconnected,
            while nats-py has commands to write before, and where the server may refuse the size.
        """
        path = self.data_path
        if path is None or self._status != _CONNECTED or self._pending or size > self._max_payload:
            return None
        socket = path.socket
        if socket is None:
            return None
        out = socket.out
        out.extend(parts)  # as `DataPath.send`, with one function call less
        if not socket.scheduled:
            socket.schedule()
        elif len(out) > socket.limit:
            socket.write_early()
        return socket.writable is None

    def take_pending(self) -> list[bytes]:
        """Take what nats-py has not written yet, so that the data path can write it before its own."""
        pending, self._pending = self._pending, []
        self._pending_data_size = 0
        return pending

    def unheard(self, subscription: Subscription) -> None:
        """Take a subscription off the data path, once it is drained."""
        if self.data_path is not None:
            self.data_path.unhear(b"%d" % subscription._id)

    def forget(self, subscription: Subscription) -> None:
        """Drop a subscription whose drain failed, so that a reconnect does not bring it back.

        `Subscription._drain` closes it but leaves it in the client's table when its flush times out.
        """
        self.unheard(subscription)
        subscription._stop_processing()
        self._remove_sub(subscription._id)

    def _connect_command(self) -> bytes:
        """Send credentials only over TLS, where the settings ask for it.

        nats-py goes on in plain text where the server does not require TLS, even for `tls://`.
        """
        server = self._current_server
        wanted = self.options.get("tls") is not None or (server is not None and server.uri.scheme == "tls")
        if wanted and not (self._server_info.get("tls_required") or self.options["tls_handshake_first"]):
            raise errors.SecureConnWantedError
        return super()._connect_command()

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        """Parse with our own function.

        nats-py mixes the server's status with a sender's `Status` header, lets the last of a repeated
        name win, and behaves differently where the package fast_mail_parser happens to be installed.
        """
        return parse_headers(headers) if headers else None

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect after the server's `-ERR`.

        nats-py closes for good on all but two of them: a passing `'User Authentication Expired'` or
        `'Maximum Connections Exceeded'` would leave the process deaf for ever.
        """
        error = errors.Error(f"nats: {err_msg.strip(chr(39))}")
        self._err = error
        await self._error_cb(error)
        if "permissions violation" in err_msg or "invalid subject" in err_msg:
            return  # the server keeps the connection
        await self._process_op_err(error)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Send PING behind what was written before.

        nats-py writes it past its own buffer, so that `flush` returns, and `drain` unsubscribes for good,
        before the server has seen what was published.
        """
        self._pongs.append(asyncio.Future() if future is None else future)
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _process_connect_init(self) -> None:
        """Drop PINGs of the connection before; nobody waits for their PONGs, and each would answer another."""
        await super()._process_connect_init()
        kept = [command for command in self._pending if command is not PING_PROTO]
        self._pending_data_size -= len(PING_PROTO) * (len(self._pending) - len(kept))
        self._pending = kept

    async def _process_pong(self) -> None:
        """Skip a PONG nobody waits for any more.

        nats-py sets the result of a flush that timed out or was cancelled; the InvalidStateError ends
        its read loop in silence.
        """
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pongs_received += 1
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """Let a cancelled publisher end.

        nats-py swallows the CancelledError while a full buffer is being written.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        result = await super()._flush_pending(force_flush)
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        return result
