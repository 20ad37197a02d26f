"""Hook implementations; no client library is imported before a transport or store is made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import Section, ServiceInfo, Store, StoreFactory, Transport, TransportFactory

from .settings import SECRETS, NatsSettings, options_url


@hookimpl
def cliffracer_register_settings() -> Sequence[Section]:
    """Offer the section `nats`, and the flat name `nats_url`."""
    return [
        Section(name="nats", type=NatsSettings, flat={"nats_url": "url"}, transport_field="url", secrets=SECRETS),
    ]


@hookimpl
def cliffracer_register_transports() -> Sequence[TransportFactory]:
    """Offer `nats://` and `tls://`."""
    return [TransportFactory(schemes=("nats", "tls"), create=_transport, options_url=options_url)]


@hookimpl
def cliffracer_register_stores() -> Sequence[StoreFactory]:
    """Offer `nats://` and `tls://`, with the bucket as `?bucket=name`."""
    return [StoreFactory(schemes=("nats", "tls"), create=_store)]


@hookimpl(optionalhook=True)
def cliffracer_register_embedded_servers() -> Sequence[SimpleNamespace]:
    """Offer `cliffracer dev` a server for the setting `transport`; see `cliffracer_cli.hookspecs.EmbeddedServer`."""
    return [SimpleNamespace(name="nats", setting="transport", start=_embedded)]


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    from .embedded import embedded_nats

    with embedded_nats() as server:
        yield server.url


def _transport(url: str, service: ServiceInfo) -> Transport:
    from .transport import NatsTransport  # nats-py takes 100 ms to import

    return NatsTransport.create(url, service)


def _store(url: str, service: ServiceInfo) -> Store:
    from .store import NatsStore

    return NatsStore.create(url, service)
