from __future__ import annotations

import contextlib

import msgspec
import pytest
from cliffracer_discovery import EndpointInfo, EndpointStats, InfoResponse, PingResponse, StatsResponse
from cliffracer_discovery.protocol import control_subject, read
from hypothesis import given
from hypothesis import strategies as st

from cliffracer_core import InvalidSubject, ValidationError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "id", "metadata", "endpoints"]), inner),
    max_leaves=10,
)


def test_subject_names_all_some_or_one_when_asked() -> None:
    """The subjects are those of ADR-32, under another prefix too."""
    assert control_subject("PING") == "$SRV.PING"
    assert control_subject("INFO", "users") == "$SRV.INFO.users"
    assert control_subject("STATS", "users", "abc") == "$SRV.STATS.users.abc"
    assert control_subject("PING", prefix="$OTHER") == "$OTHER.PING"


def test_subject_is_refused_when_part_is_none() -> None:
    """A verb, name or id that would ask somebody else is refused."""
    with pytest.raises(ValidationError, match="verb 'ping' does not exist; use one of PING, INFO, STATS"):
        control_subject("ping")  # type: ignore[arg-type]  # a user's slip
    with pytest.raises(ValidationError, match="given without a name"):
        control_subject("PING", id="abc")
    with pytest.raises(InvalidSubject):
        control_subject("PING", "a.b")
    with pytest.raises(InvalidSubject):
        control_subject("PING", "a", "*")


def test_own_answers_are_read_when_encoded() -> None:
    """What we say is what we understand, to the last field."""
    endpoint = EndpointInfo(name="get", subject="rpc.users.get", metadata={"doc": "x"})
    stats = EndpointStats(name="get", subject="rpc.users.get", num_requests=1, data={"p50_ms": 1.0})
    ping = PingResponse(name="users", id="1", version="1.0.0", metadata={"zone": "a"})
    info = InfoResponse(name="users", id="1", description="d", endpoints=[endpoint])
    report = StatsResponse(name="users", id="1", started="2026-01-01T00:00:00.000Z", endpoints=[stats])
    assert read("PING", msgspec.json.encode(ping)) == ping
    assert read("INFO", msgspec.json.encode(info)) == info
    assert read("STATS", msgspec.json.encode(report)) == report


def test_foreign_answer_is_read_when_fields_differ() -> None:
    """Nulls, missing and further fields, and metadata that is no text do not lose an answer."""
    body = b"""{"type": "io.nats.micro.v1.info_response", "name": "old", "id": "1", "version": null,
        "description": null, "metadata": null, "subjects": ["x"], "endpoints": [
            {"name": "a", "subject": "a", "metadata": {"n": 1, "none": null, "list": [1, 2]}, "queue_group": null}]}"""
    endpoint = EndpointInfo(name="a", subject="a", queue_group="q", metadata={"n": "1", "list": "[1,2]"})
    assert read("INFO", body) == InfoResponse(name="old", id="1", endpoints=[endpoint])
    stats = read("STATS", b'{"name": "old", "id": "1", "endpoints": [{"name": "a", "subject": "a", "data": null}]}')
    assert stats == StatsResponse(name="old", id="1", endpoints=[EndpointStats(name="a", subject="a")])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"id": "1"}',
        b'{"name": 1, "id": "1"}',
        b'{"type": "io.nats.micro.v1.ping_response", "name": "a", "id": "1"}',
        b'{"name": "a", "id": "1", "endpoints": [null]}',
        b"[" * 100_000,
    ],
)
def test_body_is_refused_when_it_is_no_answer(body: bytes) -> None:
    """Whatever else comes is a ValidationError, which `discover` leaves out."""
    with pytest.raises(ValidationError):
        read("INFO", body)


@given(JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    """No JSON at all raises anything but a ValidationError."""
    with contextlib.suppress(ValidationError):
        assert read("STATS", msgspec.json.encode(value)).name is not None
