"""Embedded servers, and what to install where one is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from cliffracer_db.embedded import EmbeddedPostgres
    from cliffracer_nats.embedded import EmbeddedNats

__all__ = ["running_nats", "running_postgres"]


@contextlib.contextmanager
def running_nats() -> Iterator[EmbeddedNats]:
    """Run a NATS server; fail the test, and say what to install, where it or the plugin is missing."""
    from cliffracer_core.errors import ConfigurationError

    try:
        from cliffracer_nats.embedded import embedded_nats
    except ModuleNotFoundError as error:
        _missing("nats_server", f"module {error.name!r}", "nats")
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(embedded_nats())
        except ConfigurationError:
            _missing("nats_server", "the nats-server binary", "nats")
        yield server


@contextlib.contextmanager
def running_postgres() -> Iterator[EmbeddedPostgres]:
    """Run a PostgreSQL server; fail the test, and say what to install, where it or the plugin is missing."""
    from cliffracer_core.errors import ConfigurationError

    try:
        from cliffracer_db.embedded import embedded_postgres
    except ModuleNotFoundError as error:
        _missing("postgres_server", f"module {error.name!r}", "db")
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(embedded_postgres())
        except ConfigurationError:
            _missing("postgres_server", "a PostgreSQL server", "db")
        yield server


def _missing(fixture: str, what: str, extra: str) -> NoReturn:
    pytest.fail(f"fixture {fixture!r} needs {what}; pip install 'pytest-cliffracer[{extra}]'", pytrace=False)
