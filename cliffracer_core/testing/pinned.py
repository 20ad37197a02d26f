"""What code finds out about the world, made the same in every run: clocks, random numbers, threads."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, TypeVar

from cliffracer_core import context
from cliffracer_core.errors import ConfigurationError
from cliffracer_core.threads import Threads

from .virtual_time import START_S, VirtualLoop

__all__ = ["EPOCH_S", "pinned"]

R = TypeVar("R")

EPOCH_S = 1_704_067_200.0
"""What `time.time()` gives when a simulation begins: 2024-01-01T00:00:00Z."""


@contextlib.contextmanager
def pinned(loop: VirtualLoop, seed: int) -> Iterator[None]:
    """Inside, and in this thread alone, follow the virtual clock and the seed.

    That is: `time.monotonic`, `time.time`, `time.perf_counter`, their `_ns` forms, `time.gmtime`,
    `localtime` and `strftime` of now; `time.sleep`, which lets virtual time pass; `random`'s module
    functions; `os.urandom`, and so `uuid.uuid4`; correlation ids. A `ThreadPoolExecutor` runs what it is
    given at once, in this thread. Whoever wrote `from time import monotonic`, and `datetime.now()`, still
    see the real clock.

    Raises:
        ConfigurationError: another simulation runs in this process.
    """
    if hasattr(time.monotonic, "__wrapped__"):
        raise ConfigurationError("a simulation runs in this process already; run one after the other, or in processes")
    ids, bits = context.ids, random.Random(f"urandom:{seed}")
    states = random.getstate(), ids.next
    with contextlib.ExitStack() as undo:
        _pin_clocks(undo, loop)
        _pin(undo, os, "urandom", bits.randbytes)
        _pin(undo, ThreadPoolExecutor, "submit", _submit)
        _pin(undo, Threads, "submit", _call_at_once)
        random.seed(f"random:{seed}")
        ids.seed(random.Random(f"ids:{seed}").getrandbits)
        undo.callback(random.setstate, states[0])
        undo.callback(setattr, ids, "next", states[1])
        yield


def _pin_clocks(undo: contextlib.ExitStack, loop: VirtualLoop) -> None:
    gmtime, localtime, strftime = time.gmtime, time.localtime, time.strftime

    def now() -> float:
        return loop.time() - START_S + EPOCH_S

    _pin(undo, time, "monotonic", loop.time)
    _pin(undo, context, "clock", loop.time)
    _pin(undo, time, "perf_counter", loop.time)
    _pin(undo, time, "time", now)
    _pin(undo, time, "monotonic_ns", lambda: int(loop.time() * 1e9))
    _pin(undo, time, "perf_counter_ns", lambda: int(loop.time() * 1e9))
    _pin(undo, time, "time_ns", lambda: int(now() * 1e9))
    _pin(undo, time, "gmtime", lambda seconds=None: gmtime(now() if seconds is None else seconds))
    _pin(undo, time, "localtime", lambda seconds=None: localtime(now() if seconds is None else seconds))
    _pin(undo, time, "strftime", lambda text, of=None: strftime(text, localtime(now()) if of is None else of))
    _pin(undo, time, "sleep", loop.advance)


def _pin(undo: contextlib.ExitStack, owner: Any, name: str, virtual: Callable[..., R]) -> None:
    """Put `virtual` in place of a function for this thread; others keep the real one."""
    real: Callable[..., R] = getattr(owner, name)
    here = threading.get_ident()

    @functools.wraps(real)
    def chosen(*arguments: Any, **named: Any) -> R:
        return (virtual if threading.get_ident() == here else real)(*arguments, **named)

    setattr(owner, name, chosen)
    undo.callback(setattr, owner, name, real)


def _submit(pool: ThreadPoolExecutor, function: Callable[..., R], /, *arguments: Any, **named: Any) -> Future[R]:
    """Run a function that was meant for a thread at once, in a new context as there."""
    if pool._shutdown:
        raise RuntimeError("cannot schedule new futures after shutdown")
    return _call_at_once(pool, function, *arguments, **named)


def _call_at_once(pool: object, function: Callable[..., R], /, *arguments: Any, **named: Any) -> Future[R]:
    future: Future[R] = Future()
    try:
        future.set_result(Context().run(function, *arguments, **named))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        future.set_exception(error)
    return future
