"""From signatures to decoders, and checks of common values."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import math
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from cliffracer_core.context import MessageContext
from cliffracer_core.errors import ConfigurationError, ValidationError
from cliffracer_core.messages import JSON, MSGPACK
from cliffracer_core.validation import (
    Arguments,
    injected,
    validate_email,
    validate_port,
    validate_timeout,
    validate_url,
)

if TYPE_CHECKING:
    from fractions import Fraction


class User(msgspec.Struct):
    name: str
    age: int = 0


class Cat(msgspec.Struct):
    lives: int


class Dog(msgspec.Struct):
    tricks: int


class TaggedCat(msgspec.Struct, tag=True):
    lives: int


class TaggedDog(msgspec.Struct, tag=True):
    tricks: int


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Options(TypedDict, total=False):
    deep: bool


class Pair(NamedTuple):
    left: int
    right: int


class Color(enum.Enum):
    RED = "red"


class Custom:
    """A class no codec knows."""


class Holder(msgspec.Struct):
    things: list[Custom | None]


class Tree(msgspec.Struct):
    left: Tree | None = None
    custom: list[Tree] = []


class Request:
    """What a plugin injects."""


UserId = NewType("UserId", str)


def arguments(function: Callable[..., object], **options: Any) -> Arguments:
    return Arguments("users.find", function, injectables=(MessageContext, Request), **options)


def decode(function: Callable[..., object], body: object, **options: Any) -> dict[str, object]:
    return arguments(function, **options).decode(JSON.encode(body), JSON)


# --- which types there are --------------------------------------------------------------------------

MOMENT = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("hint", "sent", "got"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (str, "a", "a"),
        (bool, True, True),
        (bytes, "YQ==", b"a"),
        (list[int], [1, 2], [1, 2]),
        (set[str], ["a", "a"], {"a"}),
        (dict[int, str], {1: "a"}, {1: "a"}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (User, {"name": "Ada"}, User("Ada", 0)),
        (Point, {"x": 1}, Point(1.0)),
        (Pair, [1, 2], Pair(1, 2)),
        (Options, {"deep": True}, {"deep": True}),
        (Color, "red", Color.RED),
        (Literal["up", "down"], "up", "up"),
        (datetime.datetime, "2024-02-29T12:30:00Z", MOMENT),
        (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
        (datetime.timedelta, "PT90S", datetime.timedelta(seconds=90)),
        (uuid.UUID, str(ID), ID),
        (Decimal, "1.10", Decimal("1.10")),
        (Optional[int], None, None),  # noqa: UP045 - people write it
        (int | None, 3, 3),
        (UserId, "u1", "u1"),
        (Annotated[str, Meta(min_length=1)], "a", "a"),
        (TaggedCat | TaggedDog, {"type": "TaggedDog", "tricks": 3}, TaggedDog(3)),
        (Tree, {"left": {"left": None}}, Tree(Tree())),
        (Any, {"x": [1, None]}, {"x": [1, None]}),
        (object, [1], [1]),
        (dict[str, object], {"a": [1]}, {"a": [1]}),
    ],
)
def test_argument_has_the_type_of_its_annotation_when_decoded(hint: Any, sent: object, got: object) -> None:
    """A handler receives what its signature says, from JSON and from MessagePack."""

    def find(value: object) -> None: ...

    find.__annotations__["value"] = hint
    compiled = arguments(find)
    for codec in (JSON, MSGPACK):
        body = codec.encode({"value": b"a" if codec is MSGPACK and hint is bytes else sent})
        assert compiled.decode(body, codec) == {"value": got}
        assert type(compiled.decode(body, codec)["value"]) is type(got)


@pytest.mark.parametrize(
    ("hint", "sent"),
    [
        (int, "5"), (int, 5.5), (int, True), (str, 5), (bool, 1), (Color, "blue"), (uuid.UUID, "x"),
        (datetime.datetime, "yesterday"), (Decimal, "x"), (list[int], {"a": 1}), (User, {"age": 1}), (int, None),
        (Annotated[int, Meta(ge=0)], -1), (Annotated[str, Meta(min_length=1, max_length=2)], ""),
        (Annotated[str, Meta(pattern="^[a-z]+$")], "A1"),
    ],
)  # fmt: skip
def test_argument_is_refused_when_it_does_not_fit(hint: Any, sent: object) -> None:
    """A wrong argument is a ValidationError that names it; nothing is coerced."""

    def find(value: object) -> None: ...

    find.__annotations__["value"] = hint
    with pytest.raises(ValidationError, match="argument 'value") as caught:
        decode(find, {"value": sent})
    assert str(caught.value.details["field"]).startswith("value")


def test_argument_is_any_when_it_has_no_annotation() -> None:
    """An unannotated parameter takes whatever comes."""

    def find(value, limit=5): ...  # type: ignore[no-untyped-def]

    assert decode(find, {"value": {"a": 1}}) == {"value": {"a": 1}, "limit": 5}


# --- named arguments --------------------------------------------------------------------------------


def test_argument_is_named_when_it_is_missing() -> None:
    """A call without a required argument is refused with its name."""

    def find(name: str, age: int) -> None: ...

    with pytest.raises(ValidationError, match="argument 'age': it is missing"):
        decode(find, {"name": "Ada"})


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
def test_body_is_an_empty_object_when_it_is_empty(codec: Any) -> None:
    """A bare request, as from any NATS client, is a call without arguments."""

    def find(limit: int = 10) -> None: ...

    def must(name: str) -> None: ...

    assert arguments(find).decode(b"", codec) == {"limit": 10}
    with pytest.raises(ValidationError, match="'name': it is missing"):
        arguments(must).decode(b"", codec)


def test_unknown_argument_is_ignored_when_not_strict() -> None:
    """Old services keep answering newer callers."""

    def find(name: str) -> None: ...

    assert decode(find, {"name": "Ada", "extra": 1}) == {"name": "Ada"}


def test_unknown_argument_is_refused_when_strict() -> None:
    """`validated_rpc` names the argument the handler does not have."""

    def find(name: str) -> None: ...

    with pytest.raises(ValidationError, match="argument 'extra': there is no such argument"):
        decode(find, {"name": "Ada", "extra": 1}, strict=True)


def test_body_is_refused_when_it_is_no_object() -> None:
    """Arguments are named; an array is none."""

    def find(name: str) -> None: ...

    with pytest.raises(ValidationError, match="body: expected `object`, got `array`"):
        decode(find, ["Ada"])


def test_default_is_a_fresh_copy_when_it_is_mutable() -> None:
    """No call sees what another did to a default, of a list or of an object."""

    def find(tags: list[str] = ["a"], user: User = User("x"), pair: tuple[list[int], ...] = ([1],)) -> None: ...  # noqa: B006, B008

    compiled = arguments(find)
    first: Any = compiled.decode(b"{}", JSON)
    first["tags"].append("b")
    first["user"].name = "changed"
    first["pair"][0].append(2)
    assert compiled.decode(b"{}", JSON) == {"tags": ["a"], "user": User("x"), "pair": ([1],)}


def test_default_is_shared_when_it_cannot_change() -> None:
    """A default that is a value is handed over as it stands, even one that its annotation does not admit."""

    def find(limit: int = None, color: Color = Color.RED, point: float = math.inf) -> None: ...  # type: ignore[assignment]

    assert decode(find, {}) == {"limit": None, "color": Color.RED, "point": math.inf}


def test_default_is_refused_when_it_cannot_be_copied() -> None:
    """A mutable default that would be shared between calls stops the start."""

    def find(loops: list[Any] = [threading.Lock()]) -> None: ...  # noqa: B006, B008

    with pytest.raises(ConfigurationError, match=r"'users.find': default of 'loops' is mutable .*; use None"):
        arguments(find)


# --- the whole body ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "body", "got"),
    [
        (User, {"name": "Ada"}, User("Ada")),
        (User | None, {"name": "Ada"}, User("Ada")),
        (Point, {"x": 1}, Point(1.0)),
        (Options, {"deep": True}, {"deep": True}),
        (Pair, [1, 2], Pair(1, 2)),
        (dict, {"data": 1}, {"data": 1}),
        (dict[str, int], {"data": 1}, {"data": 1}),
        (list[int], [1, 2], [1, 2]),
        (Annotated[list[int], Meta(min_length=1)], [1], [1]),
        (Any, "text", "text"),
        (object, [None], [None]),
        (Any, {"data": 1}, {"data": 1}),
    ],
)
def test_payload_is_the_whole_body_when_it_is_an_object(hint: Any, body: object, got: object) -> None:
    """An event's single parameter of object, array or Any type gets the body itself."""

    def on(data: object, context: MessageContext) -> None: ...

    on.__annotations__["data"] = hint
    assert decode(on, body, whole_body=True) == {"data": got}


