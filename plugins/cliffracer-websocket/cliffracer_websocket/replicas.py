"""`Replicas`: what ties a processor to those of its name at the service's other replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.interfaces import DurableTransport, Transport

from .cluster import Cluster
from .envelopes import Post
from .history import History
from .rooms import EVERYONE, Member, Rooms
from .settings import WebSocketSettings
from .streamlog import StreamLog

__all__ = ["Replicas"]


class Replicas:
    """The other replicas; none until `join`.

    Args:
        name: the processor's.
        id: this replica's.
        settings: of the service.
        rooms: the sockets here.
        posted: hears what another replica sends.
        lost: called where publications may have been lost unseen.
    """

    def __init__(
        self, name: str, id: str, settings: WebSocketSettings, rooms: Rooms, posted: Callable[[Post], None],
        lost: Callable[[], None],
    ) -> None:  # fmt: skip
        self._name = name
        self._id = id
        self._settings = settings
        self._rooms = rooms
        self._posted = posted
        self._lost = lost
        self.cluster: Cluster | None = None
        self.stream: StreamLog | None = None
        """The history that all share, where there is one."""

    async def join(self, service: str, transport: Transport) -> None:
        """Meet them.

        Raises:
            ConfigurationError: the transport lacks fan-out, or cannot store what `history='stream'` wants stored.
            ConnectionError: the transport is closed.
        """
        settings, place = self._settings, f"{service}-{self._name or 'processor'}"
        if not transport.capabilities.fanout:
            raise ConfigurationError(
                f"RealTimeStreamProcessor {self._name!r}: the transport has no fan-out; set websocket.transport"
            )
        cluster = Cluster(self._rooms, transport, f"ws-{place}.all", self._id, settings.beat_s, self._posted)
        await cluster.open()
        self.cluster = cluster
        durable = transport.capabilities.durable and isinstance(transport, DurableTransport)
        if settings.history == "stream" and not durable:
            raise ConfigurationError(
                "setting 'websocket.history' is 'stream', and the transport stores nothing; "
                "start NATS with -js, or choose 'memory'"
            )
        if not settings.history_size or settings.history == "memory" or not isinstance(transport, DurableTransport):
            return
        if not durable:
            return
        self.stream = StreamLog(
            History(settings.history_size, settings.history_ttl_s), transport, f"WS_{place}", f"wsh-{place}.log",
            self._id, deliver=self._rooms.deliver, lost=self._lost, leads=lambda: cluster.leads,
        )  # fmt: skip
        await self.stream.open()

    async def leave(self) -> None:
        """Part from them."""
        stream, self.stream = self.stream, None
        cluster, self.cluster = self.cluster, None
        if stream is not None:
            await stream.close()
        if cluster is not None:
            await cluster.close()

    def joined(self, group: str, member: Member) -> None:
        """Tell them that a socket came into a group."""
        if self.cluster is not None:
            self.cluster.joined(group, member.id, member.user)

    def left(self, group: str, id: str) -> None:
        """Tell them that a socket left a group."""
        if self.cluster is not None:
            self.cluster.left(group, id)

    def users(self, group: str = EVERYONE) -> Mapping[str, str]:
        """Return client id and user of each socket that they have in a group."""
        return {} if self.cluster is None else self.cluster.presence.users(group)

    async def post(self, to: str, name: str, data: bytes, key: str | None) -> None:
        """Send them a message for their sockets. Raises ConnectionError."""
        if self.cluster is not None:
            await self.cluster.post(to, name, data, key)
