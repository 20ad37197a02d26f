"""What is measured: `sample` functions that start a server, load it, and return rows by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench, Worker
from benchmarks.rows import OURS
from benchmarks.suite import Measure

from . import wrk
from .contestants import COLUMNS
from .contestants.cliffracer_app import LAYERS
from .serving import SERVERS

__all__ = ["MEASURES"]

SERVER_CORE, LOAD_CORE = 0, 1
WARM_UP, REQUESTS = 20_000, 100_000
FULL_WARM_UP, FULL_REQUESTS = 200_000, 1_000_000
Sample = Callable[[Bench, str], Mapping[str, float]]


def _requests(method: str, server: str) -> Sample:
    row = f"{method.lower()}_{server}"

    def sample(bench: Bench, contestant: str) -> dict[str, float]:
        with _server(bench, contestant, server) as worker:
            port = worker.hear()["port"]
            wrk.check(port, method)
            wrk.load(port, method, bench.seconds / 4, LOAD_CORE)
            before = _used(worker, "cpu_s")
            found = wrk.load(port, method, bench.seconds, LOAD_CORE)
            cpu_us = (_used(worker, "cpu_s") - before) / found.count * 1e6
        return {row: found.rate, f"{row}_p99": found.p99_us, f"{row}_cpu": cpu_us}

    return sample


def _server(bench: Bench, contestant: str, server: str, variant: str = "plain") -> Worker:
    return bench.worker("web.serving:serve", contestant, server=server, variant=variant, core=SERVER_CORE)


def _used(worker: Worker, what: str) -> float:
    worker.say(what)
    return float(worker.hear()["used"])


def middleware(bench: Bench, contestant: str) -> dict[str, float]:
    """Processor time that each middleware adds, in percent: the variants take turns, the least of each counts."""
    times: dict[str, list[float]] = {}
    variants = {"plain": 1, "layers": LAYERS, "cors": 1, "compression": 1}
    workers = {variant: _server(bench, contestant, "uvicorn", variant) for variant in variants}
    try:
        ports = {variant: worker.hear()["port"] for variant, worker in workers.items()}
        for turn in range(6):  # the first one warms up
            for variant, worker in workers.items():
                before = _used(worker, "cpu_s")
                found = wrk.load(ports[variant], "GET", bench.seconds / 3, LOAD_CORE)
                if turn:
                    times.setdefault(variant, []).append((_used(worker, "cpu_s") - before) / found.count)
    finally:
        for worker in workers.values():
            worker.close()
    least = {variant: min(found) for variant, found in times.items()}
    plain = least.pop("plain")
    return {f"middleware_{variant}": (cpu_s / plain - 1) * 100 / variants[variant] for variant, cpu_s in least.items()}


def memory(bench: Bench, contestant: str) -> dict[str, float]:
    """Growth of the server's private bytes in kB, after it has warmed up."""
    warm_up, requests = (FULL_WARM_UP, FULL_REQUESTS) if bench.full else (WARM_UP, REQUESTS)
    with _server(bench, contestant, "uvicorn") as worker:
        port = worker.hear()["port"]
        found = []
        for wanted in (warm_up, requests):
            count = 0
            while count < wanted:
                for method in ("GET", "POST"):
                    count += wrk.load(port, method, 1.0 if not bench.full else 10.0, LOAD_CORE).count
            found.append(_used(worker, "private"))
    return {"memory": (found[1] - found[0]) / 1000}


MEASURES: dict[str, Measure] = {
    **{
        f"{method.lower()}_{server}": Measure(_requests(method, server), tuple(COLUMNS))
        for server in SERVERS
        for method in ("GET", "POST")
    },
    "middleware": Measure(middleware, (OURS,)),
    "memory": Measure(memory, ("bare", OURS), rounds=1),
}
