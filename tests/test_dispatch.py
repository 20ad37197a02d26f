"""Compiled handlers: the chain, threads, contexts, errors, and entry points."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cliffracer_core import (
    Cancelled,
    CliffracerService,
    ConfigurationError,
    DeadlineExceeded,
    Declaration,
    MessageContext,
    Middleware,
    Overloaded,
    RPCError,
    ServiceConfig,
    ServiceError,
    ValidationError,
    current_context,
    error_handler,
    get_correlation_id,
    handle_errors,
    hookimpl,
    rpc,
    with_correlation_id,
)
from cliffracer_core.interfaces import Call, Entry
from cliffracer_core.testing import eventually

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="untouched")


class Entries:
    """A plugin that keeps each handler as an entry point gets it."""

    def __init__(self) -> None:
        self.by_name: dict[str, Entry] = {}

    @hookimpl
    def cliffracer_register_entry_points(self, declaration: Declaration) -> Sequence[Entries]:
        return [self]

    async def start(self, entry: Entry) -> None:
        self.by_name[entry.name] = entry

    async def stop(self) -> None:
        self.by_name.clear()


class Layers:
    """A plugin that wraps handlers in one layer of each stage and notes who ran when."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def layer(self, label: str) -> Any:
        def wrap(next: Call) -> Call:
            async def call(context: MessageContext) -> object:
                self.seen.append(f"{label}:{'decoded' if context.arguments is not None else 'raw'}")
                return await next(context)

            return call

        return wrap

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration) -> Sequence[Middleware]:
        return [
            Middleware("shape", 0, self.layer("shape"), "inner"),
            Middleware("guard", 5, self.layer("late guard"), "late"),
            Middleware("guard", 1, self.layer("early guard"), "early"),
            Middleware("observe", 0, self.layer("observe")),
        ]


class Refused(ServiceError, code="dispatch_refused", status=418):
    """For these tests."""


class Odd(Refused):
    """More specific, without a code of its own."""


def service_for(name: str, **options: Any) -> CliffracerService:
    return CliffracerService(ServiceConfig(name), **options)


async def test_layers_nest_by_stage_and_order_when_a_call_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observers see the call before it is decoded; guards and shapes see decoded arguments, in their order."""
    monkeypatch.setenv("CLIFFRACER_PLUGINS", "")
    layers = Layers()
    service = service_for(name, plugins={"layers": layers})

    @service.rpc
    async def add(a: int, b: int = 1) -> int:
        return a + b

    async with service:
        assert await service.rpc_call(name, "add", a=2) == 3
        chain = (await service.explain("add"))["in"]
    assert layers.seen == ["observe:raw", "early guard:decoded", "late guard:decoded", "shape:decoded"]
    assert chain == [
        "observe layers:wrap", "decode", "guard layers:early", "guard layers:late", "shape layers:inner", f"{name}.add",
    ]  # fmt: skip


async def test_handler_is_called_by_name_when_its_parameters_ask_for_it(name: str) -> None:
    """Parameters behind a star are given by name; nothing else about the call differs."""
    service = service_for(name)

    @service.rpc
    async def all_named(*, a: int, b: int = 1) -> list[int]:
        return [a, b]

    @service.rpc
    async def half_named(a: int, *, b: int = 1) -> list[int]:
        return [a, b]

    async with service:
        for method in ("all_named", "half_named"):
            assert await service.rpc_call(name, method, a=2) == [2, 1]
            assert await service.rpc_call(name, method, b=3, a=2) == [2, 3]


async def test_layers_do_not_run_when_arguments_are_wrong(name: str) -> None:
    """A guard is not asked about a call whose arguments cannot be decoded; observers see it fail."""
    layers = Layers()
    service = service_for(name, plugins={"layers": layers})

    @service.rpc
    async def add(a: int) -> int:
        return a

    async with service:
        with pytest.raises(ValidationError, match="'a'"):
            await service.rpc_call(name, "add", a="one")
    assert layers.seen == ["observe:raw"]


async def test_arguments_are_decoded_once_when_a_layer_has_set_them(name: str) -> None:
    """What an observer put into the context as arguments is what the handler gets."""

    class Chosen:
        @hookimpl
        def cliffracer_register_middleware(self, declaration: Declaration) -> Sequence[Middleware]:
            def wrap(next: Call) -> Call:
                async def call(context: MessageContext) -> object:
                    context.arguments = {"text": "chosen"}
                    return await next(context)

                return call

            return [Middleware("observe", 0, wrap), Middleware("guard", 0, lambda next: next)]

    service = service_for(name, plugins={"chosen": Chosen()})

    @service.rpc
    async def echo(text: str) -> str:
        return text

    @service.rpc
    async def echo_with_context(text: str, context: MessageContext) -> str:
        return f"{text} on {context.subject}"

    async with service:
        assert await service.rpc_call(name, "echo", text="sent") == "chosen"
        assert await service.rpc_call(name, "echo_with_context") == f"chosen on rpc.{name}.echo_with_context"


async def test_start_fails_when_a_handler_is_a_generator(name: str) -> None:
    """A plain function that yields is refused at start, with what to do instead."""
    service = service_for(name)

    @service.rpc
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="is a generator; make it 'async def' to stream its reply"):
        await service.start()


async def test_loop_goes_on_when_a_synchronous_handler_blocks(name: str) -> None:
    """Plain functions run in threads: two that wait for each other both come to their end."""
    service, meet = service_for(name), threading.Barrier(2, timeout=10)

    @service.rpc
    def wait() -> int:
        return meet.wait()

    async with service:
        done = await asyncio.gather(service.rpc_call(name, "wait"), service.rpc_call(name, "wait"))
    assert sorted(done) == [0, 1]


async def test_context_is_visible_when_a_handler_runs_in_a_thread(name: str) -> None:
    """A thread sees its call's context and correlation id, and what middleware set for it."""

    class Marker:
        @hookimpl
        def cliffracer_register_middleware(self, declaration: Declaration) -> Sequence[Middleware]:
            def wrap(next: Call) -> Call:
                async def call(context: MessageContext) -> object:
                    VARIABLE.set("of this call")
                    return await next(context)

                return call

            return [Middleware("guard", 0, wrap)]

    service = service_for(name, plugins={"marker": Marker()})

    @service.rpc
    def look(context: MessageContext) -> list[object]:
        running = current_context()
        return [
            threading.current_thread() is threading.main_thread(),
            running is context,
            get_correlation_id(),
            VARIABLE.get(),
        ]

    async with service, with_correlation_id("threaded-1"):
        assert await service.rpc_call(name, "look") == [False, True, "threaded-1", "of this call"]
    assert VARIABLE.get() == "untouched"


