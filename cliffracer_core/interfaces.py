"""What a plugin implements: transports, stores, servers, authenticators, sinks, providers.

These are Protocols: a class that has the methods fits, nothing is inherited.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, Self, runtime_checkable

import msgspec

from .context import Identity, MessageContext
from .messages import Delivery, Message, StoredMessage

__all__ = [
    "Authenticator",
    "Call",
    "Capabilities",
    "Check",
    "DurableSubscription",
    "DurableTransport",
    "EntryPoint",
    "Entry",
    "HealthCheck",
    "HttpServer",
    "Lease",
    "Lifespan",
    "MetricsSink",
    "Middleware",
    "Outgoing",
    "OutgoingDeclaration",
    "ParameterResolver",
    "Provider",
    "Resolver",
    "Route",
    "Section",
    "Security",
    "Send",
    "ServiceAttribute",
    "ServiceFace",
    "ServiceInfo",
    "Signature",
    "SocketLimits",
    "Store",
    "StoreFactory",
    "Subscription",
    "Transport",
    "TransportFactory",
    "Wiring",
]

Call = Callable[[MessageContext], Awaitable[object]]
"""One step of the chain in: takes the call, returns the handler's result."""


class Outgoing(msgspec.Struct, kw_only=True, eq=False):
    """A call or a publish on its way out, as the outgoing chain sees it."""

    kind: Literal["call", "publish"]
    service: str
    """The service that sends."""
    subject: str
    payload: object
    headers: dict[str, str] = {}
    deadline: float | None = None
    """Point on `time.monotonic()`; a call is not awaited past it."""
    returns: Any = None
    """The type a call's result is decoded into."""
    transport: str = "default"
    durable: bool = False
    stream: str | None = None
    message_id: str | None = None
    outbox: bool | str = False
    """A plugin writes it down in the running transaction, to be sent after it; a text orders what has the same."""


Send = Callable[[Outgoing], Awaitable[object]]
"""One step of the chain out: takes what is sent, returns the reply (None for a publish)."""


class OutgoingDeclaration(msgspec.Struct, frozen=True):
    """What plugins are asked to wrap: everything of one kind that one service sends."""

    service: str
    kind: Literal["call", "publish"]


class Middleware(msgspec.Struct, frozen=True):
    """A layer around a handler or a send.

    `wrap` runs once, at start: it takes the next step and returns the step to call instead.
    Stages nest `observe` (outermost), `guard`, `shape` (innermost); then by `order`, then plugin name.
    """

    stage: Literal["observe", "guard", "shape"]
    order: int
    wrap: Callable[[Any], Any]
    name: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport can do; a handler that needs more stops the start."""

    request: bool = True
    wildcards: bool = True
    queue_groups: bool = True
    fanout: bool = True
    durable: bool = False
    ordered: bool = True
    """Messages on one subject from one publisher arrive in the order they were sent."""
    max_payload: int | None = None
    """Bytes of the largest body; None where there is no limit."""


class Subscription(Protocol):
    """Something listened to."""

    async def drain(self) -> None:
        """Stop listening; when this returns, all that had arrived has been handed over, and no more will be."""


class Transport(Protocol):
    """Carry messages. The suite `cliffracer_core.testing.TransportContract` says exactly what that means.

    Callbacks are plain functions, called on the event loop, and never block.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; valid once it is open."""

    @property
    def connected(self) -> bool:
        """Whether it is connected just now; False while it reconnects."""

    async def open(self) -> None:
        """Connect.

        Raises:
            ConnectionError: nobody there, or refused, within 5 s; it does not keep trying.
        """

    async def close(self) -> None:
        """Drain every subscription, send what is buffered and disconnect; requests that wait fail with ConnectionError.

        Safe to call twice, and after a failed `open`.
        """

    async def flush(self) -> None:
        """Return when the server has taken all that was published before."""

    async def publish(self, message: Message) -> None:
        """Send to whoever listens, once; returns when it is buffered.

        A stream that takes the subject stores it too. Later changes to `message` change nothing.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: nothing was sent.
            ConnectionError: closed.
        """

    async def request(self, message: Message, timeout_s: float) -> Message:
        """Send, with `message.reply_to` filled in, and return the first reply.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: nothing was sent.
            ConnectionError: closed, before or while it waits.
            NoHandler: nobody listens; at once.
            DeadlineExceeded: no reply within `timeout_s` seconds.
        """

    async def subscribe(
        self, pattern: str, on_message: Callable[[Message], None], *, queue: str | None = None
    ) -> Subscription:
        """Listen; of the subscribers in one `queue`, whatever their patterns, one gets each message.

        Active when this returns.

        Raises:
            InvalidSubject: pattern or queue breaks the grammar; a queue follows that of subjects.
        """


class DurableSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """What a durable handler consumes: messages of `stream` that match `pattern`, under a name."""

    stream: str
    pattern: str
    durable: str
    """The consumer's name, `<service>.<handler>`: its place in the stream outlives the process."""
    max_in_flight: int = 100
    """At most so many deliveries are out, neither acked nor nacked, at this subscriber."""
    ack_wait_s: float = 30.0
    """After so long without ack, nak or in_progress the broker delivers again."""