@pytest.mark.parametrize(
    ("hint", "value"), [(str, "a"), (int, 1), (uuid.UUID, str(ID)), (int | None, None), (Color, "red")]
)
def test_payload_is_named_when_it_is_a_scalar(hint: Any, value: object) -> None:
    """A single scalar parameter is an argument by name, in events too."""

    def on(data: object) -> None: ...

    on.__annotations__["data"] = hint
    compiled = arguments(on, whole_body=True)
    assert list(compiled.decode(JSON.encode({"data": value}), JSON)) == ["data"]
    assert compiled.pack({"data": 1}) == {"data": 1}


def test_payload_is_named_when_there_are_two() -> None:
    """With two parameters the body is an object of both."""

    def on(user: User, reason: str = "") -> None: ...

    assert decode(on, {"user": {"name": "Ada"}}, whole_body=True) == {"user": User("Ada"), "reason": ""}


def test_payload_is_named_when_the_handler_is_no_event() -> None:
    """An RPC method takes named arguments, a single object too."""

    def find(user: User) -> None: ...

    assert decode(find, {"user": {"name": "Ada"}}) == {"user": User("Ada")}
    assert arguments(find).pack({"user": 1}) == {"user": 1}


def test_payload_has_its_default_when_the_body_is_empty() -> None:
    """An empty body leaves an optional payload to the handler's default, and is `{}` for a required one."""

    def on(user: User | None = None) -> None: ...

    def must(data: dict[str, Any]) -> None: ...

    assert arguments(on, whole_body=True).decode(b"", JSON) == {}
    assert arguments(must, whole_body=True).decode(b"", JSON) == {"data": {}}


