"""An event loop whose clock jumps to the next timer: hours pass in milliseconds, and nothing waits in earnest."""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextvars import Context, ContextVar
from typing import Any, NoReturn, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["PROCESS", "START_S", "Deadlock", "Process", "TimeLimit", "VirtualLoop"]

Ts = TypeVarTuple("Ts")

START_S = 1000.0
"""What the loop's clock shows at first, in seconds; above 0, as on any machine that runs."""
MAX_TURNS = 100_000
"""Turns of the loop without any time passing after which it is taken to spin."""


class Deadlock(AssertionError):
    """Nothing is ready and no timer is set: what waits would wait for ever."""


class TimeLimit(AssertionError):
    """The simulation ran for longer than allowed, or spins without letting time pass."""


class Process:
    """What a simulation can kill: everything that runs in a context where `PROCESS` holds it.

    Args:
        name: for errors and the trace.
        root: held as long as this, with all that it holds: what is collected may run code of its own.
    """

    def __init__(self, name: str, root: object = None) -> None:
        self.name = name
        self.root = root
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.frozen: set[asyncio.Task[Any]] = set()
        """Its tasks when it died; held, since a task that is collected runs its `finally` blocks."""
        self._stepped: WeakSet[asyncio.Task[Any]] = WeakSet()

    @property
    def alive(self) -> bool:
        """Whether it was not killed."""
        return not self.died.done()

    def kill(self) -> None:
        """Never run anything of it again, `finally` blocks included, as `kill -9`."""
        if self.alive:
            self.frozen = {task for task in self._tasks() if not task.done()}
            self.died.set_result(None)

    def _tasks(self) -> Iterable[asyncio.Task[Any]]:
        if sys.version_info >= (3, 12):
            tasks = asyncio.all_tasks(self.died.get_loop())
            return [task for task in tasks if task.get_context().get(PROCESS) is self]
        return self._stepped

    def note(self, callback: Callable[..., object]) -> None:
        """Remember the task of which `callback` is a step; before Python 3.12 a task does not say its context."""
        task = getattr(callback, "__self__", None)
        if sys.version_info < (3, 12) and isinstance(task, asyncio.Task):
            self._stepped.add(task)

    def run(self, callback: Callable[[Unpack[Ts]], object], *arguments: *Ts) -> None:
        """Call back, unless it is dead."""
        if self.alive:
            callback(*arguments)


PROCESS: ContextVar[Process | None] = ContextVar("cliffracer_simulated_process", default=None)
"""Where the running code belongs; None for the test itself, which nothing kills."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set depends on when it was made, not on its address.

    TaskGroup and `asyncio.wait` keep tasks in sets, and cancel them in the sets' order.
    """

    def __init__(self, coroutine: Any, *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def set_name(self, value: object) -> None:
        """Name it; by its number where it is given none."""
        super().set_name(f"task {self._number}" if value is None else value)

    def __hash__(self) -> int:
        return self._number


class VirtualSelector(selectors.BaseSelector):
    """Wait for nothing: hand the time to wait to `pass_time`.

    Args:
        pass_time: takes seconds, None where there is no timer.
    """

    def __init__(self, pass_time: Callable[[float | None], None]) -> None:
        self._pass_time = pass_time
        self._map: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Take the loop's own pipe, which is the first, and nothing else."""
        if self._map:
            _not_simulated("a socket, pipe or file")
        key = self._map[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget one."""
        return self._map.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass at once."""
        self._pass_time(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What is registered."""
        return self._map


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop under virtual time.

    Args:
        limit_s: virtual seconds after which it gives up.

    Raises:
        Deadlock: from `run_*`; it names the tasks that wait, and where.
        TimeLimit: from `run_*`, likewise.
    """

    def __init__(self, limit_s: float) -> None:
        self._now = START_S
        self._until = START_S + limit_s
        self._turns = 0
        self._made = 0
        self.killed: list[Process] = []
        self._owners: WeakKeyDictionary[AsyncGenerator[Any, Any], Process] = WeakKeyDictionary()
        super().__init__(VirtualSelector(self._pass_time))
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Seconds on the virtual clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass as if the running code had blocked for so long."""
        self._now += seconds

    def extend(self, seconds: float) -> None:
        """Allow so many seconds from now on."""
        self._until, self._turns = self._now + seconds, 0

    def _pass_time(self, seconds: float | None) -> None:
        if seconds is None:
            raise Deadlock(
                f"deadlock after {self._now - START_S:g} s: nothing is ready and no timer is set; "
                f"these wait for ever:{self.describe_waiting()}"
            )
        if seconds > 0:
            self._turns = 0
            self._now += seconds
            if self._now > self._until:
                raise TimeLimit(
                    f"not over after {self._now - START_S:g} s of virtual time; what waits:{self.describe_waiting()}"
                )
        else:
            self._turns += 1
            if self._turns > MAX_TURNS:
                raise TimeLimit(
                    f"no time passed in {MAX_TURNS} turns of the loop; what runs or waits:{self.describe_waiting()}"
                )

    def describe_waiting(self) -> str:
        """List tasks that are not done, a line each, with where they wait; those of killed processes left out."""
        waiting = [task for task in asyncio.all_tasks(self) if not any(task in each.frozen for each in self.killed)]
        lines = [f"\n  {task.get_name()}: {_where(task)}" for task in waiting]
        return "".join(sorted(lines)) or " nothing"

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As any loop, but what belongs to a killed process is not called."""
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        process.note(callback)
        return super().call_soon(process.run, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As any loop, but what belongs to a killed process is not called."""
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, process.run, callback, *args, context=context)

    def _asyncgen_firstiter_hook(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Leave generators of processes out of `shutdown_asyncgens`: they end with their service, or not at all."""
        process = PROCESS.get()
        if process is None:
            super()._asyncgen_firstiter_hook(generator)  # type: ignore[misc]  # asyncio has no public name for it
        else:
            self._owners[generator] = process

    def _asyncgen_finalizer_hook(self, generator: AsyncGenerator[Any, Any]) -> None:
        process = self._owners.get(generator)
        if process is None or process.alive:
            super()._asyncgen_finalizer_hook(generator)  # type: ignore[misc]  # as above

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> NumberedTask:
        self._made += 1
        return NumberedTask(coroutine, number=self._made, loop=loop, **options)

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a connection")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a listening socket")

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a datagram socket")

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a connection")

    async def create_unix_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a listening socket")

    async def sock_connect(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a connection")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a process")

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        _not_simulated("a process")


def _not_simulated(what: str) -> NoReturn:
    raise RuntimeError(f"{what} cannot be opened in a simulation, whose time is virtual; replace what opens it")


def _where(task: asyncio.Task[Any]) -> str:
    """Find where the innermost coroutine of a task waits."""
    coroutine: Any = task.get_coro()
    place = "not begun"
    while getattr(coroutine, "cr_frame", None) is not None:
        frame = coroutine.cr_frame
        place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        coroutine = coroutine.cr_await
    return place