@runtime_checkable
class DurableTransport(Transport, Protocol):
    """A transport that keeps messages until they are acknowledged."""

    async def publish_durable(self, message: Message, *, stream: str, message_id: str, timeout_s: float) -> None:
        """Store a message and return once the broker has confirmed it.

        The stream is created where it is missing, with `subjects.default_stream_subjects`. The same
        `message_id` on one stream within its duplicate window (at least 2 minutes) is stored once.
        Plain subscribers get the message too.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: nothing was stored; an id is checked as a header is.
            NotStored: no confirmation within `timeout_s` seconds, or no stream takes the subject.
        """

    async def consume(self, subscription: DurableSubscription, on_delivery: Callable[[Delivery], None]) -> Subscription:
        """Receive each message of the stream at least once, shared among all consumers of one name.

        A name that was never used before starts with the oldest message the stream holds.

        Raises:
            ConfigurationError: the stream does not cover the whole pattern, or would overlap another.
            InvalidSubject: the stream would take requests.
        """

    def browse(self, stream: str, *, after: int = 0) -> AsyncIterator[StoredMessage]:
        """Yield what a stream holds, oldest first, from the sequence number past `after`; consumes nothing."""

    async def delete(self, stream: str, sequence: int) -> bool:
        """Remove one stored message; False where it was gone already."""


class Lease(msgspec.Struct, frozen=True):
    """A right that one holder has until it expires; `epoch` (a fencing token) grows with every grant but a renewal."""

    key: str
    holder: str
    epoch: int
    ttl_s: float


class Store(Protocol):
    """Keep small values by key. `cliffracer_core.testing.StoreContract` says exactly what that means.

    Keys are any non-empty text up to 512 bytes; others raise ValidationError. A revision is a positive
    integer that grows with each write of a key, also across a delete. Leases have keys of their own, which
    no other method sees. Once closed, methods raise ConnectionError.
    """

    async def open(self) -> None:
        """Connect. Raises ConnectionError."""

    async def close(self) -> None:
        """Disconnect; safe to call twice."""

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision, None where there is none or its time has passed."""

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """Write unconditionally and return the new revision; without `ttl_s` it stays for good."""

    async def compare_and_swap(
        self, key: str, value: bytes, *, revision: int, ttl_s: float | None = None
    ) -> int | None:
        """Write if the present revision is `revision` (0: if there is no value); None if it is not.

        As with `put`, without `ttl_s` the new value stays for good.
        """

    async def delete(self, key: str, *, revision: int | None = None) -> bool:
        """Remove (if the revision is still `revision`); False where nothing was removed."""

    def scan(self, prefix: str = "") -> AsyncIterator[tuple[str, bytes, int]]:
        """Yield key, value and revision of each key that starts with `prefix`, by key."""

    async def acquire(self, key: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take a lease, or renew it where `holder` has it already; None while another holds it."""

    async def release(self, lease: Lease) -> bool:
        """Give a lease back; False where it is no longer this holder's in this epoch."""


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What hooks learn of a service: plain data, never the running object."""

    name: str
    version: str
    description: str = ""
    id: str = ""
    """Unique to this instance."""
    metadata: Mapping[str, str] = {}
    settings: Mapping[str, object] = {}
    """Each plugin's section under its name, as the Struct it registered."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin's settings: a Struct whose fields all have defaults, and the flat names that also set them."""

    name: str
    type: type[msgspec.Struct]
    flat: Mapping[str, str] = {}
    """Flat ServiceConfig name to field, such as `nats_url` to `url`; upper case it is an environment variable."""
    transport_field: str | None = None
    """A field which, where it is set and `transport` is not, becomes the default transport's URL."""
    secrets: frozenset[str] = frozenset()
    """Fields that are masked wherever settings are shown."""