async def test_result_is_awaited_when_a_plain_function_returns_an_awaitable(name: str) -> None:
    """A wrapper that hides an async function gives the result, not a coroutine."""
    service = service_for(name)

    async def real(number: int) -> int:
        return number * 2

    @service.rpc
    @functools.wraps(real)
    def wrapped(number: int) -> Any:
        return real(number)

    async with service:
        assert await service.rpc_call(name, "real", number=4) == 8


@pytest.mark.parametrize("threaded", [True, False])
async def test_limit_holds_when_more_calls_come(name: str, threaded: bool) -> None:
    """Never more than `concurrency` calls of one handler run, in threads as on the loop, and all get their turn."""
    service = CliffracerService(ServiceConfig(name, concurrency=3))
    lock, running, most = threading.Lock(), 0, 0
    go, go_thread = asyncio.Event(), threading.Event()

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    @service.rpc
    def in_thread() -> None:
        enter()
        go_thread.wait(10)
        leave()

    @service.rpc
    async def on_loop() -> None:
        enter()
        await go.wait()
        leave()

    method = "in_thread" if threaded else "on_loop"
    async with service:
        calls = [asyncio.create_task(service.rpc_call(name, method)) for _ in range(9)]
        gate = service.runtime.handlers[method].gate
        await eventually(lambda: running == 3 and len(gate.waiting) == 6)
        go.set()
        go_thread.set()
        await asyncio.gather(*calls)
    assert (most, running) == (3, 0)


async def test_smaller_limit_counts_when_a_handler_sets_its_own(name: str) -> None:
    """`concurrency` on a handler goes before the service's."""
    service = CliffracerService(ServiceConfig(name, concurrency=50))

    @service.rpc(concurrency=2)
    async def narrow() -> None: ...

    @service.rpc
    async def wide() -> None: ...

    async with service:
        handlers = service.runtime.handlers
        assert (handlers["narrow"].gate.limit, handlers["wide"].gate.limit) == (2, 50)


