"""Run a test in a world of its own: virtual time, seeded faults, services that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from cliffracer_core.errors import ConfigurationError, ConnectionError
from cliffracer_core.memory import MemoryBroker, MemoryTransport, shared, substitute
from cliffracer_core.service import CliffracerService

from .injector import Event, Faults, Injector
from .network import Network
from .pinned import pinned
from .simulated import SimulatedBroker, SimulatedTransport
from .virtual_time import PROCESS, START_S, Process, VirtualLoop

__all__ = ["Simulation", "simulate"]

logger = logging.getLogger("cliffracer")

T = TypeVar("T")
S = TypeVar("S", bound=CliffracerService)

DAY_S = 86_400.0
_CLEANUP_S = 3_600.0
_SHOWN = 12  # events of the trace in a failure's note


class Simulation:
    """What `simulate` hands to a test: the services, the broker, the faults, the clock.

    Services started with `start` can be killed; the test itself, and what it opens on its own, cannot.
    """

    def __init__(self, loop: VirtualLoop, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.random = random.Random(f"test:{seed}")
        """For the test's own choices."""
        self._loop = loop
        self._injector = Injector(seed, faults)
        self._network = Network(loop, self._injector)
        self._processes: dict[CliffracerService, Process] = {}

    @property
    def now(self) -> float:
        """Virtual seconds since it began."""
        return self._loop.time() - START_S

    @property
    def trace(self) -> Sequence[Event]:
        """What happened so far; the same for the same seed and code."""
        return self._network.trace

    @property
    def broker(self) -> MemoryBroker:
        """The broker of `memory://`."""
        return shared(MemoryBroker, "")

    @property
    def faults(self) -> Faults:
        """What goes wrong from now on; assign others, or `Faults()` for none."""
        return self._injector.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._injector.faults = faults

    async def start(self, service: type[S] | S) -> S:
        """Start a service as a process that can be killed, and return it.

        Its transports and stores are those in memory, whatever its settings say.

        Args:
            service: its class, or one that was made already.

        Raises:
            ConfigurationError: it runs here already.
            ConnectionError: it was killed before it was ready, or the server is down; a retry helps.
            CliffracerError: it could not start.
        """
        made = service() if isinstance(service, type) else service
        if made in self._processes:
            raise ConfigurationError(f"service {made.name!r} runs already; stop or crash it, or start another instance")
        for setting in ("transport", "store"):
            made.config.values[setting] = _in_memory(made.config.values.get(setting))
        process = self._processes[made] = Process(made.name, made)
        try:
            await self._inside(process, made.start())
        except BaseException:
            self._processes.pop(made, None)
            raise
        self._network.note("start", made.name)
        return made

    async def stop(self, service: CliffracerService) -> None:
        """Stop a service gracefully, as SIGTERM does. Raises ConnectionError where it is killed meanwhile."""
        process = self._known(service)
        await self._inside(process, service.stop())
        if self._processes.pop(service, None):
            self._network.note("stop", service.name)

    def crash(self, service: CliffracerService) -> None:
        """Kill a service as `kill -9`: none of its tasks, timers and callbacks runs again, not even `finally`.

        Its connections end, so what it had not acknowledged goes to others. Start a new instance to go on.

        Raises:
            ConfigurationError: it was not started here, or runs no more.
        """
        process = self._known(service)
        del self._processes[service]
        self._network.note("crash", service.name)
        self._loop.killed.append(process)
        process.kill()
        for connection in list(self._network.connections):
            if isinstance(connection, SimulatedTransport) and connection.process is process:
                connection.abort()

    def disconnect(self, service: CliffracerService, for_s: float) -> None:
        """Break a service's connections for so many seconds. Raises ConfigurationError where it does not run here."""
        process = self._known(service)
        for connection in list(self._network.connections):
            if isinstance(connection, SimulatedTransport) and connection.process is process:
                connection.cut(for_s)

    def restart_server(self, down_s: float = 1.0) -> None:
        """Restart the server: all connections break for so many seconds, what was stored is kept."""
        self._network.restart_server(down_s)

    async def until(self, predicate: Callable[[], object], timeout_s: float = 3_600.0) -> Any:
        """Ask `predicate`, plain or async, until what it returns is true, and return that.

        It is asked every 10 ms at first, and less often the longer it takes: at most 1 % late.

        Raises:
            AssertionError: it was not true within `timeout_s` virtual seconds.
        """
        since = self.now
        while True:
            result = predicate()
            if inspect.isawaitable(result):
                result = await result
            waited_s = self.now - since
            if result:
                return result
            if waited_s > timeout_s:
                raise AssertionError(f"{predicate!r} still gives {result!r} after {waited_s:g} s")
            await asyncio.sleep(max(0.01, 0.01 * waited_s))

    async def settle(self) -> None:
        """Return when all messages that are on their way now have arrived or were lost."""
        await self._network.settle()

    def _known(self, service: CliffracerService) -> Process:
        process = self._processes.get(service)
        if process is None:
            raise ConfigurationError(f"service {service.name!r} does not run here; start it with Simulation.start()")
        return process

    async def _inside(self, process: Process, work: Coroutine[Any, Any, T]) -> T:
        """Run in a process; give up where that dies."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        task = self._loop.create_task(work, context=context)
        try:
            await asyncio.wait((task, process.died), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            raise ConnectionError(f"process of service {process.name!r} was killed meanwhile; start a new one")
        return task.result()

    async def run(self, test: Callable[[Simulation], Awaitable[T]]) -> T:
        """Run a test, and stop without faults what still runs after it."""
        substitute(MemoryBroker, lambda: SimulatedBroker(self._network))
        substitute(MemoryTransport, lambda url: SimulatedTransport(self._network, url))
        result = await test(self)
        self.faults = Faults()
        for service in reversed(list(self._processes)):
            await self.stop(service)
        return result

    def clean_up(self) -> None:
        """End all that is left, so that nothing of it runs later; no part of the trace."""
        self._network.recording = False
        for service in list(self._processes):
            self.crash(service)
        frozen = {task for process in self._loop.killed for task in process.frozen}
        rest = [task for task in asyncio.all_tasks(self._loop) if task not in frozen]
        for task in rest:
            task.cancel()
        if rest:
            self._loop.run_until_complete(asyncio.wait(rest))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        for task in frozen:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio has no public name for it
            with contextlib.suppress(BaseException):
                coroutine: Any = task.get_coro()
                coroutine.close()


def simulate(
    test: Callable[[Simulation], Awaitable[T]],
    *,
    seed: int = 0,
    faults: Faults | None = None,
    limit_s: float = 7 * DAY_S,
) -> T:
    """Run an async test under virtual time, with faults chosen by a seed; the same seed gives the same run.

    Args:
        test: takes a `Simulation`.
        seed: of the faults, of `random`, of `uuid4` and of correlation ids.
        faults: what goes wrong between services and broker, and how often; nothing where None.
        limit_s: virtual seconds after which it fails.

    Returns:
        What the test returned.

    Raises:
        Deadlock: nothing can ever happen again, and the test is not over.
        TimeLimit: it took longer than `limit_s`, or spins.
        ConfigurationError: called where an event loop or another simulation runs.
        Exception: whatever the test raised, with the seed and the last events in a note.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ConfigurationError("simulate() runs an event loop of its own; call it from a plain function")
    loop = VirtualLoop(limit_s)
    simulation = Simulation(loop, seed, faults or Faults())
    try:
        with pinned(loop, seed):
            try:
                return loop.run_until_complete(simulation.run(test))
            except BaseException as error:
                error.add_note(_describe(simulation))
                raise
            finally:
                loop.extend(_CLEANUP_S)
                simulation.clean_up()
    finally:
        loop.close()


def _describe(simulation: Simulation) -> str:
    lines = [f"simulation: seed {simulation.seed} failed after {simulation.now:g} s of virtual time"]
    lines.append(f"run it again: simulate(..., seed={simulation.seed})")
    if simulation.trace:
        lines.append(f"the last of {len(simulation.trace)} events:")
    return "\n  ".join([*lines, *(str(event) for event in simulation.trace[-_SHOWN:])])


def _in_memory(setting: object) -> object:
    """Give each name of a `transport` or `store` setting a bus of its own in memory, and the default `memory://`."""
    if isinstance(setting, dict):
        return {name: "memory://" if name == "default" else f"memory://{name}" for name in setting}
    return "memory://"
