"""Headers and codecs: what may cross a transport and what is refused on the way."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliffracer_core.errors import EncodingError, InvalidHeader, ValidationError
from cliffracer_core.messages import CODECS, JSON, MSGPACK, Codec, SharedHeaders, codec_for, validate_headers

both = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
NON_FINITE = [math.nan, math.inf, -math.inf]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)
header_names = st.text(st.sampled_from("aZ9-_ \r\n\0\x7f:ü\ud800"), max_size=4)
header_texts = st.text(st.sampled_from("aZ9 \t\r\n\0\x0b\x1f\x7f\x85\u2028ü\ud800"), max_size=6)


class Color(enum.Enum):
    NONE = math.nan


class Point(msgspec.Struct):
    x: float
    label: str | None = None


@dataclasses.dataclass
class Place:
    point: Point
    height: float | None = None


class Pair(NamedTuple):
    left: float
    right: float


# --- headers ----------------------------------------------------------------------------------------


@given(st.dictionaries(header_names, header_texts, max_size=2))
def test_headers_stay_on_their_lines_when_they_are_accepted(headers: dict[str, str]) -> None:
    """What `validate_headers` lets through can never begin another header, end the block, or fail to encode."""
    try:
        accepted = validate_headers(headers)
    except InvalidHeader:
        return
    assert accepted is headers
    for name, value in headers.items():
        assert name
        assert name.isascii()
        assert not set(name) & set(" \t\r\n\0:")
        assert not set(value) & set("\r\n\0")
        assert value == value.strip()
        value.encode()


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "é \N{SNOWMAN} text", "Bearer x.y-z", "a" * 10_000])
def test_header_is_accepted_when_its_value_is_text(value: str) -> None:
    """Any printable text is a value, spaces and tabs inside included."""
    assert validate_headers({"X-Note": value}) == {"X-Note": value}


@pytest.mark.parametrize(
    "value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "\x7f", " a", "a ", "a\t", "\u2028a", "\ud800", 5, None, b"a"]
)
def test_header_is_refused_when_its_value_is_unsafe(value: Any) -> None:
    """Control characters, edge spaces, lone surrogates and other types are refused; the value is not repeated."""
    with pytest.raises(InvalidHeader, match="'X-Note'") as caught:
        validate_headers({"X-Note": value})
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\0", "é", "\ud800", "a(b)", 5, None])
def test_header_is_refused_when_its_name_is_no_token(name: Any) -> None:
    """A name follows RFC 9110."""
    with pytest.raises(InvalidHeader, match="token"):
        validate_headers({name: "x"})


@pytest.mark.parametrize(
    "change",
    [
        lambda headers: headers.update(B="2"), lambda headers: headers.pop("A"), lambda headers: headers.clear(),
        lambda headers: headers.setdefault("B", "2"), lambda headers: headers.__setitem__("A", "2"),
        lambda headers: headers.popitem(), lambda headers: headers.__delitem__("A"),
        lambda headers: headers.__ior__({}),
    ],
)  # fmt: skip
def test_shared_headers_do_not_change(change: Callable[[dict[str, str]], object]) -> None:
    """What many messages carry is changed by none of those who get it."""
    shared = SharedHeaders({"A": "1"})
    with pytest.raises(TypeError, match="make a copy"):
        change(shared)
    assert shared == {"A": "1"}


def test_shared_headers_are_a_dict_for_all_else() -> None:
    """Codecs take them, and a copy is one's own."""
    shared = SharedHeaders({"A": "1"})
    assert JSON.encode(shared) == b'{"A":"1"}'
    for made in (dict(shared), copy.copy(shared), copy.deepcopy(shared), shared | {}):
        made["B"] = "2"
    assert shared == {"A": "1"}


# --- encoding ---------------------------------------------------------------------------------------


@both
@given(value=values)
def test_value_is_the_same_when_it_comes_back(codec: Codec, value: object) -> None:
    """Both codecs carry everything JSON knows without loss."""
    assert codec.decoder(Any)(codec.encode(value)) == value


@both
def test_value_keeps_its_type_when_both_sides_know_it(codec: Codec) -> None:
    """Structs, dataclasses, dates, UUIDs and decimals come back as what they were."""
    moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.UTC)
    for value in (Place(Point(1.5, None)), moment, uuid.uuid4(), Decimal("1.10"), {1: "a"}, Pair(1.0, 2.0)):
        hint: Any = dict[int, str] if isinstance(value, dict) else type(value)
        assert codec.decoder(hint)(codec.encode(value)) == value


