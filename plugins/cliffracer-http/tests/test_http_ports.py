from __future__ import annotations

import socket
import sys

import pytest
from cliffracer_http.testing import free_ports


@pytest.mark.skipif(sys.platform != "linux", reason="held on Linux alone")
def test_port_is_nobody_elses_when_its_server_comes_and_goes() -> None:
    """Others cannot take a port that was found; a server may listen on it, and again; it is free after the block."""
    with free_ports() as find:
        first, second = find(), find()
        assert first != second
        for _ in range(2):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", first))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", first))
            with socket.create_server(("127.0.0.1", first)), socket.create_connection(("127.0.0.1", first)):
                pass
    with socket.socket() as other:
        other.bind(("127.0.0.1", second))
