"""`python -m benchmarks.web`: run the measures, print the table, write results-http.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import Bench, WorkerError
from benchmarks.machine import processor

from .contestants import PEERS
from .measures import MEASURES
from .report import Report
from .wrk import find_wrk

RESULTS = Path(__file__).resolve().parent.parent / "results-http.md"


def main() -> int:
    """Return 0 where everything could be measured, reached or not."""
    options = _options()
    reports = []
    for python in options.python:
        with tempfile.TemporaryDirectory(prefix="cliffracer-bench-") as folder:
            bench = Bench(
                python, "", options.seconds, full=options.full, plugins="http", faststream="", folder=Path(folder)
            )
            reports.append(_run(bench, options))
        print(f"\nPython {reports[-1].python}\n{reports[-1].text()}\n", file=sys.stderr if options.json else None)
    if options.json:
        print(json.dumps([{"python": each.python, "samples": each.samples} for each in reports], indent=1))
    whole = options.measure == list(MEASURES) and options.contestant == list(PEERS)
    if whole and not options.no_results:
        RESULTS.write_text(_results(reports, options))
    return int(any(each.failures for each in reports))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.web", description="Cliffracer beside other ASGI applications"
    )
    known = list(MEASURES)
    parser.add_argument("--measure", nargs="+", choices=known, default=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--contestant", nargs="+", choices=PEERS, default=list(PEERS), help="leave out the others")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each; the median counts (3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a sample (4)")
    parser.add_argument("--full", action="store_true", help="memory over 1,000,000 requests in place of 100,000")
    parser.add_argument("--python", action="append", metavar="PATH", help="interpreter to measure; may be repeated")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON")
    parser.add_argument("--no-results", action="store_true", help="leave results-http.md, as each run of a part does")
    options = parser.parse_args()
    try:
        find_wrk()
    except FileNotFoundError as error:
        parser.error(str(error))
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two cores are needed, one for the server and one for the load")
    options.python = [_interpreter(each, parser) for each in options.python or [sys.executable]]
    return options


def _interpreter(given: str, parser: argparse.ArgumentParser) -> str:
    found = shutil.which(given)
    if found is None:
        parser.error(f"there is no interpreter {given!r}")
    return str(Path(found).absolute())  # not resolved: the link is what makes it a virtual environment's


def _run(bench: Bench, options: argparse.Namespace) -> Report:
    with bench.worker("web.serving:versions", "nobody") as worker:
        facts = worker.hear()
    load_before = os.getloadavg()[0]
    samples: dict[str, dict[str, list[float]]] = {}
    failures: list[str] = []
    for name in options.measure:
        measure = MEASURES[name]
        for turn in range(1 if measure.once else options.rounds):
            for contestant in (each for each in measure.contestants if each in options.contestant):
                try:
                    found = measure.sample(bench, contestant)
                except (WorkerError, ValueError, OSError) as error:
                    failures.append(f"{name}, {contestant}: {error}")
                    print(failures[-1], file=sys.stderr)
                    continue
                for row, value in found.items():
                    samples.setdefault(row, {}).setdefault(contestant, []).append(value)
                shown = ", ".join(f"{row} {value:,.1f}" for row, value in found.items())
                print(f"{facts['python']} {turn + 1} {contestant}: {shown}", file=sys.stderr, flush=True)
    return Report(samples, facts["python"], facts["versions"], (load_before, os.getloadavg()[0]), failures)


def _results(reports: list[Report], options: argparse.Namespace) -> str:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    requests = "1,000,000 requests after 200,000" if options.full else "100,000 requests after 20,000"
    head = f"""# Results: HTTP

Written by `python -m benchmarks.web` on {day}; README.md says what is measured and how.
{processor()}, one for the server and one for the load. Medians of {options.rounds} rounds of {options.seconds:g} s;
memory over {requests} to warm up.
"""
    return "\n".join([head, *(each.markdown() for each in reports)])


if __name__ == "__main__":
    sys.exit(main())
