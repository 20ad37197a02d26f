"""`python -m benchmarks`: run the measures, print the table, write results.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from cliffracer_nats.embedded import embedded_nats

from .bench import Bench, WorkerError
from .contestants import FASTSTREAM, PEERS
from .machine import processor
from .measures import measures, rpc
from .report import Report

RESULTS = Path(__file__).with_name("results.md")


def main() -> int:
    """Return 0 where everything could be measured, reached or not."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="cliffracer-bench-") as folder:
        reports = []
        for number, python in enumerate(options.python):
            own = Path(folder, str(number))
            own.mkdir()
            with embedded_nats() as server:
                bench = Bench(
                    python, server.url, options.seconds, full=options.full,
                    plugins=options.plugins, faststream=options.faststream, folder=own,
                )  # fmt: skip
                if options.profile:
                    print(rpc.profile(bench, options.contestant[-1], options.profile))
                    continue
                reports.append(_run(bench, options))
                print(
                    f"\nPython {reports[-1].python}\n{reports[-1].text()}\n", file=sys.stderr if options.json else None
                )
    if options.json:
        print(json.dumps([{"python": each.python, "samples": each.samples} for each in reports], indent=1))
    whole = options.measure == list(measures()) and options.contestant == list(PEERS)
    if reports and whole and not options.no_results:
        RESULTS.write_text(_results(reports, options))
    return int(any(each.failures for each in reports))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Cliffracer beside nats-py and FastStream"
    )
    known = list(measures())
    parser.add_argument("--measure", nargs="+", choices=known, default=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--contestant", nargs="+", choices=PEERS, default=list(PEERS), help="leave out the others")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each; the median counts (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a sample, roughly (3)")
    parser.add_argument("--full", action="store_true", help="memory over 1,000,000 calls in place of 100,000")
    parser.add_argument("--python", action="append", metavar="PATH", help="interpreter to measure; may be repeated")
    parser.add_argument("--plugins", default="nats", help="installed plugins that Cliffracer loads (nats)")
    parser.add_argument("--faststream", choices=FASTSTREAM, default=FASTSTREAM[0], help="how it is set up (pydantic)")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON")
    parser.add_argument(
        "--no-results", action="store_true", help="leave results.md as it is, as each run of a part does"
    )
    parser.add_argument(
        "--profile", choices=["server", "client"], help="only profile that side of rpc_64, for the last --contestant"
    )
    options = parser.parse_args()
    options.python = [_interpreter(each, parser) for each in options.python or [sys.executable]]
    return options


def _interpreter(given: str, parser: argparse.ArgumentParser) -> str:
    found = shutil.which(given)
    if found is None:
        parser.error(f"there is no interpreter {given!r}")
    return str(Path(found).absolute())  # not resolved: the link is what makes it a virtual environment's


def _run(bench: Bench, options: argparse.Namespace) -> Report:
    with bench.worker("machine:interpreter", "nobody") as worker:
        facts = worker.hear()
    load_before = os.getloadavg()[0]
    samples: dict[str, dict[str, list[float]]] = {}
    failures: list[str] = []
    for name, measure in measures().items():
        if name not in options.measure:
            continue
        contestants = [each for each in measure.contestants if each not in PEERS or each in options.contestant]
        rounds = measure.rounds or options.rounds
        for turn in range(rounds):
            for contestant in contestants:  # A B C A B C: what disturbs the machine disturbs all
                try:
                    found = measure.sample(bench, contestant)
                except (WorkerError, ValueError, OSError) as error:
                    failures.append(f"{name}, {contestant}: {error}")
                    print(failures[-1], file=sys.stderr)
                    continue
                for row, value in found.items():
                    samples.setdefault(row, {}).setdefault(contestant, []).append(value)
                shown = ", ".join(f"{row} {value:,.1f}" for row, value in found.items())
                print(f"{facts['python']} {turn + 1}/{rounds} {contestant}: {shown}", file=sys.stderr, flush=True)
    return Report(
        samples, facts["python"], eager=facts["eager"], versions=facts["versions"],
        load=(load_before, os.getloadavg()[0]), failures=failures,
    )  # fmt: skip


def _results(reports: list[Report], options: argparse.Namespace) -> str:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    calls = "1,000,000 calls after 200,000" if options.full else "100,000 calls after 20,000"
    head = f"""# Results

Written by `python -m benchmarks` on {day}; README.md says what is measured and how.
{processor()}. Medians of {options.rounds} rounds of {options.seconds:g} s; memory over {calls} to warm up;
plugins of Cliffracer: {options.plugins or "none"}; FastStream with {options.faststream}.
"""
    return "\n".join([head, *(each.markdown() for each in reports)])


if __name__ == "__main__":
    sys.exit(main())
