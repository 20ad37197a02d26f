"""Several services in one process, and the signals that stop them, in real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import pytest

from cliffracer_core import ClientProxy, CliffracerService, NoHandler, ServiceConfig, ServiceOrchestrator, redrive
from cliffracer_core.caller import Caller
from cliffracer_core.deadletters import DEAD, dlq_stream
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.process import run_until_signal
from cliffracer_core.testing import eventually

PROGRAM = """
import asyncio, os, sys, threading
from cliffracer_core import CliffracerService, MessageContext, ServiceConfig, ServiceOrchestrator, event, rpc

name, url, how = sys.argv[1:]

class Gate:
    def bind(self, service, name):
        return self
    async def open(self):
        if how == "never":
            print("opening", flush=True)
            await asyncio.Event().wait()
    async def close(self):
        print("closed", flush=True)

class Service(CliffracerService):
    gate = Gate()

    async def start(self):
        await super().start()
        print("ready", flush=True)

    @rpc
    async def slow(self, seconds: float) -> str:
        print("running", flush=True)
        await asyncio.sleep(seconds)
        return "done"

    @rpc
    def stuck(self) -> None:
        print("running", flush=True)
        threading.Event().wait()

    @event(f"{name}.made", durable=True, retries=1, ack_wait_s=1.0, backoff_s=0.01)
    async def crash(self, context: MessageContext) -> None:
        print(f"attempt {context.attempt}", flush=True)
        if how == "crash":
            await asyncio.Event().wait()

service = Service(ServiceConfig(name, transport=url, shutdown_grace_s=3.0))
if how == "several":
    ServiceOrchestrator(service).run()
else:
    service.run()
print("ended", flush=True)
"""


class Program:
    """A service in a process of its own, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, line: str) -> None:
        """Wait until it has printed a line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while (got := (await self.process.stdout.readline()).decode()) != f"{line}\n":
                assert got, f"it ended without {line!r}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> tuple[int, list[str]]:
        """Wait for its end and return its status and the lines that were left."""
        out, _ = await asyncio.wait_for(self.process.communicate(), 20)
        return self.process.returncode or 0, out.decode().splitlines()


class Launch(Protocol):
    def __call__(self, how: str = ...) -> Coroutine[Any, Any, Program]: ...


@pytest.fixture
async def launch(nats_url: str, name: str, tmp_path: Path) -> AsyncIterator[Launch]:
    """Start the program above on NATS; kill at the end what still runs."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    programs: list[Program] = []

    async def launch(how: str = "plain") -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(path), name, nats_url, how, stdout=asyncio.subprocess.PIPE
        )
        programs.append(Program(process))
        return programs[-1]

    yield launch
    for each in programs:
        if each.process.returncode is None:
            each.process.kill()
        await each.process.communicate()


@pytest.fixture
async def nats(nats_url: str) -> AsyncIterator[Caller]:
    async with ClientProxy(nats_url) as proxy:
        yield proxy.caller


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["plain", "several"])
async def test_process_drains_and_exits_when_signalled(
    launch: Launch, nats: Caller, name: str, number: signal.Signals, how: str
) -> None:
    """SIGTERM and SIGINT let a running handler answer, close what was opened, and end the process with status 0."""
    program = await launch(how)
    await program.says("ready")
    call = asyncio.create_task(nats.call(name, "slow", {"seconds": 0.3}, timeout=20))
    await program.says("running")
    program.signal(number)
    assert await asyncio.wait_for(call, 20) == "done"
    assert await program.ended() == (0, ["closed", "ended"])


async def test_process_ends_at_once_when_signalled_twice(launch: Launch, nats: Caller, name: str) -> None:
    """A second signal does not wait for the handler that keeps the first one waiting."""
    program = await launch()
    await program.says("ready")
    call = asyncio.create_task(nats.call(name, "slow", {"seconds": 60}, timeout=60))
    await program.says("running")
    program.signal(signal.SIGTERM)
    await eventually(lambda: not_listening(nats, name))
    program.signal(signal.SIGTERM)
    status, lines = await program.ended()
    assert status == 128 + signal.SIGTERM
    assert "closed" not in lines
    call.cancel()


async def not_listening(nats: Caller, name: str) -> bool:
    try:
        await nats.call(name, "slow", {"seconds": 0}, timeout=5)
    except NoHandler:
        return True
    return False


async def test_process_ends_when_signalled_during_its_start(launch: Launch) -> None:
    """A signal that comes while a provider opens undoes the start and ends the process with status 0."""
    program = await launch("never")
    await program.says("opening")
    program.signal(signal.SIGTERM)
    assert await program.ended() == (0, ["ended"])


