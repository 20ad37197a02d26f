"""`python -m benchmarks.web`: HTTP: Cliffracer beside other ASGI applications."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from benchmarks.command import main
from benchmarks.suite import Suite

from .contestants import COLUMNS
from .measures import MEASURES
from .rows import ROWS
from .wrk import find_wrk


def _check(parser: argparse.ArgumentParser) -> None:
    try:
        find_wrk()
    except FileNotFoundError as error:
        parser.error(str(error))
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two cores are needed, one for the server and one for the load")


def _conditions(options: argparse.Namespace) -> str:
    requests = "1,000,000 requests after 200,000" if options.full else "100,000 requests after 20,000"
    return f"one core for the server and one for the load;\nmemory over {requests} to warm up"


SUITE = Suite(
    command="python -m benchmarks.web",
    summary="Cliffracer beside other ASGI applications",
    title="HTTP",
    results="results-http.md",
    columns=COLUMNS,
    measures=MEASURES,
    rows=ROWS,
    distributions=(
        "cliffracer-core", "cliffracer-http", "starlette", "msgspec", "uvicorn", "hypercorn", "uvloop", "httptools",
        "fastapi", "pydantic", "litestar", "blacksheep",
    ),
    seconds=4.0,
    full="memory over 1,000,000 requests in place of 100,000",
    conditions=_conditions,
    check=_check,
    serving=lambda _: contextlib.nullcontext({"CLIFFRACER_PLUGINS": "http"}),
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(SUITE))
