from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType

import nkeys  # type: ignore[import-untyped]  # it has no types
import pytest
from cliffracer_nats import CredentialsRefused, EmbeddedNats, NatsSettings, NatsTransport, embedded_nats

from cliffracer_core.errors import AuthenticationError, ConfigurationError, ConnectionError, MessageTooLarge
from cliffracer_core.messages import Message
from cliffracer_core.testing import Collector, eventually, unique


def _load_credentials() -> ModuleType:  # import-mode=importlib puts no test directory on sys.path
    spec = importlib.util.spec_from_file_location("nats_credentials", Path(__file__).with_name("nats_credentials.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


credentials = _load_credentials()


@asynccontextmanager
async def connected(url: str, **settings: object) -> AsyncIterator[NatsTransport]:
    transport = NatsTransport(url, NatsSettings(**settings))  # type: ignore[arg-type]  # each test knows its fields
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


async def works(transport: NatsTransport) -> bool:
    got, subject = Collector[Message](), unique()
    await transport.subscribe(subject, got)
    await transport.publish(Message(subject, b"x"))
    return [each.body for each in await got.at_least(1)] == [b"x"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("certificates")
    credentials.make_certificates(directory)
    return directory


async def test_open_is_refused_within_its_time_when_the_token_is_wrong(own_nats: EmbeddedNats) -> None:
    """Wrong credentials are an error of both kinds, in time, and no secret is shown."""
    for url in (f"nats://wr0ng@127.0.0.1:{own_nats.port}", f"nats://127.0.0.1:{own_nats.port}"):
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError, match="refused the credentials") as caught:
                await NatsTransport(url).open()
        assert isinstance(caught.value, CredentialsRefused)
        assert isinstance(caught.value, AuthenticationError)
        assert "wr0ng" not in str(caught.value)


async def test_open_fails_within_its_time_when_nobody_is_there() -> None:
    """A port without a server, and a host that does not answer, are ConnectionErrors in time."""
    urls = {"nats://127.0.0.1:1": 5, "nats://127.0.0.1:1,nats://127.0.0.1:2": 5, "nats://secret@240.0.0.1:4222": 1}
    for url, limit_s in urls.items():
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError, match=f"cannot reach 'nats://.*within {limit_s} s; start") as caught:
                await NatsTransport(url, NatsSettings(connect_timeout_s=limit_s)).open()
        assert "secret" not in str(caught.value)


async def test_open_fails_within_its_time_when_the_server_is_frozen(own_nats: EmbeddedNats) -> None:
    """A server that accepts and says nothing is a ConnectionError in time."""
    own_nats.pause()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError, match="within 1 s"):
                await NatsTransport(own_nats.url, NatsSettings(connect_timeout_s=1)).open()
    finally:
        own_nats.resume()


async def test_open_finds_the_server_that_runs_when_others_are_down(own_nats: EmbeddedNats) -> None:
    """Of several servers one that runs is enough."""
    url = f"nats://127.0.0.1:1,nats://{own_nats.token}@127.0.0.1:{own_nats.port},nats://127.0.0.1:2"
    async with connected(url) as transport:
        assert await works(transport)


@pytest.mark.parametrize("in_url", [True, False])
async def test_user_and_password_let_in(in_url: bool) -> None:
    """User and password work from the URL, escaped, and from the settings."""
    password = "p@ss/w,:rd%"
    config = f'authorization {{ user: "ada", password: "{password}" }}'
    with embedded_nats(token=False, jetstream=False, config=config) as server:
        if in_url:
            async with connected(f"nats://ada:p%40ss%2Fw%2C%3Ard%25@127.0.0.1:{server.port}") as transport:
                assert await works(transport)
        else:
            async with connected(server.url, user="ada", password=password) as transport:
                assert await works(transport)
        with pytest.raises(CredentialsRefused):
            await NatsTransport(server.url, NatsSettings(user="ada", password="wrong")).open()


async def test_an_nkey_lets_in(tmp_path: Path) -> None:
    """An nkey seed works as text and as a file."""
    seed = credentials.make_seed(nkeys.PREFIX_BYTE_USER)
    path = tmp_path / "user.nk"
    path.write_bytes(seed)
    config = f"authorization {{ users: [ {{ nkey: {credentials.public_key(seed)} }} ] }}"
    with embedded_nats(token=False, jetstream=False, config=config) as server:
        for value in (seed.decode(), str(path)):
            async with connected(server.url, nkey_seed=value) as transport:
                assert await works(transport)
        other = credentials.make_seed(nkeys.PREFIX_BYTE_USER).decode()
        with pytest.raises(CredentialsRefused):
            await NatsTransport(server.url, NatsSettings(nkey_seed=other)).open()


