"""HTTP/3 over QUIC: one UDP socket, its connections, and the end of them all."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from aioquic.asyncio.server import QuicServer
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # imported there to be imported
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.quic.retry import QuicRetryTokenHandler

from cliffracer_core.errors import ConfigurationError

from .h3_limits import CONNECTION_WINDOW, STREAM_WINDOW
from .h3_session import Session
from .interface import Asgi, ServerSettings

__all__ = ["Http3"]

logger = logging.getLogger("cliffracer.http")
_IDLE_S = 60.0
"""After which a peer that says nothing at all is taken for dead; pings keep the others."""
_CUT_S = 1.0
_OPENING, _OPENING_PER_HOST, _OPENING_UNPROVED = 512, 64, 128
"""Connections whose handshake is not done: in all, of one address, and before new ones must prove their address."""
_RECEIVE_BYTES = 1024 * 1024
Header = tuple[bytes, bytes]


class Http3:
    """Serve an application over HTTP/3.

    Args:
        app: an ASGI 3 application.
        settings: with `tls_cert` and `tls_key`.
        headers: gives those that each response has.

    Raises:
        ConfigurationError: QUIC cannot use the certificate.
    """

    def __init__(self, app: Asgi, settings: ServerSettings, headers: Callable[[], list[Header]]) -> None:
        self.app = app
        self.settings = settings
        self.headers = headers
        self.address: tuple[str, int] = ("", 0)
        self.sessions: set[Session] = set()
        self.opening: dict[Session, str] = {}
        """Those whose handshake is not done, with the address they come from."""
        self.is_draining = False
        self._configuration = _configuration(settings)
        self._endpoint: _Endpoint | None = None
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, found: socket.socket) -> None:
        """Serve on a bound UDP socket."""
        quic = logging.getLogger("quic")
        if quic.level == logging.NOTSET:
            quic.setLevel(logging.ERROR)  # what a stranger sends is no news, and would fill the log
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self.address = found.getsockname()[:2]
        loop = asyncio.get_running_loop()
        self._transport, self._endpoint = await loop.create_datagram_endpoint(
            lambda: _Endpoint(self, self._configuration), sock=found
        )

    def renew(self) -> None:
        """Take what the certificate's files hold now, for connections that are made from now on."""
        self._configuration = _configuration(self.settings)
        if self._endpoint is not None:
            self._endpoint.configure(self._configuration)

    def opened(self, session: Session) -> None:
        """Hear that a handshake is done."""
        self.opening.pop(session, None)

    def left(self, session: Session) -> None:
        """Hear that a connection has ended."""
        self.opening.pop(session, None)
        self.sessions.discard(session)

    def drain(self) -> None:
        """Take no more connections and requests; connections end when their requests are answered."""
        self.is_draining = True
        for session in list(self.sessions):
            session.drain()

    async def wait(self) -> None:
        """Wait until all connections have ended."""
        for session in list(self.sessions):
            await session.gone.wait()

    async def close(self) -> None:
        """Cut what is left, and release the port."""
        left = list(self.sessions)
        tasks = {task for session in left for task in session.abort()}
        if left:
            logger.warning("%d connections of HTTP/3 were cut at the end of the grace time", len(left))
        if tasks:
            await asyncio.wait(tasks, timeout=_CUT_S)
        if self._endpoint is not None:
            self._endpoint.forget()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
            await asyncio.sleep(0)  # the socket is closed in the loop's next turn


class _Endpoint(QuicServer):
    """aioquic's server, with a bound for connections that are being made."""

    def __init__(self, server: Http3, configuration: QuicConfiguration) -> None:
        super().__init__(configuration=configuration, create_protocol=self._make)
        self._server = server
        self._tokens = QuicRetryTokenHandler()
        self._host = ""

    def configure(self, configuration: QuicConfiguration) -> None:
        """Use another certificate for new connections."""
        self._configuration = configuration

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        """Take a datagram; one that nobody could use is dropped."""
        found = cast(bytes, data)
        if not found or (found[0] & 0x80 and not self._admits(found, addr[0])):
            return
        self._host = addr[0]
        try:
            super().datagram_received(found, addr)
        except Exception:
            logger.exception("a datagram could not be read")

    def _admits(self, data: bytes, host: str) -> bool:
        """Tell whether a datagram of a handshake may be looked at: it costs time and memory to begin one."""
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=self._configuration.connection_id_length)
        except ValueError:
            return False
        if header.packet_type != QuicPacketType.INITIAL or header.destination_cid in self._protocols:
            return True
        opening = self._server.opening
        if self._server.is_draining or len(opening) >= _OPENING:
            return False
        if Counter(opening.values())[host] >= _OPENING_PER_HOST:
            return False
        must_prove = bool(header.token) or len(opening) >= _OPENING_UNPROVED
        self._retry = self._tokens if must_prove else None  # type: ignore[assignment]  # as aioquic's own
        return True

    def _make(self, connection: Any, **_: Any) -> Session:
        session = Session(connection, self._server)
        self._server.sessions.add(session)
        self._server.opening[session] = self._host
        return session

    def forget(self) -> None:
        """Leave no timer behind."""
        for protocol in set(self._protocols.values()):
            cast(Session, protocol).forget()
        self._protocols.clear()


def _configuration(settings: ServerSettings) -> QuicConfiguration:
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, idle_timeout=_IDLE_S, max_stream_data=STREAM_WINDOW,
        max_data=CONNECTION_WINDOW,
    )  # fmt: skip
    try:
        configuration.load_cert_chain(str(settings.tls_cert), settings.tls_key, settings.tls_key_password)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"http.http3: QUIC cannot use http.tls_cert {settings.tls_cert!r} and http.tls_key {settings.tls_key!r}: "
            f"{error}; give a PEM chain and its key, and http.tls_key_password where the key is encrypted"
        ) from error
    return configuration