def test_caller_sends_the_payload_itself_when_it_is_the_whole_body() -> None:
    """What a typed client packs is what the handler unpacks."""

    def on(user: User) -> None: ...

    compiled = arguments(on, whole_body=True)
    assert compiled.pack({"user": User("Ada")}) == User("Ada")
    assert compiled.pack({}) == {}


# --- injected parameters ----------------------------------------------------------------------------


def test_parameter_is_injected_when_its_type_is_known() -> None:
    """Injected parameters are no arguments, whether or not they are marked, optional or annotated."""

    def find(
        name: str,
        context: MessageContext,
        request: Annotated[Request | None, "doc"] = None,
        marked: MessageContext = injected(),  # noqa: B008 - the documented way
    ) -> None: ...

    compiled = arguments(find)
    assert compiled.injected == {"context": MessageContext, "request": Request, "marked": MessageContext}
    assert compiled.struct.__struct_fields__ == ("name",)


def test_parameter_is_refused_when_nothing_injects_it() -> None:
    """A parameter that waits for a plugin which is not there stops the start, with what is known."""

    def find(session: Custom = injected()) -> None: ...  # noqa: B008

    with pytest.raises(
        ConfigurationError, match=r"'users.find': nothing .* injects parameter 'session' .*MessageContext, Request"
    ):
        arguments(find)


def test_parameter_is_left_out_when_a_caller_lacks_the_plugin() -> None:
    """A typed client of a service needs none of the service's plugins."""

    def find(name: str, custom: Custom, session: Custom = injected()) -> User: ...  # type: ignore[empty-body]  # noqa: B008

    compiled = arguments(find, checked=False)
    assert compiled.struct.__struct_fields__ == ("name", "custom")
    assert compiled.returns is User


# --- signatures that cannot be served ---------------------------------------------------------------


def test_union_is_refused_when_its_structs_have_no_tags() -> None:
    """Two Structs that look alike on the wire stop the start; handler, parameter and remedy are named."""

    def find(pet: Cat | Dog) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'users.find': parameter 'pet' .*tag Structs .* with 'tag=True'"):
        arguments(find)


@pytest.mark.parametrize("hint", [Custom, list[Custom], dict[str, Custom], Holder, complex, Callable[[], None]])
def test_parameter_is_refused_when_its_class_has_no_decoder(hint: Any) -> None:
    """A class no codec knows stops the start, wherever in a type it stands."""

    def find(thing: object) -> None: ...

    find.__annotations__["thing"] = hint
    with pytest.raises(
        ConfigurationError, match=r"'users.find': parameter 'thing' holds .*; use builtins, a dataclass"
    ):
        arguments(find)