async def test_a_creds_file_lets_in(tmp_path: Path) -> None:
    """A .creds file, JWT and seed, works; a path without a file says so."""
    config, path = credentials.make_creds(tmp_path)
    with embedded_nats(token=False, jetstream=False, config=config) as server:
        async with connected(server.url, creds=str(path)) as transport:
            assert await works(transport)
        with pytest.raises(ConfigurationError, match=r"setting 'nats.creds': no file"):
            await NatsTransport(server.url, NatsSettings(creds=f"{path}x")).open()


async def test_tls_with_certificates_on_both_sides(certificates: Path) -> None:
    """Mutual TLS works; an unknown authority, and a client without certificate, are ConnectionErrors."""
    at = certificates
    config = (
        f'tls {{ cert_file: "{at}/server.pem", key_file: "{at}/server.key", ca_file: "{at}/ca.pem", verify: true }}'
    )
    with embedded_nats(jetstream=False, config=config) as server:
        client = {"tls_cert": str(at / "client.pem"), "tls_key": str(at / "client.key")}
        async with connected(server.url, tls_ca=str(at / "ca.pem"), **client) as transport:
            assert await works(transport)
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError, match="no TLS with"):
                await NatsTransport(server.url.replace("nats://", "tls://")).open()
            with pytest.raises(ConnectionError):
                await NatsTransport(server.url, NatsSettings(tls_ca=str(at / "ca.pem"))).open()


async def test_no_credentials_are_sent_in_plain_text_when_tls_is_asked_for(own_nats: EmbeddedNats) -> None:
    """`tls://` to a server without TLS is refused, though its token is right."""
    with pytest.raises(ConnectionError, match="does not offer it"):
        await NatsTransport(own_nats.url.replace("nats://", "tls://")).open()


