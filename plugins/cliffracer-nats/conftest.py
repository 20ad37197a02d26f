"""One real server for the contracts; tests that break theirs start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cliffracer_nats import EmbeddedNats, embedded_nats


@pytest.fixture(scope="session")
def shared_nats() -> Iterator[EmbeddedNats]:
    with embedded_nats() as server:
        yield server


@pytest.fixture
def own_nats() -> Iterator[EmbeddedNats]:
    with embedded_nats() as server:
        yield server
