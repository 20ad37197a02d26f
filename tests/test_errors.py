"""The exception tree and its way over the wire."""

from __future__ import annotations

import asyncio
import builtins
import json

import msgspec
import pytest

from cliffracer_core import errors
from cliffracer_core.errors import (
    AuthenticationError,
    CliffracerError,
    ConnectionError,
    DeadlineExceeded,
    ErrorBody,
    NotFoundError,
    RPCError,
    ServiceError,
    ValidationError,
    describe,
    from_body,
    to_body,
)

CLASSES = [
    each
    for each in (getattr(errors, name) for name in errors.__all__)
    if isinstance(each, type) and issubclass(each, CliffracerError) and each is not CliffracerError
]


class OutOfStock(ServiceError, code="test_out_of_stock", status=409):
    """An application's own error, whose constructor asks for more than a message."""

    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"only {left} of {item!r} left", details={"item": item, "left": left})
        self.item = item


def over_the_wire(error: BaseException, service: str = "shop", correlation_id: str | None = "id-1") -> CliffracerError:
    body = msgspec.json.encode(to_body(error, service, correlation_id))
    return from_body(msgspec.json.decode(body, type=ErrorBody))


@pytest.mark.parametrize("cls", CLASSES)
def test_class_arrives_as_itself_when_sent_over_the_wire(cls: type[CliffracerError]) -> None:
    """Each error of the framework reaches the direct caller as its own class, with all it carries."""
    arrived = over_the_wire(cls("too bad", details={"field": "age", "limits": [1, 2]}))
    assert type(arrived) is cls
    assert str(arrived) == arrived.message == "too bad"
    assert arrived.args == ("too bad",)
    assert arrived.details == {"field": "age", "limits": [1, 2]}
    assert (arrived.service, arrived.correlation_id) == ("shop", "id-1")


@pytest.mark.parametrize("cls", CLASSES)
def test_class_has_code_and_status_of_its_own_when_it_is_declared(cls: type[CliffracerError]) -> None:
    """No two errors share a wire code, and each has an HTTP status of a failure."""
    assert [each.code for each in CLASSES].count(cls.code) == 1
    assert cls.code != CliffracerError.code
    assert 400 <= cls.status <= 599
    assert to_body(cls("x"), "s", None).code == cls.status
    assert to_body(cls("x"), "s", None).retryable is cls.retryable


def test_error_is_also_the_builtin_one_when_a_builtin_fits() -> None:
    """`except TimeoutError` and `except ConnectionError` of Python catch ours too."""
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert issubclass(ConnectionError, builtins.ConnectionError)


def test_own_error_arrives_as_itself_when_its_constructor_wants_more() -> None:
    """A subclass with another constructor is rebuilt from message and details, without calling it."""
    arrived = over_the_wire(OutOfStock("shoe", 3))
    assert type(arrived) is OutOfStock
    assert str(arrived) == "only 3 of 'shoe' left"
    assert arrived.details == {"item": "shoe", "left": 3}


def test_subclass_travels_as_its_parent_when_it_has_no_code() -> None:
    """A class without a code of its own is known to callers by its parent's."""

    class NoSuchUser(NotFoundError, status=410, retryable=True): ...

    body = to_body(NoSuchUser("no user 7"), "users", None)
    assert (body.type, body.code, body.retryable) == ("not_found", 410, True)
    assert type(from_body(body)) is NotFoundError


def test_second_class_is_refused_when_its_code_is_taken() -> None:
    """Two classes of one code stop the program at import, and the error names both."""
    with pytest.raises(TypeError, match=r"'not_found' of .*Mine already belongs to .*errors.NotFoundError"):

        class Mine(ServiceError, code="not_found"): ...

    assert type(over_the_wire(NotFoundError("x"))) is NotFoundError


def test_code_moves_to_the_new_class_when_a_module_is_reloaded() -> None:
    """The same class statement run again replaces its class and is no duplicate."""

    def declare() -> type[CliffracerError]:
        class Reloaded(ServiceError, code="test_reloaded"): ...

        return Reloaded

    first, second = declare(), declare()
    assert first is not second
    assert type(over_the_wire(first("x"))) is second


def test_text_is_the_code_when_there_is_no_message() -> None:
    """An error raised bare still says what it is, here and at the caller."""
    assert str(NotFoundError()) == "not_found"
    assert str(over_the_wire(NotFoundError())) == "not_found"