async def test_retries_go_on_and_are_logged_when_credentials_change(
    own_nats: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that comes back with another token is logged, and tried until it has the old one again."""
    token, own_port = own_nats.token, own_nats.port
    async with connected(own_nats.url) as transport:
        with caplog.at_level(logging.WARNING, "cliffracer.nats"):
            own_nats.stop()
            with embedded_nats(port=own_port):
                await eventually(lambda: "authorization violation" in caplog.text.lower())
                assert not transport.connected
            own_nats.start()
            await eventually(lambda: transport.connected)
        assert await works(transport)
        assert token is not None
        assert token not in caplog.text


async def test_publish_is_kept_up_to_a_bound_when_disconnected(own_nats: EmbeddedNats) -> None:
    """While disconnected messages wait and arrive later; past `buffer_bytes` publish says so."""
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(connected(own_nats.url, buffer_bytes=100_000))
        subject, got = unique(), Collector[Message]()
        await transport.subscribe(subject, got)
        own_nats.kill()
        await eventually(lambda: not transport.connected)
        await transport.publish(Message(subject, b"kept"))
        await transport.publish(Message(subject, b"x" * 90_000))
        with pytest.raises(ConnectionError, match="100000 bytes wait already"):
            await transport.publish(Message(subject, b"x" * 10_000))
        own_nats.start()
        await got.at_least(1)
        assert got.items[0].body == b"kept"


async def test_close_does_not_hang_when_the_server_is_frozen(own_nats: EmbeddedNats) -> None:
    """Closing is bounded though the server no longer answers."""
    transport = NatsTransport(own_nats.url, NatsSettings(flush_timeout_s=0.5))
    await transport.open()
    await transport.publish(Message("a", b"x"))
    own_nats.pause()
    try:
        async with asyncio.timeout(10):
            await transport.close()
    finally:
        own_nats.resume()


async def test_a_flush_that_gave_up_does_no_harm(own_nats: EmbeddedNats) -> None:
    """The PONG of a flush whose time was over, coming late, leaves the connection as it was."""
    async with connected(own_nats.url) as transport:
        own_nats.pause()
        with pytest.raises(ConnectionError, match="not confirmed within 0.2 s"):
            await transport.connection.flush(0.2)
        own_nats.resume()
        await transport.flush()
        assert await works(transport)


async def test_messages_arrive_whole_when_the_socket_was_full_meanwhile(own_nats: EmbeddedNats) -> None:
    """What a socket takes half of is sent to its end, and before what comes after it."""
    async with connected(own_nats.url) as publisher, connected(own_nats.url) as subscriber:
        got = Collector[Message]()
        await subscriber.subscribe("big", got)
        own_nats.pause()
        bodies = [b"%d:" % number + b"x" * 200_001 for number in range(60)]
        publishing = asyncio.gather(*(publisher.publish(Message("big", body)) for body in bodies))
        done, _ = await asyncio.wait({publishing}, timeout=0.2)
        assert not done  # 12 MB are more than two sockets and a buffer hold
        own_nats.resume()
        await publishing
        assert [each.body for each in await got.at_least(60)] == bodies


async def test_ten_thousand_requests_at_once_get_their_replies(shared_nats: EmbeddedNats) -> None:
    """Each of 10,000 concurrent requests gets its own reply."""
    async with connected(shared_nats.url) as caller, connected(shared_nats.url) as service:
        tasks: set[asyncio.Task[None]] = set()
        subject = f"rpc.{unique()}"

        def answer(message: Message) -> None:
            assert message.reply_to is not None
            task = asyncio.create_task(service.publish(Message(message.reply_to, message.body)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await service.subscribe(subject, answer, queue="q")
        replies = await asyncio.gather(*(caller.request(Message(subject, b"%d" % n), 30) for n in range(10_000)))
        assert [int(each.body) for each in replies] == list(range(10_000))


async def test_drain_hands_over_what_was_published_before_it_without_a_flush(shared_nats: EmbeddedNats) -> None:
    """What one connection published before it drains comes to its own subscription first."""
    async with connected(shared_nats.url) as transport:
        subject, got = unique(), Collector[Message]()
        subscription = await transport.subscribe(subject, got)
        for number in range(200):
            await transport.publish(Message(subject, b"%d" % number))
        await subscription.drain()
        assert [int(each.body) for each in got.items] == list(range(200))


async def test_headers_count_towards_the_largest_payload(shared_nats: EmbeddedNats) -> None:
    """A body that fits only without its headers is refused here; the server would end the connection."""
    async with connected(shared_nats.url) as transport:
        largest = transport.capabilities.max_payload
        assert largest is not None
        with pytest.raises(MessageTooLarge):
            await transport.publish(Message(unique(), b"x" * (largest - 10), {"X-Long": "y" * 100}))
        await transport.publish(Message(unique(), b"x" * largest))
        await transport.flush()


async def test_a_dropped_message_is_counted_and_logged(
    shared_nats: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    """What exceeds `pending_bytes` is dropped with a count and a log line."""
    async with connected(shared_nats.url, pending_bytes=1000, data_path="nats-py") as transport:
        subject, got = unique(), Collector[Message]()
        await transport.subscribe(subject, got)
        await transport.publish(Message(subject, b"x" * 2000))
        await transport.publish(Message(subject, b"small"))
        await got.at_least(1)
        assert [each.body for each in got.items] == [b"small"]
        assert transport.connection.dropped == 1
        assert f"dropped a message on {subject!r}" in caplog.text


async def test_a_failing_callback_is_logged_and_the_next_message_comes(
    shared_nats: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of a callback ends neither the subscription nor silently."""
    async with connected(shared_nats.url) as transport:
        subject, got = unique(), Collector[Message]()

        def fail_first(message: Message) -> None:
            if message.body == b"1":
                raise ValueError("no good")
            got(message)

        await transport.subscribe(subject, fail_first)
        await transport.publish(Message(subject, b"1"))
        await transport.publish(Message(subject, b"2"))
        await got.at_least(1)
        assert "no good" in caplog.text


async def test_an_error_of_the_server_is_survived(own_nats: EmbeddedNats) -> None:
    """After an -ERR that ends the connection the transport reconnects, with its subscriptions."""
    async with connected(own_nats.url) as transport:
        subject, got = unique(), Collector[Message]()
        await transport.subscribe(subject, got)
        client = transport.connection.live()
        before = client.stats["reconnects"]
        await client._send_command(b"NONSENSE\r\n")
        await client._flush_pending()
        await eventually(lambda: client.stats["reconnects"] > before and transport.connected)
        await transport.publish(Message(subject, b"x"))
        assert [each.body for each in await got.at_least(1)] == [b"x"]


def test_the_plugin_imports_no_client_library() -> None:
    """Loading the plugin leaves nats-py alone."""
    import subprocess

    code = "import sys, cliffracer_nats.plugin; sys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