async def test_nothing_leaks_when_calls_set_context_variables(name: str) -> None:
    """Each call starts from a clean context: no variable, call or id of another call or of the starter."""
    service = service_for(name)

    @service.rpc
    async def look(value: str, context: MessageContext) -> list[object]:
        before = VARIABLE.get()
        VARIABLE.set(value)
        await asyncio.sleep(0)
        return [
            before,
            VARIABLE.get(),
            current_context() is context,
            get_correlation_id() == context.correlation_id,
            context.correlation_id,
        ]

    async with with_correlation_id("of-the-starter"):
        await service.start()

    async def call(value: str) -> list[object]:
        async with with_correlation_id(f"id-{value}"):
            return list(await service.rpc_call(name, "look", value=value))

    first, second = await asyncio.gather(call("a"), call("b"))
    third = await call("c")
    await service.stop()
    expected = [["untouched", value, True, True, f"id-{value}"] for value in "abc"]
    assert [first, second, third] == expected
    assert (VARIABLE.get(), current_context(), get_correlation_id()) == ("untouched", None, None)


async def test_timeouts_and_task_groups_work_when_used_in_a_handler(name: str) -> None:
    """A handler is an ordinary task: `asyncio.timeout` and `TaskGroup` behave as anywhere."""
    service = service_for(name)

    @service.rpc
    async def work() -> list[object]:
        timed_out = False
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            timed_out = True
        async with asyncio.TaskGroup() as group:
            ids = [group.create_task(asyncio.to_thread(get_correlation_id)) for _ in range(2)]
        task = asyncio.current_task()
        assert task is not None
        return [timed_out, [each.result() for each in ids], task.cancelling()]

    async with service, with_correlation_id("grouped"):
        assert await service.rpc_call(name, "work") == [True, ["grouped", "grouped"], 0]


async def test_task_group_is_cancelled_when_the_deadline_comes(name: str) -> None:
    """Tasks that a handler started in a group end with it."""
    service, ended = service_for(name), asyncio.Event()

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    @service.rpc
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    async with service:
        with pytest.raises(DeadlineExceeded):
            await service.caller.call(name, "work", timeout=0.1)
        await asyncio.wait_for(ended.wait(), 5)


class Careful(CliffracerService):
    """Its handler stands before its error handlers, as in most classes."""

    @rpc
    async def fail(self, kind: str) -> str:
        raise {"refused": Refused, "odd": Odd, "key": KeyError, "value": ValueError}[kind](kind)

    @error_handler(Refused)
    async def on_refused(self, error: Refused) -> dict[str, str]:
        return {"by": "refused", "was": str(error)}

    @error_handler(Odd)
    def on_odd(self, error: Odd) -> dict[str, str]:
        return {"by": "odd", "was": str(error)}

    @error_handler(LookupError)
    async def on_lookup(self, error: LookupError) -> dict[str, str]:
        raise Refused("turned into another") from error


async def test_most_specific_error_handler_answers_when_a_handler_raises(name: str) -> None:
    """The error handler of the nearest base class gives the reply, plain or async, wherever it stands in the class."""
    async with Careful(ServiceConfig(name)) as service:
        assert await service.rpc_call(name, "fail", kind="refused") == {"by": "refused", "was": "refused"}
        assert await service.rpc_call(name, "fail", kind="odd") == {"by": "odd", "was": "odd"}
        with pytest.raises(Refused, match="turned into another"):
            await service.rpc_call(name, "fail", kind="key")
        with pytest.raises(ServiceError, match="internal error"):
            await service.rpc_call(name, "fail", kind="value")


async def test_error_handler_answers_when_registered_on_the_service(name: str) -> None:
    """`service.error_handler` in function style covers every handler, arguments that do not fit included."""
    service = service_for(name)

    @service.error_handler(ValidationError)
    async def on_invalid(error: ValidationError) -> dict[str, object]:
        return {"refused": error.details["field"]}

    @service.rpc
    async def add(a: int) -> int:
        return a

    async with service:
        assert await service.rpc_call(name, "add", a="x") == {"refused": "a"}
        assert await service.rpc_call(name, "add", a=1) == 1


async def test_default_is_the_reply_when_handle_errors_names_the_error(name: str) -> None:
    """`handle_errors` covers the handler's errors and its arguments', and no others."""
    service = service_for(name)

    @service.rpc
    @handle_errors(KeyError, ValidationError, default="nothing")
    @handle_errors(ValueError, default=0)
    async def find(number: int) -> str:
        if number == 3:
            raise Refused("not covered")
        raise (KeyError, ValueError)[number]("gone")

    async with service:
        assert await service.rpc_call(name, "find", number=0) == "nothing"
        assert await service.rpc_call(name, "find", number="x") == "nothing"
        assert await service.rpc_call(name, "find", number=1) == 0
        with pytest.raises(Refused):
            await service.rpc_call(name, "find", number=3)


