"""What a call knows about itself."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys

import pytest

from cliffracer_core import context as module
from cliffracer_core.context import (
    Identity,
    MessageContext,
    create_correlation_id,
    current_context,
    enter_call,
    get_correlation_id,
    leave_calls,
    remaining_s,
    set_correlation_id,
    with_correlation_id,
)

FORK = """
import os
from cliffracer_core.context import create_correlation_id
create_correlation_id()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(create_correlation_id(), flush=True)
os._exit(0)
"""


def call(**values: object) -> MessageContext:
    wanted: dict[str, object] = {
        "kind": "rpc", "service": "users", "handler": "find", "subject": "rpc.users.find",
        "pattern": "rpc.users.find", "correlation_id": "of-the-call",
    }  # fmt: skip
    return MessageContext(**{**wanted, **values})  # type: ignore[arg-type]  # each test gives fitting values


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as a list of one point that a test may move."""
    now = [100.0]
    monkeypatch.setattr(module, "clock", lambda: now[0])
    return now


async def test_nothing_is_known_when_no_call_runs() -> None:
    """Outside a call there is no context, no id and no deadline."""
    assert (current_context(), get_correlation_id(), remaining_s()) == (None, None, None)


async def test_id_is_that_of_the_call_when_none_was_set() -> None:
    """Inside a call its correlation id is the current one."""
    context = call()
    enter_call(context)
    assert current_context() is context
    assert get_correlation_id() == "of-the-call"


async def test_id_set_by_hand_wins_when_a_call_runs() -> None:
    """`set_correlation_id` goes before the call's own id, and None returns to it."""
    enter_call(call())
    set_correlation_id("custom-id-123")
    assert get_correlation_id() == "custom-id-123"
    set_correlation_id(None)
    assert get_correlation_id() == "of-the-call"


def test_new_ids_differ_when_made_one_after_the_other() -> None:
    """An id is 32 hexadecimal digits and not used twice."""
    ids = {create_correlation_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in ids)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_new_ids_differ_when_a_process_has_forked() -> None:
    """A worker forked from another never repeats the other's ids."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first != second


async def test_block_has_its_id_when_entered_with_async_with() -> None:
    """`async with with_correlation_id(...)` gives the block that id and then returns to what was before."""
    set_correlation_id("outer")
    async with with_correlation_id("request-123") as chosen:
        assert chosen == get_correlation_id() == "request-123"
        with with_correlation_id("inner"):
            assert get_correlation_id() == "inner"
        assert get_correlation_id() == "request-123"
    assert get_correlation_id() == "outer"


async def test_block_has_a_new_id_when_none_is_given() -> None:
    """Without an argument a fresh id is made and handed to the block."""
    async with with_correlation_id() as first:
        async with with_correlation_id("") as second:
            assert get_correlation_id() == second
        assert get_correlation_id() == first
    assert first
    assert second
    assert first != second


async def test_id_is_restored_when_the_block_raises() -> None:
    """An error leaves no id behind."""
    with pytest.raises(KeyError):
        async with with_correlation_id("request-123"):
            raise KeyError
    assert get_correlation_id() is None


async def test_ids_stay_apart_when_tasks_run_at_once() -> None:
    """Each task sees the id it set, and what it started inherits it."""
    barrier = asyncio.Barrier(10)

    async def child() -> str | None:
        return get_correlation_id()

    async def task(number: int) -> tuple[str | None, str | None]:
        async with with_correlation_id(f"id-{number}"):
            await barrier.wait()
            return get_correlation_id(), await asyncio.create_task(child())

    assert await asyncio.gather(*(task(each) for each in range(10))) == [(f"id-{n}", f"id-{n}") for n in range(10)]
    assert get_correlation_id() is None


async def test_call_and_id_are_forgotten_when_a_context_is_cleaned() -> None:
    """From a cleaned copy of a context nothing of another call can be reached."""
    enter_call(call())
    set_correlation_id("chosen")
    clean = contextvars.copy_context()
    clean.run(leave_calls)
    assert clean.run(current_context) is None
    assert clean.run(get_correlation_id) is None
    assert get_correlation_id() == "chosen"


async def test_time_left_shrinks_to_zero_when_the_deadline_passes(clock: list[float]) -> None:
    """What is left of a deadline is counted down and never negative."""
    enter_call(call(deadline=102.5))
    assert remaining_s() == 2.5
    clock[0] = 102.0
    assert remaining_s() == 0.5
    clock[0] = 200.0
    assert remaining_s() == 0.0


async def test_time_left_is_unknown_when_a_call_has_no_deadline() -> None:
    """None means no limit, not no time."""
    enter_call(call())
    assert remaining_s() is None


def test_state_is_private_when_two_calls_run() -> None:
    """Room for middleware belongs to one call alone."""
    first, second = call(), call()
    first.state["auth"] = 1
    assert second.state == {}


def test_identity_cannot_change_when_it_is_established() -> None:
    """A handler cannot give its caller another id or further roles."""
    identity = Identity(id="ada", roles=frozenset({"admin"}))
    with pytest.raises(AttributeError):
        identity.id = "eve"  # type: ignore[misc]  # what is tested
    assert identity.permissions == frozenset()