def args(*names: str) -> None: ...
def kwargs(**names: str) -> None: ...
def positional(name: str, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "shown"), [(args, "*names"), (kwargs, "**names"), (positional, "name")], ids=["*", "**", "/"]
)
def test_parameter_is_refused_when_it_cannot_be_named(function: Callable[..., object], shown: str) -> None:
    """Parameters that no argument by name reaches stop the start."""
    with pytest.raises(ConfigurationError, match="'users.find': parameter .* cannot be sent by name") as caught:
        arguments(function)
    assert shown in str(caught.value)


def test_annotation_is_named_when_its_type_is_local() -> None:
    """A class made inside a function is invisible to postponed annotations; handler, parameter and remedy are named."""

    class Local(msgspec.Struct): ...

    def find(name: str, thing: Local) -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"'users.find': annotation 'Local' of 'thing' .*define the type at module level"
    ):
        arguments(find)


def test_annotation_is_named_when_it_is_for_type_checkers_only() -> None:
    """A name imported under TYPE_CHECKING does not exist at run time, and the error says where to import it."""

    def find(name: str, part: Fraction) -> None: ...

    find.__annotations__["name"] = str  # one that needs no evaluation
    with pytest.raises(ConfigurationError, match=r"annotation 'Fraction' of 'part' .*outside 'if TYPE_CHECKING:'"):
        arguments(find)


