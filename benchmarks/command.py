"""`main`: the command line that all suites share: run the measures, print the table, write the results."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .bench import Bench, WorkerError
from .machine import processor
from .report import Facts, Report
from .suite import Suite

__all__ = ["main"]

HERE = Path(__file__).parent


def main(suite: Suite) -> int:
    """Return 0 where everything could be measured, reached or not; 1 where something failed."""
    options = _options(suite)
    reports = []
    for python in options.python:
        with tempfile.TemporaryDirectory(prefix="cliffracer-bench-") as folder, suite.serving(options) as env:
            bench = Bench(python, options.seconds, full=options.full, env=env, folder=Path(folder))
            if options.profile:
                print(suite.profiles[options.profile](bench, options.contestant[-1]))
                continue
            report = _run(suite, bench, options)
        reports.append(report)
        print(f"\nPython {report.facts.python}\n{report.text()}\n", file=sys.stderr if options.json else None)
    if options.json:
        print(json.dumps([{"python": each.facts.python, "samples": each.samples} for each in reports], indent=1))
    whole = options.measure == list(suite.measures) and options.contestant == list(suite.columns)
    if reports and whole and not options.no_results:
        (HERE / suite.results).write_text(_results(suite, reports, options))
    return int(any(each.failures for each in reports))


def _options(suite: Suite) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=suite.command, description=suite.summary)
    add = parser.add_argument
    measures, contestants = list(suite.measures), list(suite.columns)
    add("--measure", "--only", nargs="+", choices=measures, default=measures, metavar="NAME", help=", ".join(measures))
    add(
        "--contestant", nargs="+", choices=contestants, default=contestants, metavar="NAME",
        help=f"leave out the others; {', '.join(contestants)}",
    )  # fmt: skip
    add("--rounds", type=int, default=3, help="samples of each; the median counts (3)")
    add("--seconds", type=float, default=suite.seconds, help=f"length of a sample, roughly ({suite.seconds:g})")
    add("--python", action="append", metavar="PATH", help="interpreter to measure; may be repeated")
    add("--json", action="store_true", help="print every sample as JSON")
    add("--no-results", action="store_true", help=f"leave {suite.results} as it is, as each run of a part does")
    parser.set_defaults(full=False, profile=None)
    if suite.full:
        add("--full", action="store_true", help=suite.full)
    if suite.profiles:
        add("--profile", choices=list(suite.profiles), help="only profile that, for the last --contestant")
    suite.options(parser)
    options = parser.parse_args()
    suite.check(parser)
    options.python = [_interpreter(each, parser) for each in options.python or [sys.executable]]
    return options


def _interpreter(given: str, parser: argparse.ArgumentParser) -> str:
    found = shutil.which(given)
    if found is None:
        parser.error(f"there is no interpreter {given!r}")
    return str(Path(found).absolute())  # not resolved: the link is what makes it a virtual environment's


def _run(suite: Suite, bench: Bench, options: argparse.Namespace) -> Report:
    with bench.worker("machine:interpreter", "nobody", distributions=list(suite.distributions)) as worker:
        facts = worker.hear()
    load_before = os.getloadavg()[0]
    samples: dict[str, dict[str, list[float]]] = {}
    failures: list[str] = []
    for name in (each for each in suite.measures if each in options.measure):
        measure = suite.measures[name]
        # who takes part in a measure alone, such as a bare task, cannot be left out
        contestants = [each for each in measure.contestants if each not in suite.columns or each in options.contestant]
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
    conditions = Facts(facts["python"], facts["eager"], facts["versions"], (load_before, os.getloadavg()[0]))
    return Report(samples, suite.rows, suite.columns, conditions, failures)


def _results(suite: Suite, reports: list[Report], options: argparse.Namespace) -> str:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = f"""# Results: {suite.title}

Written by `{suite.command}` on {day}; README.md says what is measured and how.
{processor()}. Medians of {options.rounds} rounds of {options.seconds:g} s; {suite.conditions(options)}.
"""
    return "\n".join([head, *(each.markdown() for each in reports)])