@pytest.mark.parametrize("bad", NON_FINITE)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: bad,
        lambda bad: [None, [1, (bad,)]],
        lambda bad: {"a": {"b": [bad]}},
        lambda bad: {bad},
        lambda bad: Point(bad),
        lambda bad: [Place(Point(1.0), bad)],
        lambda bad: Pair(1.0, bad),
        lambda bad: {"raw": msgspec.Raw(b"null"), "bad": bad},
    ],
)
def test_number_is_refused_when_json_cannot_carry_it(wrap: Any, bad: float) -> None:
    """NaN and infinity are an error wherever they hide, and never a silent null."""
    with pytest.raises(EncodingError, match="NaN or infinity"):
        JSON.encode(wrap(bad))


def test_enum_is_refused_when_its_value_is_not_finite() -> None:
    """An enum's value counts as a number of the body."""
    with pytest.raises(EncodingError, match="NaN or infinity"):
        JSON.encode({"color": Color.NONE})


@pytest.mark.parametrize("bad", NON_FINITE)
def test_key_is_text_when_it_is_not_finite(bad: float) -> None:
    """A key is text in JSON, so that one which is no number loses nothing."""
    assert JSON.decoder(dict[str, int])(JSON.encode({bad: 1})) == {str(bad): 1}


@pytest.mark.parametrize("bad", NON_FINITE)
def test_number_passes_when_messagepack_carries_it(bad: float) -> None:
    """MessagePack has NaN and infinity, and so they are no error there."""
    back = MSGPACK.decoder(float)(MSGPACK.encode(bad))
    assert back == bad or (math.isnan(bad) and math.isnan(back))


@pytest.mark.parametrize(
    "value",
    [None, "null", {"a": None}, [None, 1.5], {"text": "a null"}, Place(Point(1.0)), msgspec.Raw(b"null")],
)
def test_null_passes_when_it_was_meant(value: object) -> None:
    """A body may say null; only a lost number may not become one."""
    assert b"null" in JSON.encode(value)


def cycle() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


def deep(levels: int, value: object = None) -> object:
    for _ in range(levels):
        value = [value]
    return value


@both
@pytest.mark.parametrize(
    "make",
    [object, lambda: object, lambda: {"a": [object()]}, lambda: "\ud800", lambda: 1j, lambda: range(3), cycle],
)
def test_value_is_refused_when_it_has_no_encoding(codec: Codec, make: Any) -> None:
    """What cannot be sent is an EncodingError of the sender, whatever is wrong with it."""
    with pytest.raises(EncodingError):
        codec.encode(make())


def test_integer_is_refused_when_it_is_too_long() -> None:
    """A number past what Python prints or MessagePack holds is an error of ours."""
    with pytest.raises(EncodingError):
        JSON.encode(10**5000)
    with pytest.raises(EncodingError):
        MSGPACK.encode(2**64)


@both
def test_struct_is_refused_when_a_field_is_unset(codec: Codec) -> None:
    """An object with a field missing is an error of ours too."""
    point = Point(1.0)
    del point.x
    with pytest.raises(EncodingError, match="Point"):
        codec.encode(point)


@both
def test_depth_is_no_other_error_when_it_comes_near_the_limit(codec: Codec) -> None:
    """However deep a value is, it is encoded or refused as too deep, and nothing else."""
    encoder = msgspec.json.Encoder() if codec is JSON else msgspec.msgpack.Encoder()

    def fits(levels: int) -> bool:
        try:
            encoder.encode(deep(levels))
        except RecursionError:
            return False
        return True

    low, high = 1, 1 << 17  # the limit depends on the version of Python
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    outcomes = set()
    for levels in range(low - 20, high + 20):
        try:
            codec.encode(deep(levels))
            outcomes.add("encoded")
        except EncodingError as error:
            outcomes.add(str(error))
    assert outcomes == {"encoded", "value nests too deeply or contains itself; return a finite structure"}


# --- decoding ---------------------------------------------------------------------------------------


class User(msgspec.Struct):
    name: str
    age: int = 0
    tags: list[str] = []
    scores: dict[int, int] = {}
    point: Point | None = None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nul", b"NaN", b"[1,]", b"{}x", b'"\xff"', b"\xef\xbb\xbf{}", b'"\\ud800"']
)
def test_body_is_refused_when_it_is_no_json(body: bytes) -> None:
    """Malformed JSON and invalid UTF-8 are the sender's mistake."""
    with pytest.raises(ValidationError, match="application/json"):
        JSON.decoder(Any)(body)


@pytest.mark.parametrize("body", [b"", b"\xa1\xff", b"\xc1", b"\x92\x01", b"\x01\x01", b"\xdd\xff\xff\xff\xff"])
def test_body_is_refused_when_it_is_no_messagepack(body: bytes) -> None:
    """Malformed MessagePack, and a header that announces more than there is, are the sender's mistake."""
    with pytest.raises(ValidationError, match="application/msgpack"):
        MSGPACK.decoder(Any)(body)


