"""Faults, how likely each is, and the seeded choice of when they happen."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec

from cliffracer_core.errors import ConfigurationError

__all__ = ["Event", "Fate", "Faults", "Injector"]


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong between services and broker, and how often; nothing without arguments.

    Probabilities are those of one message on one way: a request has two ways, a durable event those of
    storing, confirming, delivering and acknowledging.

    Raises:
        ConfigurationError: a value that makes no sense.
    """

    drop: float = 0.0
    """Probability that a message is lost on its way."""
    delay_s: tuple[float, float] = (0.0, 0.0)
    """Least and most seconds that a message is on its way; those of one connection stay in order."""
    duplicate: float = 0.0
    """Probability that a durable event is delivered again at once; nothing else is ever sent twice."""
    reorder: float = 0.0
    """Probability that a message is overtaken by those behind it."""
    disconnect: float = 0.0
    """Probability that a message's connection breaks; what is on its way there is lost."""
    restart: float = 0.0
    """Probability that the server restarts: all connections break, what was stored is kept."""
    outage_s: tuple[float, float] = (0.05, 2.0)
    """Least and most seconds until a connection is back."""

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "reorder", "disconnect", "restart"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f"fault {name!r} is {getattr(self, name)!r}; write a probability, 0 to 1")
        for name in ("delay_s", "outage_s"):
            least, most = getattr(self, name)
            if not 0.0 <= least <= most < float("inf"):
                raise ConfigurationError(f"fault {name!r} is {getattr(self, name)!r}; write (least, most) in seconds")


class Fate(NamedTuple):
    """What happens to one message on one way."""

    drop: bool
    delay_s: float
    reorder_s: float
    """Seconds it is held back while others overtake it; 0 where it keeps its place."""
    duplicate: bool


class Event(msgspec.Struct, frozen=True):
    """One line of a trace."""

    at_s: float
    """Seconds since the simulation began."""
    what: str
    """`arrive`, `drop`, `lost`, `reorder`, `duplicate` for a message; `disconnect` and `reconnect` for a connection;
    `restart` for the server; `start`, `stop` and `crash` for a service."""
    who: str
    """The service, or `test`."""
    about: str = ""

    def __str__(self) -> str:
        return f"{self.at_s:14.6f} s  {self.what:<10} {self.who:<12} {self.about}".rstrip()


class Injector:
    """Choose what goes wrong; the same seed and the same questions give the same answers.

    Args:
        seed: of its own random numbers, which nothing else takes from.
        faults: how likely each is; may be replaced at any time.
    """

    def __init__(self, seed: int, faults: Faults) -> None:
        self.faults = faults
        self._random = random.Random(f"faults:{seed}")

    def fate(self) -> Fate:
        """Choose for one message. Takes equally many random numbers whatever the faults are."""
        faults, draw = self.faults, self._random.random
        drop, reorder, duplicate = draw() < faults.drop, draw() < faults.reorder, draw() < faults.duplicate
        least, most = faults.delay_s
        delay_s, held_s = least + (most - least) * draw(), 0.001 + max(most, 0.01) * draw()
        return Fate(drop, delay_s, held_s if reorder else 0.0, duplicate)

    def breakage(self) -> str | None:
        """Choose whether the `server` or a `connection` fails now."""
        number = self._random.random()
        if number < self.faults.restart:
            return "server"
        return "connection" if number < self.faults.restart + self.faults.disconnect else None

    def outage_s(self) -> float:
        """Choose how many seconds a connection is down."""
        return self._random.uniform(*self.faults.outage_s)