@pytest.mark.parametrize("correlation_id", ["id-7", None])
@pytest.mark.parametrize("error", [KeyError("s3cret"), ZeroDivisionError("s3cret"), SystemExit("s3cret")])
def test_nothing_leaks_when_an_unexpected_error_is_translated(error: BaseException, correlation_id: str | None) -> None:
    """A caller sees 'internal error' and the correlation id, not the message, type or cause of a bug."""
    error.__cause__ = ValueError("s3cret cause")
    body = to_body(error, "users", correlation_id)
    text = json.dumps(msgspec.to_builtins(body))
    assert "s3cret" not in text
    assert type(error).__name__ not in text
    assert (body.type, body.code, body.retryable) == ("internal_error", 500, False)
    assert body.message.startswith("internal error")
    assert (correlation_id or "internal error") in body.message


def test_internal_error_is_a_service_error_when_it_arrives() -> None:
    """A masked error is the callee's failure, which no retry helps, and not an unknown one."""
    arrived = over_the_wire(ZeroDivisionError("division by zero"))
    assert type(arrived) is ServiceError
    assert not arrived.retryable
    assert arrived.details["type"] == "internal_error"


def test_remote_error_leaves_as_rpc_error_when_a_handler_lets_it_pass() -> None:
    """C's 'unauthenticated' never becomes B's: the caller of B sees 502, not retryable, and whose error it was."""
    from_c = over_the_wire(AuthenticationError("token expired", details={"hint": "renew"}), "c")
    at_a = over_the_wire(from_c, "b", "id-2")
    assert type(at_a) is RPCError
    assert (at_a.status, at_a.retryable) == (502, False)
    assert at_a.message == "a call to service 'c' failed: token expired"
    assert at_a.details == {"type": "unauthenticated", "service": "c"}
    assert (at_a.service, at_a.correlation_id) == ("b", "id-2")


def test_remote_retryable_error_is_not_retryable_when_it_passes_a_second_service() -> None:
    """A caller does not repeat a whole call because something two services away was busy."""
    at_a = over_the_wire(over_the_wire(DeadlineExceeded("slow"), "c"), "b")
    assert type(at_a) is RPCError
    assert not isinstance(at_a, TimeoutError)
    assert not to_body(at_a, "a", None).retryable


def test_unknown_type_arrives_as_rpc_error_when_the_caller_lacks_the_class() -> None:
    """An error whose class the caller does not have keeps its message and names its type."""
    arrived = from_body(ErrorBody("teapot", "short and stout", 418, details={"handle": 1}, service="kitchen"))
    assert type(arrived) is RPCError
    assert arrived.message == "short and stout"
    assert arrived.details == {"handle": 1, "type": "teapot"}
    assert (arrived.code, arrived.retryable, RPCError.code) == ("teapot", False, "rpc_error")
    assert from_body(ErrorBody("teapot", "x", 418, retryable=True)).retryable


def test_wire_type_is_named_when_details_have_a_type_too() -> None:
    """A program that looks at `details['type']` of an unknown error always finds the wire's type there."""
    assert from_body(ErrorBody("teapot", "x", 418, details={"type": "shoe"})).details["type"] == "teapot"


def test_error_counts_as_remote_when_the_reply_names_no_service() -> None:
    """A reply that does not say who sent it is still no local error, and is masked further on as such."""
    arrived = from_body(ErrorBody("not_found", "gone", 404))
    assert arrived.service == "unknown"
    assert to_body(arrived, "b", None).type == "rpc_error"


def test_local_error_has_no_service_when_it_is_raised() -> None:
    """`service` tells remote from local errors."""
    assert NotFoundError("x").service is None


def test_details_are_copied_when_the_caller_keeps_the_mapping() -> None:
    """Changing a dictionary after raising changes no error."""
    facts: dict[str, object] = {"field": "age"}
    error = ValidationError("wrong", details=facts)
    facts.clear()
    assert error.details == {"field": "age"}


def test_body_is_small_when_there_is_nothing_to_say() -> None:
    """What carries nothing is not sent."""
    assert msgspec.json.decode(msgspec.json.encode(to_body(NotFoundError("x"), "users", None))) == {
        "type": "not_found",
        "message": "x",
        "code": 404,
        "service": "users",
    }


def test_description_is_one_short_line_when_the_error_has_many() -> None:
    """A log line or header made of an error is one line of at most 500 characters, whatever the message."""
    assert describe(NotFoundError("no\nuser\r\n  7")) == "not_found: no user 7"
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert len(describe(ValueError("x" * 2000))) == 500


async def test_error_can_be_raised_across_tasks_when_it_came_over_the_wire() -> None:
    """An error built from a body behaves as one that was raised: it carries traceback and cause."""

    async def fail() -> None:
        raise over_the_wire(DeadlineExceeded("late")) from ValueError("cause")

    with pytest.raises(TimeoutError) as caught:
        await asyncio.create_task(fail())
    assert isinstance(caught.value.__cause__, ValueError)