async def test_event_is_a_dead_letter_when_every_attempt_ends_in_kill_9(
    launch: Launch, nats: Caller, name: str
) -> None:
    """An event whose handler takes its process down each time is parked by the next one, and can be redriven."""
    store = nats.transport()
    assert isinstance(store, DurableTransport)
    await nats.publish(f"{name}.made", {}, durable=True, message_id=f"{name}-1")
    for attempt in (1, 2):
        program = await launch("crash")
        await program.says(f"attempt {attempt}")
        program.process.kill()
        assert (await program.ended())[0] == -signal.SIGKILL
    survivor = await launch()
    await survivor.says("ready")

    async def letters() -> list[Any]:
        return [each async for each in store.browse(dlq_stream(name))]

    (letter,) = await eventually(letters)
    headers = letter.message.headers
    assert (headers[DEAD + "Handler"], headers[DEAD + "Attempts"]) == ("crash", "2")
    assert headers[DEAD + "Cause"].startswith("attempts_exhausted: no attempt of 2 came to an end")
    assert headers["X-Original-Message-ID"] == f"{name}-1"
    await redrive(store, name, letter.sequence)
    await survivor.says("attempt 1")
    survivor.signal(signal.SIGTERM)
    assert (await survivor.ended())[0] == 0


def signals_itself(number: signal.Signals) -> type[CliffracerService]:
    class Service(CliffracerService):
        """Asks itself to stop as soon as it runs."""

        async def start(self) -> None:
            await super().start()
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)

    return Service


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("several", [False, True])
def test_run_returns_when_a_signal_comes(name: str, number: signal.Signals, several: bool) -> None:
    """`run()` blocks until a signal, stops, and leaves the signal handlers as they were."""
    before = signal.getsignal(number)
    service = signals_itself(number)(ServiceConfig(name))
    run: Callable[[], None] = ServiceOrchestrator(service).run if several else service.run
    run()
    assert not service.ready
    assert signal.getsignal(number) == before


class Step:
    """Something to run, which notes what happens to it."""

    def __init__(self, name: str, log: list[str], *, fails: str = "", waits: bool = False) -> None:
        self.name, self.log, self.fails, self.waits = name, log, fails, waits
        self.begun = asyncio.Event()

    async def start(self) -> None:
        self.log.append(f"start {self.name}")
        self.begun.set()
        if self.fails == "start":
            raise ValueError(self.name)
        if self.waits:
            try:
                await asyncio.Event().wait()
            finally:
                self.log.append(f"undone {self.name}")

    async def stop(self) -> None:
        self.log.append(f"stop {self.name}")
        if self.fails == "stop":
            raise ValueError(self.name)


async def test_start_error_is_raised_when_run_cannot_start() -> None:
    """A start that fails is not stopped again, and its error ends `run`."""
    log: list[str] = []
    with pytest.raises(ValueError, match="broken"):
        await run_until_signal(Step("broken", log, fails="start"))
    assert log == ["start broken"]


async def test_start_is_cancelled_when_a_signal_comes_first() -> None:
    """A signal during the start cancels it and `run` returns."""
    log: list[str] = []
    step = Step("slow", log, waits=True)
    running = asyncio.create_task(run_until_signal(step))
    await step.begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    assert log == ["start slow", "undone slow"]


async def test_run_is_cancelled_when_its_task_is() -> None:
    """Whoever runs a service as a task of their own may cancel it: it stops, and stays cancelled."""
    for waits, expected in ((True, ["start one", "undone one"]), (False, ["start one", "stop one"])):
        log: list[str] = []
        step = Step("one", log, waits=waits)
        running = asyncio.create_task(run_until_signal(step))
        await step.begun.wait()
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert log == expected


async def test_services_stop_in_reverse_when_run_together() -> None:
    """An orchestrator starts in the order given, stops in reverse, and a stop that fails keeps no other running."""
    log: list[str] = []
    together = ServiceOrchestrator(Step("one", log), Step("two", log, fails="stop"))
    together.add_service(Step("three", log))
    async with together:
        assert log == ["start one", "start two", "start three"]
        log.clear()
    assert log == ["stop three", "stop two", "stop one"]
    await together.stop()
    assert log == ["stop three", "stop two", "stop one"]


async def test_services_are_stopped_when_a_later_one_cannot_start() -> None:
    """Where one fails to start, those before it are stopped in reverse and its error is raised."""
    log: list[str] = []
    together = ServiceOrchestrator(
        Step("one", log), Step("two", log, fails="stop"), Step("three", log, fails="start"), Step("four", log)
    )
    with pytest.raises(ValueError, match="three"):
        await together.start()
    assert log == ["start one", "start two", "start three", "stop two", "stop one"]


async def test_draining_handler_reaches_the_other_when_both_run_in_one_process(
    transport_url: str, caller: Caller, name: str
) -> None:
    """Services stop one by one in reverse: a handler of the later one still gets its answer from the earlier one."""
    back = CliffracerService(ServiceConfig(f"{name}-back", transport=transport_url))
    front = CliffracerService(ServiceConfig(f"{name}-front", transport=transport_url))
    begun, release = asyncio.Event(), asyncio.Event()

    @back.rpc
    async def help() -> str:
        return "helped"

    @front.rpc
    async def slow() -> str:
        begun.set()
        await release.wait()
        return str(await front.rpc_call(f"{name}-back", "help"))

    together = ServiceOrchestrator(back, front)
    await together.start()
    call = asyncio.create_task(caller.call(f"{name}-front", "slow", timeout=60))
    await asyncio.wait_for(begun.wait(), 10)
    stopping = asyncio.create_task(together.stop())
    await eventually(lambda: not front.ready)
    assert back.ready
    release.set()
    assert await asyncio.wait_for(call, 10) == "helped"
    await asyncio.wait_for(stopping, 10)
    assert not back.ready
