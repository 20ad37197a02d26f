"""The contract of a server, all parts together."""

from __future__ import annotations

from .draining import DrainingContract
from .limiting import LimitingContract
from .serving import ServingContract

__all__ = ["HttpServerContract"]


class HttpServerContract(ServingContract, LimitingContract, DrainingContract):
    """What every server promises, as tests; a test of something it does not claim is skipped.

    A subclass named `Test...` sets `kind`, a value of `http.server`, and `claims`.
    """