def test_right_annotation_is_named_when_a_decorator_wraps_the_handler() -> None:
    """Behind a decorator of another module it is still the handler's own bad annotation that is named."""

    def find(user: User, thing: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - what is tested

    wrapper = functools.wraps(find)(eval("lambda *a, **k: None", {}))
    with pytest.raises(ConfigurationError, match="annotation 'Missing' of 'thing'"):
        arguments(wrapper)


def test_handler_is_named_when_its_annotations_fail_otherwise() -> None:
    """Something callable whose annotations cannot be read at all is refused under the handler's name."""

    def find(name: str) -> None: ...

    with pytest.raises(ConfigurationError, match="'users.find': its annotations cannot be resolved"):
        arguments(functools.partial(find))


# --- values that are Python objects already ---------------------------------------------------------


def test_values_are_checked_when_an_entry_point_gives_them() -> None:
    """Arguments from a route or timer are checked as decoded ones are."""

    def find(name: str, age: int = 1) -> None: ...

    compiled = arguments(find)
    assert compiled.convert({"name": "Ada"}) == {"name": "Ada", "age": 1}
    with pytest.raises(ValidationError, match="argument 'age': expected `int`, got `str`"):
        compiled.convert({"name": "Ada", "age": "7"})


def test_text_is_read_when_conversion_is_lax() -> None:
    """A path or query parameter arrives as text, and becomes what the signature says or is refused."""

    def find(age: int, when: datetime.date, deep: bool) -> None: ...

    compiled = arguments(find)
    got = compiled.convert({"age": "7", "when": "2024-02-29", "deep": "true"}, lax=True)
    assert got == {"age": 7, "when": datetime.date(2024, 2, 29), "deep": True}
    with pytest.raises(ValidationError, match="argument 'age'"):
        compiled.convert({"age": "seven", "when": "2024-02-29", "deep": "true"}, lax=True)


def test_schema_describes_the_arguments_when_a_plugin_asks() -> None:
    """The compiled Struct gives a JSON Schema of the handler's arguments."""

    def find(name: Annotated[str, Meta(min_length=1)], age: int = 3) -> None: ...

    schema = msgspec.json.schema(arguments(find).struct)
    text = json.dumps(schema)
    assert '"minLength": 1' in text
    assert '"required": ["name"]' in text


# --- validators -------------------------------------------------------------------------------------


@given(st.integers())
def test_port_is_returned_when_in_range_and_refused_otherwise(port: int) -> None:
    """Exactly 1 to 65535 are ports."""
    if 1 <= port <= 65535:
        assert validate_port(port) == port
    else:
        with pytest.raises(ValidationError, match="port"):
            validate_port(port)


@pytest.mark.parametrize("port", [True, "80", 80.0, None])
def test_port_is_refused_when_it_is_no_integer(port: Any) -> None:
    """Nothing is coerced into a port."""
    with pytest.raises(ValidationError) as caught:
        validate_port(port)
    assert caught.value.details == {"field": "port"}


@given(st.floats() | st.integers())
def test_timeout_is_returned_when_positive_and_finite_and_refused_otherwise(timeout: float) -> None:
    """A timeout is a finite number of seconds above 0, returned as a float."""
    if 0 < timeout < math.inf:
        assert validate_timeout(timeout) == float(timeout)
        assert isinstance(validate_timeout(timeout), float)
    else:
        with pytest.raises(ValidationError, match="timeout"):
            validate_timeout(timeout)


@pytest.mark.parametrize("timeout", [True, "1", None, 10**400, math.nan])
def test_timeout_is_refused_when_it_is_no_number_of_seconds(timeout: Any) -> None:
    """Text, flags and numbers past any float are no timeout."""
    with pytest.raises(ValidationError) as caught:
        validate_timeout(timeout)
    assert caught.value.details == {"field": "timeout"}


@pytest.mark.parametrize(
    "email", ["ada@example.com", "a.b+c@x-y.example.co.uk", "o'neil@example.com", "x" * 64 + "@a.bc", "a@1.2"]
)
def test_email_is_returned_when_it_has_the_form(email: str) -> None:
    """Ordinary addresses pass as they are."""
    assert validate_email(email) == email


@pytest.mark.parametrize(
    "email",
    [
        "", "@", "a", "a@", "@b.c", "a@b", "a b@c.de", "a@b.c\n", "a@b..c", "a@-b.c", "a@b-.c", "a@@b.c", "a..b@c.de",
        ".a@b.cd", "a.@b.cd", "x" * 65 + "@a.bc", "a@" + ".".join(["b" * 60] * 5), "a@b.c\r\nBcc: x@y.z", None, 5,
    ],
)  # fmt: skip
def test_email_is_refused_when_it_has_another_form(email: Any) -> None:
    """Malformed addresses are refused, and not repeated in the error."""
    with pytest.raises(ValidationError, match="not an e-mail address") as caught:
        validate_email(email)
    assert caught.value.details == {"field": "email"}
    assert "Bcc" not in str(caught.value)


@given(st.text(st.sampled_from("ab1.@-+ \r\n\0é"), max_size=12) | st.emails())
def test_email_is_one_address_when_accepted(email: str) -> None:
    """Whatever passes is one address on one line, with a dotted domain."""
    try:
        validate_email(email)
    except ValidationError:
        return
    local, _, domain = email.partition("@")
    assert local
    assert "." in domain
    assert "@" not in domain
    assert email.isprintable()
    assert " " not in email


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.b/c?d=e#f", "HTTP://a:80/", "http://[::1]:8080/", "http://u:p@h"]
)
def test_url_is_returned_when_it_is_absolute(url: str) -> None:
    """Absolute URLs pass as they are."""
    assert validate_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "", "a", "//a", "http:", "http://", "http:///x", "ftp://a", "javascript:alert(1)", "http://a:0", "http://a:x",
        "http://a:65536", "http://[::1", "http://a b", "http://a\n", " http://a", "http://a/\tb", "http://a/\0",
        "http://a/\u2028", None, 5, b"http://a",
    ],
)  # fmt: skip
def test_url_is_refused_when_it_is_none(url: Any) -> None:
    """Relative, malformed and foreign URLs, and any white space or control character, are refused."""
    with pytest.raises(ValidationError, match="not an absolute URL with scheme http or https") as caught:
        validate_url(url)
    assert caught.value.details == {"field": "url"}


def test_url_is_checked_against_other_schemes_when_asked() -> None:
    """A caller may say which schemes it takes."""
    assert validate_url("nats://h:4222", schemes=("nats", "tls")) == "nats://h:4222"
    with pytest.raises(ValidationError, match="nats or tls"):
        validate_url("http://h", schemes=("nats", "tls"))


@given(st.text(st.sampled_from("htp:/a1.@[]#?% \r\n\t\0é"), max_size=16).map(lambda text: "http://" + text))
def test_url_has_host_and_no_space_when_accepted(url: str) -> None:
    """Whatever passes has a host and can stand in a request line."""
    try:
        validate_url(url)
    except ValidationError:
        return
    assert urlsplit(url).hostname
    assert not set(url) & set(" \r\n\t\0")