class TransportFactory(msgspec.Struct, frozen=True, kw_only=True):
    """Make transports for URL schemes. `create` gets the URL and the service, and does no I/O."""

    schemes: Sequence[str]
    create: Callable[[str, ServiceInfo], Transport]
    options_url: Callable[[Mapping[str, object]], str] | None = None
    """Build a URL from `ClientProxy` options such as `{"host": ..., "port": ...}`."""


class StoreFactory(msgspec.Struct, frozen=True, kw_only=True):
    """Make stores for URL schemes. `create` gets the URL and the service, and does no I/O."""

    schemes: Sequence[str]
    create: Callable[[str, ServiceInfo], Store]


@runtime_checkable
class Provider(Protocol):
    """A resource declared on a service class: a repository, a client, a pool.

    What stands on the class is a template: start calls `bind` for each instance and sets what it
    returns there, then opens it before handlers start and closes it after they stopped.
    """

    def bind(self, service: ServiceInfo, name: str) -> Self:
        """Return a copy for one instance; `name` is the attribute."""

    async def open(self) -> None:
        """Acquire; a failure stops the start."""

    async def close(self) -> None:
        """Release; called once for each successful `open`."""


class Signature(msgspec.Struct, frozen=True):
    """What a handler takes and gives, as types that `msgspec.json.schema` understands."""

    arguments: Any
    """What a body is decoded into: a Struct of the named arguments, or the type of the whole body."""
    returns: Any
    streams: bool = False
    """It streams its reply; `returns` is then the type of one item."""
    injected: Mapping[str, type] = {}
    """Parameters that are given, not decoded, and by which type they are found."""


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """One way to be let in to a handler, for documents; the guard itself is a `Middleware`."""

    name: str = ""
    """Of the scheme, such as `bearer`; without one a caller need show nothing."""
    scheme: Mapping[str, object] = {}
    """As OpenAPI describes it: `{"type": "http", "scheme": "bearer"}`."""
    scopes: Sequence[str] = ()
    """Scopes or roles that the caller must have."""


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What a lifespan works with."""

    service: ServiceInfo
    declarations: Sequence[Any]
    """The service's `Declaration`s."""
    signatures: Mapping[str, Signature]
    """By the handler's name."""
    security: Mapping[str, Sequence[Security]] = {}
    """Ways to be let in, any of which will do, by the handler's name; none for one that plugins say nothing of."""
    transports: Mapping[str, Transport]
    stores: Mapping[str, Store]
    ready: Callable[[], bool]
    providers: Mapping[str, Provider] = {}
    """By attribute name, opened."""
    health: Callable[[], Awaitable[dict[str, Mapping[str, object]]]]
    """As `CliffracerService.health`."""
    timeout_s: float = 30.0
    """What a call may take where nobody says otherwise."""
    grace_s: float = 10.0
    """The whole of a stop."""
    attributes: Mapping[str, object] = {}
    """What plugins made as attributes of this service, as far as the program has used them."""
    adopt: Callable[[str, Callable[..., Any]], tuple[Entry, Signature]]
    """Compile a function that a program hands over while the service runs, under a name, as handlers are: the same
    chain, limit and injected parameters; marks on it count. One adopted before under this name is let go.
    Raises ConfigurationError."""


Lifespan = Callable[[Wiring], AbstractAsyncContextManager[object]]
"""Entered after providers are open, before handlers listen; left after they have stopped."""

