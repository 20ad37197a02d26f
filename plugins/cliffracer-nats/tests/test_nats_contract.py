from __future__ import annotations

import pytest
from cliffracer_nats import EmbeddedNats, NatsSettings, NatsStore, NatsTransport

from cliffracer_core.interfaces import Store, Transport
from cliffracer_core.testing import StoreContract, TransportContract


class TestNatsTransport(TransportContract):
    """The transport contract, on a real server."""

    server: EmbeddedNats

    @pytest.fixture(autouse=True)
    def _server(self, shared_nats: EmbeddedNats) -> None:
        self.server = shared_nats

    async def make_transport(self) -> Transport:
        return NatsTransport(self.server.url)

    async def restart_server(self) -> None:
        # Not kill -9: the server writes a consumer's acks to disk up to 100 ms late, so an ack may be forgotten
        # in a crash. The tests in test_nats_faults.py do kill it.
        self.server.restart()


class TestNatsTransportThroughNatsPy(TestNatsTransport):
    """The same with nats-py's own parser and queues: both data paths behave alike."""

    async def make_transport(self) -> Transport:
        return NatsTransport(self.server.url, NatsSettings(data_path="nats-py"))


class TestNatsStore(StoreContract):
    """The store contract, on a real server."""

    server: EmbeddedNats

    @pytest.fixture(autouse=True)
    def _server(self, shared_nats: EmbeddedNats) -> None:
        self.server = shared_nats

    async def make_store(self) -> Store:
        return NatsStore(self.server.url)