@both
@given(body=st.binary(max_size=40))
def test_body_is_decoded_or_refused_when_it_is_anything(codec: Codec, body: bytes) -> None:
    """No bytes make a decoder raise anything but a ValidationError."""
    for hint in (Any, User, list[float], dict[str, datetime.datetime]):
        try:
            codec.decoder(hint)(body)
        except ValidationError:
            continue


@pytest.mark.parametrize("hint", [Any, User, list[Any], dict[str, Any]])
@pytest.mark.parametrize(
    ("codec", "head", "bomb"),
    [
        (JSON, b'{"other":', b"["), (JSON, b"", b"["), (JSON, b"", b'{"a":'),
        (MSGPACK, b"\x81\xa1a", b"\x91"), (MSGPACK, b"", b"\x91"),
    ],
    ids=["json unknown field", "json array", "json object", "msgpack unknown field", "msgpack array"],
)  # fmt: skip
def test_body_is_refused_when_it_is_a_depth_bomb(codec: Codec, head: bytes, bomb: bytes, hint: Any) -> None:
    """Half a megabyte of brackets is refused and does not end the process, in fields nobody asked for too."""
    with pytest.raises(ValidationError):
        codec.decoder(hint)(head + bomb * 500_000)


def test_number_is_refused_when_it_is_out_of_range() -> None:
    """A number too large for its type is the sender's mistake."""
    for hint, body in ((int, b"1" * 5000), (float, b"1e999"), (Any, b"1" * 5000)):
        with pytest.raises(ValidationError, match="out of range"):
            JSON.decoder(hint)(body)


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        (b'{"name": 5}', "name", "expected `str`, got `int`"),
        (b'{"name": "a", "tags": ["x", 1]}', "tags[1]", "expected `str`, got `int`"),
        (b'{"name": "a", "point": {"x": "y"}}', "point.x", "expected `float`, got `str`"),
        (b"{}", "name", "it is missing"),
        (b'{"name": "a", "point": {}}', "point.x", "it is missing"),
        (b'{"name": "a", "scores": {"x": 1}}', "scores", "a key of it: expected `int`, got `str`"),
    ],
)
def test_error_names_the_field_when_a_value_does_not_fit(body: bytes, field: str, text: str) -> None:
    """A wrong argument is named in words and in `details`, however deep it lies."""
    with pytest.raises(ValidationError) as caught:
        JSON.decoder(User)(body)
    assert caught.value.details == {"field": field}
    assert str(caught.value) == f"argument {field!r}: {text}"


def test_error_speaks_of_the_body_when_all_of_it_is_wrong() -> None:
    """Where no field is to blame none is named."""
    with pytest.raises(ValidationError, match="^body: expected `object`, got `array`") as caught:
        JSON.decoder(User)(b"[]")
    assert caught.value.details == {}
    with pytest.raises(ValidationError, match="^body: a key of it: expected `int`"):
        JSON.decoder(dict[int, int])(b'{"x": 1}')


def test_error_names_the_right_field_when_a_value_imitates_a_path() -> None:
    """Text from the wire cannot make an error speak of another field."""

    class Choice(msgspec.Struct):
        color: enum.Enum("Colors", {"red": "red"})  # type: ignore[valid-type]  # an enum, made here

    body = JSON.encode({"color": "x - at `$.admin`"})
    with pytest.raises(ValidationError) as caught:
        JSON.decoder(Choice)(body)
    assert caught.value.details == {"field": "color"}


def test_error_names_the_argument_when_it_is_not_known() -> None:
    """A refused unknown argument is named."""

    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        name: str = ""

    with pytest.raises(ValidationError, match="argument 'nmae': there is no such argument"):
        JSON.decoder(Strict)(b'{"nmae": "x"}')


# --- content types ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "codec"),
    [
        (None, JSON),
        ({}, JSON),
        ({"X-Other": "1"}, JSON),
        ({"Content-Type": "application/json"}, JSON),
        ({"Content-Type": "application/json; charset=utf-8"}, JSON),
        ({"Content-Type": " Application/MsgPack "}, MSGPACK),
    ],
)
def test_codec_is_the_one_named_when_there_is_a_content_type(headers: dict[str, str] | None, codec: Codec) -> None:
    """JSON needs no header; any other encoding is named by one, whatever its case and parameters."""
    assert codec_for(headers) is codec


def test_content_type_is_refused_when_it_is_unknown() -> None:
    """A body in an encoding nobody knows is refused, with the known ones named."""
    with pytest.raises(ValidationError, match="'text/xml' is not known; send 'application/json' or"):
        codec_for({"Content-Type": "text/xml"})
