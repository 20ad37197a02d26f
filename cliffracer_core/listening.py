"""What a running service listens to: the endpoints of its handlers, and their orderly end."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterable, Mapping, Sequence

from .compiled import Handler
from .deadletters import dlq_stream
from .delivery import DurableEndpoint, EventEndpoint, Redriver
from .errors import describe
from .handlers import EventOptions, RpcOptions
from .interfaces import DurableSubscription, DurableTransport, MetricsSink, Subscription, Transport
from .requests import QUEUE_GROUP, RequestEndpoint, cancel_subject, on_cancel
from .scatter import Everyone
from .scope import Scope
from .stream_out import Controls, StreamEndpoint
from .subjects import stream_name

__all__ = ["Listening"]

logger = logging.getLogger("cliffracer")


class Listening:
    """The subscriptions of one service.

    Args:
        scope: the running service.
        transports: opened, by name.
        sinks: hear of dropped events.
        queue_size: requests that may wait, per handler.
        event_buffer: core events that may wait, per handler.
        instance: the id of this replica.
    """

    def __init__(
        self,
        scope: Scope,
        transports: Mapping[str, Transport],
        sinks: Sequence[MetricsSink],
        *,
        queue_size: int,
        event_buffer: int,
        instance: str,
    ) -> None:
        self.endpoints: list[RequestEndpoint | EventEndpoint | DurableEndpoint] = []
        self._scope = scope
        self._transports = transports
        self._sinks = sinks
        self._queue_size = queue_size
        self._event_buffer = event_buffer
        self._subscriptions: list[Subscription] = []
        self._cancels: list[Subscription] = []
        self._controls: dict[str, Controls] = {}
        self._everyone: dict[str, Everyone] = {}
        self._instance = instance

    async def start(self, handlers: Iterable[Handler]) -> None:
        """Listen for all of them; in effect at the servers when this returns.

        Raises:
            ConfigurationError: a stream does not cover a durable pattern.
            ConnectionError: a transport lost its connection.
        """
        redriven: dict[str, dict[str, list[DurableEndpoint]]] = {}
        cancels: dict[tuple[str, str], None] = {}
        for handler in handlers:
            for each in handler.declaration.find("core"):
                if isinstance(each.options, RpcOptions):
                    subject = await self._answer(handler, each.options)
                    cancels[each.options.transport, cancel_subject(subject)] = None
                elif isinstance(each.options, EventOptions) and each.options.durable:
                    durable = await self._consume(handler, each.options)
                    of_handler = redriven.setdefault(each.options.transport, {})
                    of_handler.setdefault(handler.declaration.name, []).append(durable)
                elif isinstance(each.options, EventOptions):
                    await self._hear(handler, each.options)
        for name, subject in cancels:
            listen = functools.partial(on_cancel, self._scope)
            self._cancels.append(await self._transports[name].subscribe(subject, listen))
        for name, endpoints in redriven.items():
            await self._redrive(name, endpoints)
        for transport in self._transports.values():
            await transport.flush()

    async def _answer(self, handler: Handler, options: RpcOptions) -> str:
        transport = self._transports[options.transport]
        subject = f"rpc.{options.pattern or handler.name}"
        timeout_s = options.timeout or self._scope.timeout_s
        endpoint: RequestEndpoint
        if handler.streams:
            controls = await self._control(options.transport)
            endpoint = StreamEndpoint(
                handler, transport, subject, controls, timeout_s=timeout_s, queue_size=self._queue_size
            )
        else:
            endpoint = RequestEndpoint(handler, transport, subject, timeout_s=timeout_s, queue_size=self._queue_size)
            await self._answer_for_all(handler, options.transport, timeout_s)
        self.endpoints.append(endpoint)
        self._subscriptions.append(await transport.subscribe(subject, endpoint.on_message, queue=QUEUE_GROUP))
        return subject

    async def _control(self, name: str) -> Controls:
        """Hear the consumers of streams; only where there is something that streams."""
        controls = self._controls.get(name)
        if controls is None:
            controls = self._controls[name] = Controls()
            self._cancels.append(await self._transports[name].subscribe(controls.pattern, controls.on_message))
        return controls

    async def _answer_for_all(self, handler: Handler, name: str, timeout_s: float) -> None:
        transport = self._transports[name]
        if not (transport.capabilities.fanout and transport.capabilities.wildcards):
            return  # `call_all` finds nobody here
        everyone = self._everyone.get(name)
        if everyone is None:
            everyone = self._everyone[name] = Everyone(self._scope, transport, self._instance)
            self._subscriptions.append(await transport.subscribe(everyone.pattern, everyone.on_message))
        everyone.add(handler, timeout_s=timeout_s, queue_size=self._queue_size)

    async def _hear(self, handler: Handler, options: EventOptions) -> None:
        transport = self._transports[options.transport]
        endpoint = EventEndpoint(handler, transport, options, buffer=self._event_buffer, sinks=self._sinks)
        queue = None if options.fanout else options.queue or handler.name
        self.endpoints.append(endpoint)
        self._subscriptions.append(await transport.subscribe(options.pattern, endpoint.on_message, queue=queue))

    async def _consume(self, handler: Handler, options: EventOptions) -> DurableEndpoint:
        transport = self._durable(options.transport)
        endpoint = DurableEndpoint(handler, transport, options)
        subscription = DurableSubscription(
            stream=options.stream or stream_name(options.pattern),
            pattern=options.pattern,
            durable=options.queue or handler.name,
            max_in_flight=handler.gate.limit,
            ack_wait_s=options.ack_wait_s,
        )
        self.endpoints.append(endpoint)
        self._subscriptions.append(await transport.consume(subscription, endpoint.on_delivery))
        return endpoint

    async def _redrive(self, name: str, endpoints: Mapping[str, Sequence[DurableEndpoint]]) -> None:
        service = self._scope.service
        subscription = DurableSubscription(
            stream=dlq_stream(service),
            pattern=f"redrive.{service}.>",
            durable=f"{service}.redrive",
            max_in_flight=10,
            ack_wait_s=max(each.options.ack_wait_s for found in endpoints.values() for each in found),
        )
        redriver = Redriver(endpoints)
        self._subscriptions.append(await self._durable(name).consume(subscription, redriver.on_delivery))

    def _durable(self, name: str) -> DurableTransport:
        transport = self._transports[name]
        assert isinstance(transport, DurableTransport)  # `check_capabilities` has seen to it
        return transport

    async def stop(self, until: float) -> None:
        """Unsubscribe and flush, then finish and answer what runs and what is buffered.

        Args:
            until: loop time at which what still runs is cancelled.
        """
        try:
            async with asyncio.timeout_at(until):
                await asyncio.gather(*(each.drain() for each in self._subscriptions))
        except Exception as error:
            logger.error("service %r: unsubscribing failed: %s", self._scope.service, describe(error))
        await self._scope.finish(max(until, asyncio.get_running_loop().time()))
        for transport in self._transports.values():
            if transport.connected:
                await transport.flush()
        await asyncio.gather(*(each.drain() for each in self._cancels))
