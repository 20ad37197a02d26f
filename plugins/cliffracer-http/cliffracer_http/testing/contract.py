"""The contract of an HTTP server, all parts together."""

from __future__ import annotations

from .busy import BusyContract
from .ending import EndingContract
from .exchange import ExchangeContract
from .http3 import Http3Contract
from .http3_ending import Http3EndingContract
from .patience import PatienceContract
from .refusal import RefusalContract

__all__ = ["HttpServerContract"]


class HttpServerContract(
    ExchangeContract,
    RefusalContract,
    PatienceContract,
    EndingContract,
    BusyContract,
    Http3Contract,
    Http3EndingContract,
):
    """What every server promises, as tests; a test that needs a capability it lacks is skipped.

    A subclass named `Test...` writes `make_server`, and `certificate` where the server can TLS.
    """
