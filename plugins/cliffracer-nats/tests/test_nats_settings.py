from __future__ import annotations

import msgspec
import pytest
from cliffracer_nats import NatsSettings, NatsStore, NatsTransport, plugin
from cliffracer_nats.headers import StatusHeaders, parse_headers, status_of
from cliffracer_nats.settings import SECRETS, mask_url, options_url, parse_url

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.interfaces import ServiceInfo


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://a", {"url": "nats://a:4222"}),
        ("a:1", {"url": "nats://a:1"}),
        ("", {"url": "nats://localhost:4222"}),
        ("nats://a:1, tls://b", {"url": "nats://a:1,tls://b:4222"}),
        ("nats://[::1]:1", {"url": "nats://[::1]:1"}),
        ("nats://t0ken@a", {"url": "nats://a:4222", "token": "t0ken"}),
        ("nats://u:p%40%2C@a,nats://b", {"url": "nats://a:4222,nats://b:4222", "user": "u", "password": "p@,"}),
        (
            "nats://a?connect_timeout_s=2&bucket=b&tls_first=true",
            {"connect_timeout_s": 2.0, "bucket": "b", "tls_first": True},
        ),
    ],
)
def test_a_url_sets_its_fields(url: str, expected: dict[str, object]) -> None:
    """Servers, credentials and query fields of a URL end up in the settings."""
    settings = parse_url(url, NatsSettings())
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a", "scheme"),
        ("nats://", "no host"),
        ("nats://a:port", "write 'nats://host:4222'"),
        (",", "names no server"),
        ("nats://u:p@a,nats://v:q@b", "differ"),
        ("nats://a?tls_cas=1", "did you mean 'tls_ca'"),
        ("nats://a?replicas=many", "correct the field"),
        ("nats://u:s3cret@a:x", "."),
    ],
)
def test_a_url_is_refused_when_it_is_wrong(url: str, reason: str) -> None:
    """A wrong URL is a ConfigurationError with the reason and without the password."""
    with pytest.raises(ConfigurationError, match=reason) as caught:
        parse_url(url, NatsSettings())
    assert "s3cret" not in str(caught.value)


def test_a_shown_url_has_no_secret() -> None:
    """User, password and query are masked."""
    assert mask_url("nats://u:p@x@a:1,tls://t@b?password=q") == "nats://***@a:1,tls://***@b"


def test_options_become_a_url() -> None:
    """`ClientProxy` options, in any of their forms, give the same settings."""
    assert options_url({"host": "h", "port": 1}) == "nats://h:1"
    assert options_url({"servers": ["nats://a", "nats://b"]}) == "nats://a,nats://b"
    url = options_url({"url": "nats://a", "password": "p@&=,", "user": "u", "name": None})
    assert parse_url(url, NatsSettings()).password == "p@&=,"


def test_the_plugin_offers_section_transport_and_store() -> None:
    """What the plugin registers fits: defaults, flat name, secrets that exist, factories without I/O."""
    (section,) = plugin.cliffracer_register_settings()
    assert section.type() == NatsSettings()
    assert section.flat == {"nats_url": "url"}
    assert {field.name for field in msgspec.structs.fields(NatsSettings)} >= SECRETS
    service = ServiceInfo(name="shop", version="1", settings={"nats": NatsSettings(replicas=3)})
    (transports,), (stores,) = plugin.cliffracer_register_transports(), plugin.cliffracer_register_stores()
    assert set(transports.schemes) == set(stores.schemes) == {"nats", "tls"}
    transport, store = transports.create("nats://a", service), stores.create("nats://a?bucket=b", service)
    assert isinstance(transport, NatsTransport)
    assert transport.settings.replicas == 3
    assert isinstance(store, NatsStore)
    assert store.bucket == "b"


def test_headers_keep_case_and_the_first_of_a_repeated_name() -> None:
    """A header block becomes a plain dict."""
    block = b"NATS/1.0\r\nX-One: 1\r\nx-one:2\r\nX-One: 3\r\nX-Empty:\r\nbad line\r\nX-Bad: \xff\r\n\r\n"
    assert parse_headers(block) == {"X-One": "1", "x-one": "2", "X-Empty": "", "X-Bad": "\ufffd"}
    assert parse_headers(b"NATS/1.0\r\n\r\n") is None


def test_a_status_is_the_servers_own() -> None:
    """The server's inline status is told from a client's header of that name."""
    server = parse_headers(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n")
    assert type(server) is StatusHeaders
    assert status_of(server) == "408"
    assert server == {"Status": "408", "Description": "Request Timeout", "Nats-Pending-Messages": "3"}
    assert status_of(parse_headers(b"NATS/1.0\r\nStatus: 503\r\n\r\n")) is None
