"""Threads of synchronous handlers: bounded, reused, and never in the way of the process's end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest

from cliffracer_core.threads import Threads

HUNG = """
import asyncio, os, signal, threading, time
from cliffracer_core import ClientProxy, CliffracerService, ServiceConfig, rpc

class Hung(CliffracerService):
    @rpc
    def hang(self) -> None:
        print("hangs", flush=True)
        time.sleep(600)

    async def start(self) -> None:
        await super().start()
        asyncio.ensure_future(self.caller.call("hung", "hang"))

Hung(ServiceConfig("hung", shutdown_grace_s=0.5)).run()
print("stopped", flush=True)
"""


def test_process_ends_when_a_synchronous_handler_hangs() -> None:
    """A stop is over after its grace time, whatever a handler's thread does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HUNG], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == "stopped\n"
    finally:
        process.kill()
        process.communicate()


def test_threads_are_as_many_as_needed_and_no_more_than_the_limit() -> None:
    """Calls one after the other share a thread; of many at once no more run than the limit allows."""
    threads = Threads(3, "few")
    names = [threads.submit(lambda: threading.current_thread().name).result(10) for _ in range(2)]
    together = threading.Barrier(3)
    many = [threads.submit(together.wait, 10) for _ in range(6)]
    assert not wait(many, 10).not_done
    threads.close()
    assert all(name.startswith("few_") for name in names)
    assert sum(each.name.startswith("few_") for each in threading.enumerate()) <= 3


def test_call_is_left_out_when_it_was_cancelled_before_it_began() -> None:
    """What waits for a thread can be taken back; an error is given to who waits."""
    threads = Threads(1, "one")
    release = threading.Event()
    ran: list[str] = []
    first = threads.submit(release.wait, 10)
    second = threads.submit(ran.append, "second")
    assert second.cancel()
    release.set()
    assert first.result(10)
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(10)
    assert ran == []
    threads.close()
