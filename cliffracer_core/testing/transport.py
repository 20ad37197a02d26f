"""The contract of a transport, all parts together."""

from __future__ import annotations

from .durable import DurableContract
from .lifecycle import LifecycleContract
from .messaging import MessagingContract
from .requests import RequestContract
from .streams import StreamContract

__all__ = ["TransportContract"]


class TransportContract(MessagingContract, RequestContract, DurableContract, StreamContract, LifecycleContract):
    """What every transport promises, as tests; a test that needs a capability it lacks is skipped.

    A subclass named `Test...` writes `make_transport`, and `restart_server` or `cannot_restart`. A fixture
    that runs a server must outlive the test: give it class, module or session scope.
    """