async def test_call_lasts_as_long_as_a_connection_when_it_is_attended(name: str) -> None:
    """`attend` runs in the caller's task, past the concurrency limit, without a deadline, and ends with the service."""
    entries, begun = Entries(), list[Any]()
    service = CliffracerService(
        ServiceConfig(name, concurrency=1, timeout=0.05, max_timeout_s=0.05, shutdown_grace_s=1.0),
        plugins={"entries": entries},
    )

    @service.rpc
    async def hold(id: int, context: MessageContext) -> str:
        begun.append((id, context.deadline, asyncio.current_task(), current_context() is context))
        await asyncio.Event().wait()
        return "never"

    @service.rpc
    async def fail() -> None:
        raise ServiceError("no")

    def context(handler: str, **arguments: object) -> MessageContext:
        return MessageContext(
            kind="socket", service=name, handler=handler, subject="s", pattern="s", arguments=dict(arguments)
        )

    async with service:
        with pytest.raises(ServiceError):
            await entries.by_name[f"{name}.fail"].attend(context("fail"))
        hold_entry = entries.by_name[f"{name}.hold"]
        held = [asyncio.ensure_future(hold_entry.attend(context("hold", id=id))) for id in range(3)]
        await eventually(lambda: len(begun) == 3)
        assert [each[0] for each in begun] == [0, 1, 2]
        assert all(each[1] is None and each[2] is task and each[3] for each, task in zip(begun, held, strict=True))
        await asyncio.sleep(0.2)  # longer than any deadline of this service
        assert not any(each.done() for each in held)
        held[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await held[0]
    for each in held[1:]:
        with pytest.raises(Overloaded, match="its service stops"):
            await each


async def test_entry_point_gets_the_result_when_it_invokes(name: str) -> None:
    """Invoking runs the whole chain with the arguments or body, subject, headers and state that were given."""
    entries, layers = Entries(), Layers()
    service = service_for(name, plugins={"entries": entries, "layers": layers})

    @service.rpc
    async def look(number: int, context: MessageContext) -> list[object]:
        return [number, context.kind, context.subject, context.correlation_id, context.state, bool(context.deadline)]

    async with service:
        entry = entries.by_name[f"{name}.look"]
        headers = {"X-Correlation-ID": "given"}
        assert await entry.invoke(kind="timer", arguments={"number": 1}, headers=headers, state={"x.y": 2}) == [
            1, "timer", f"{name}.look", "given", {"x.y": 2}, True,
        ]  # fmt: skip
        decoded = await entry.invoke(kind="queue", body=b'{"number": 2}', subject="jobs.one")
    assert isinstance(decoded, list)
    assert decoded[:3] == [2, "queue", "jobs.one"]
    assert len(decoded[3]) == 32
    assert [each.partition(":")[0] for each in layers.seen] == 2 * ["observe", "early guard", "late guard", "shape"]


async def test_entry_point_gets_the_error_when_the_handler_fails(name: str) -> None:
    """Whatever ends a call reaches who invoked it, as itself and at once."""
    entries = Entries()
    service = service_for(name, plugins={"entries": entries})

    @service.rpc
    async def fail(kind: str) -> None:
        match kind:
            case "refused":
                raise Refused("no")
            case "exit":
                raise SystemExit(3)
            case "cancelled":
                raise asyncio.CancelledError
            case _:
                await asyncio.sleep(60)

    async with service:
        entry = entries.by_name[f"{name}.fail"]

        async def invoke(kind: object) -> object:
            return await asyncio.wait_for(entry.invoke(kind="timer", arguments={"kind": kind}, timeout_s=0.1), 5)

        with pytest.raises(ValidationError, match="'kind'"):
            await invoke(7)
        with pytest.raises(Refused, match="no"):
            await invoke("refused")
        with pytest.raises(RuntimeError, match="SystemExit"):
            await invoke("exit")
        with pytest.raises(Cancelled, match=f"{name}.fail was cancelled"):
            await invoke("cancelled")
        with pytest.raises(DeadlineExceeded, match="ran past its deadline"):
            await invoke("sleep")


async def test_handler_is_cancelled_when_who_invoked_it_gives_up(name: str) -> None:
    """A cancelled entry point cancels its call, and one that still waits for a slot never runs."""
    entries, begun, cancelled = Entries(), list[int](), asyncio.Event()
    service = service_for(name, plugins={"entries": entries})

    @service.rpc(concurrency=1)
    async def work(number: int) -> None:
        begun.append(number)
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with service:
        entry = entries.by_name[f"{name}.work"]
        calls = [asyncio.create_task(entry.invoke(kind="timer", arguments={"number": number})) for number in range(3)]
        gate = service.runtime.handlers["work"].gate
        await eventually(lambda: begun == [0] and len(gate.waiting) == 2)
        for number in (1, 0):
            calls[number].cancel()
        await asyncio.wait_for(cancelled.wait(), 5)
        await eventually(lambda: begun == [0, 2])
        calls[2].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert all(call.cancelled() for call in calls)
        await eventually(lambda: gate.idle)


async def test_call_is_cut_when_the_grace_time_is_over(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A stop ends within its grace time: who runs or waits is told so, and the log says how many they were."""
    entries = Entries()
    service = CliffracerService(ServiceConfig(name, shutdown_grace_s=0.3), plugins={"entries": entries})

    @service.rpc(concurrency=1)
    async def hang() -> None:
        await asyncio.sleep(60)

    await service.start()
    entry = entries.by_name[f"{name}.hang"]
    calls = [asyncio.create_task(entry.invoke(kind="timer")) for _ in range(2)]
    gate = service.runtime.handlers["hang"].gate
    await eventually(lambda: gate.running == 1 and len(gate.waiting) == 1)
    with caplog.at_level(logging.WARNING, "cliffracer"):
        await asyncio.wait_for(service.stop(), 5)
    for call in calls:
        with pytest.raises(Overloaded, match="its service stops"):
            await asyncio.wait_for(call, 5)
    assert "were cut at the end of the grace time" in caplog.text


async def test_call_is_cut_when_the_stop_itself_has_no_time_left(name: str) -> None:
    """A process that stood still past the end of its grace time tells its callers all the same: none waits for ever."""
    entries = Entries()
    service = CliffracerService(ServiceConfig(name), plugins={"entries": entries})

    @service.rpc(concurrency=1)
    async def hang() -> None:
        await asyncio.sleep(60)

    async with service:
        calls = [asyncio.create_task(entries.by_name[f"{name}.hang"].invoke(kind="timer")) for _ in range(2)]
        gate = service.runtime.handlers["hang"].gate
        await eventually(lambda: gate.running == 1 and len(gate.waiting) == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await service.runtime.scope.finish(asyncio.get_running_loop().time() + 60)
        for call in calls:
            with pytest.raises(Overloaded, match="its service stops"):
                await asyncio.wait_for(call, 5)


async def test_stop_goes_on_when_a_handler_ignores_its_cancellation(name: str) -> None:
    """A handler that swallows its cancellation delays a stop by a second at most, not for good."""
    service, release = CliffracerService(ServiceConfig(name, shutdown_grace_s=0.2)), asyncio.Event()
    ended = asyncio.Event()

    @service.rpc
    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    await service.start()
    call = asyncio.create_task(service.rpc_call(name, "stubborn"))
    await eventually(lambda: service.runtime.handlers["stubborn"].gate.running == 1)
    await asyncio.wait_for(service.stop(), 10)
    release.set()
    await asyncio.wait_for(ended.wait(), 5)
    with pytest.raises(Exception, match="closed"):
        await call


async def test_slot_is_free_again_when_a_cancelled_thread_had_not_begun(name: str) -> None:
    """A call cancelled before its thread began costs no slot, and its function never runs."""
    service, release, begun = CliffracerService(ServiceConfig(name)), threading.Event(), list[int]()

    @service.rpc(concurrency=1)
    def work(number: int) -> int:
        begun.append(number)
        release.wait(10)
        return number

    async with service:
        handler = service.runtime.handlers["work"]
        assert handler.pool is not None
        blocker = handler.pool.submit(release.wait, 10)
        with pytest.raises(DeadlineExceeded):
            await service.caller.call(name, "work", {"number": 1}, timeout=0.1)
        await eventually(lambda: handler.gate.idle)
        assert handler.gate.stuck == 0
        release.set()
        blocker.result(10)
        assert await service.rpc_call(name, "work", number=2) == 2
    assert begun == [2]


async def test_error_from_a_callee_is_an_rpc_error_when_it_passes_through(name: str) -> None:
    """B's caller learns that B's call to C failed, and never takes C's error for B's own."""
    inner, outer = service_for(f"{name}-c"), service_for(f"{name}-b")

    @inner.rpc
    async def refuse() -> None:
        raise Refused("not you")

    @outer.rpc
    async def ask() -> None:
        await outer.rpc_call(f"{name}-c", "refuse")

    async with inner, outer, service_for(f"{name}-a") as caller:
        with pytest.raises(RPCError, match=f"a call to service '{name}-c' failed: not you") as caught:
            await caller.rpc_call(f"{name}-b", "ask")
    assert type(caught.value) is RPCError
    assert (caught.value.status, caught.value.retryable, caught.value.service) == (502, False, f"{name}-b")
    assert caught.value.details == {"type": "dispatch_refused", "service": f"{name}-c"}
