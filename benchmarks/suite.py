"""`Suite`: what one of the benchmark commands measures; `Measure`: one of its measures."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from .bench import Bench
from .rows import Row

__all__ = ["Measure", "Suite"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure."""

    sample: Callable[[Bench, str], Mapping[str, float]]
    """Run it once for one contestant; rows by name."""
    contestants: Sequence[str]
    rounds: int | None = None
    """How often, where `--rounds` makes no sense."""


def _nothing(*_: object) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """One command."""

    command: str
    """As it is called: `python -m benchmarks.web`."""
    summary: str
    title: str
    """Of the results, which stand in `results` beside those of the others."""
    results: str
    columns: Mapping[str, str]
    """Contestant to heading; the first one is the base."""
    measures: Mapping[str, Measure]
    rows: Mapping[str, Row]
    distributions: Sequence[str]
    """Whose versions the results name."""
    seconds: float
    """Length of a sample."""
    conditions: Callable[[argparse.Namespace], str]
    """Tell what else the reader of the results has to know."""
    serving: Callable[[argparse.Namespace], AbstractContextManager[Mapping[str, str]]]
    """Run the servers that every sample needs, and give the workers' environment."""
    options: Callable[[argparse.ArgumentParser], None] = _nothing
    """Add options of its own."""
    check: Callable[[argparse.ArgumentParser], None] = _nothing
    """Refuse to run where something is missing."""
    full: str = ""
    """What `--full` does; there is no such option where empty."""
    profiles: Mapping[str, Callable[[Bench, str], str]] = dataclasses.field(default_factory=dict)
    """What can be profiled, for a contestant."""