HealthCheck = Callable[[], Awaitable[Mapping[str, object] | None]]
"""Return facts for the detailed health page, None where there is nothing to check; raise where it is unwell."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A health check with a time limit of its own."""

    run: HealthCheck
    timeout_s: float = 5.0


Resolver = Callable[[MessageContext], object]
"""Give a handler's injected parameter its value."""


class ParameterResolver(Protocol):
    """A resolver that wants to know which parameter it serves."""

    def __call__(self, context: MessageContext, /) -> object:
        """Give the value."""

    def for_parameter(self, name: str) -> Resolver:
        """Return the resolver of one parameter; called once, at start."""


class ServiceFace(Protocol):
    """What a service's attribute is made for: the service object, which need not be running."""

    name: str

    @property
    def ready(self) -> bool:
        """Whether it runs and is connected."""

    @property
    def info(self) -> ServiceInfo:
        """Name and settings. Raises ConnectionError while it is not running."""

    async def wiring(self) -> Wiring:
        """What plugins work with; compiled, without any I/O, where it is not running."""

    def handler(self, decorator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Turn a decorator of handlers into one that adds the function to this service."""


ServiceAttribute = Callable[[Any], object]
"""Make the value of an attribute for a service (a `ServiceFace`); called once for each service object."""


class EntryPoint(Protocol):
    """Another way into a handler: a timer, a queue of some other system."""

    async def start(self, entry: Entry) -> None:
        """Begin to call `entry.invoke(...)`."""

    async def stop(self) -> None:
        """Begin no more calls."""


class Entry(Protocol):
    """A compiled handler as entry points, routes and sockets use it."""

    @property
    def name(self) -> str:
        """`<service>.<handler>`."""

    async def invoke(
        self,
        *,
        kind: str,
        arguments: Mapping[str, object] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        subject: str = "",
        timeout_s: float | None = None,
        state: Mapping[str, object] | None = None,
    ) -> object:
        """Run one call through the whole chain, in a task of its own, and return the handler's result.

        Values of `arguments` are checked against the signature as a decoded body is; given None, `body`
        is decoded instead. Waits where the handler is at its concurrency limit.

        Raises:
            CliffracerError: what the chain raised.
        """

    async def attend(self, context: MessageContext) -> object:
        """Run a call that lasts as long as a connection, on the current task; `context.arguments` are given.

        It has no deadline but the context's, and takes no slot of the handler's concurrency: whoever
        accepts connections limits them.

        Raises:
            CliffracerError: what the chain raised.
        """

    async def call(self, context: MessageContext) -> object:
        """Run one call through the whole chain in the current task, and return the handler's result.

        For edges that have a task of their own for each call already, such as HTTP servers. The context
        says all there is to say: `arguments` decoded and checked, `deadline` set, headers admitted.
        Past the concurrency limit it waits in a bounded queue. When the current task is cancelled, so is
        the handler.

        Raises:
            Overloaded: too many wait already, or the service stops.
            DeadlineExceeded: the deadline came.
            Exception: whatever the chain raised.
        """


class SocketLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server enforces of websockets, before anything of them reaches a route."""

    max_message_bytes: int = 64 * 1024
    """A longer message closes its socket with 1009."""
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    """A client that does not answer a ping for so long is cut off."""
    compression: bool = False


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP or websocket route that a plugin found on a declaration."""

    path: str
    methods: Sequence[str] = ("GET",)
    declaration: Any = None
    options: Mapping[str, object] = {}


class HttpServer(Protocol):
    """Serve the routes of one service; services of one process may share a port."""

    async def start(self, wiring: Wiring, routes: Sequence[tuple[Route, Entry]], asgi: Sequence[Any]) -> None:
        """Listen; `asgi` are ASGI middleware factories, outermost first."""

    async def stop(self) -> None:
        """Accept no more, finish what runs."""


class Authenticator(Protocol):
    """Turn credentials in a call's headers into an identity."""

    async def authenticate(self, headers: Mapping[str, str]) -> Identity | None:
        """Return who it is; None where these headers carry nothing of this kind.

        Raises:
            AuthenticationError: they do, and it is wrong.
        """


class MetricsSink(Protocol):
    """Take measurements."""

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Take one; fast, never raising."""
