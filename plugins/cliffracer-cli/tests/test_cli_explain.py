"""`explain`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cliffracer_cli.testing import CommandLine

APP = """
from cliffracer_core import CliffracerService, rpc


class Users(CliffracerService):
    name = "users"

    @rpc
    async def find(self, id: int) -> int:
        return id
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize(
    "arguments", [["app:Users.find"], ["users.find", "--app", "app:Users"], ["users.find", "--app", "app"]]
)
def test_chains_are_shown_without_a_broker(folder: Path, arguments: list[str]) -> None:
    """The chains in and out, outermost first; nothing is connected to, so nothing need be there."""
    url = "nats://127.0.0.1:1"
    with CommandLine("explain", *arguments, "--transport", url, "--json", directory=folder) as process:
        chains = process.json()
    assert chains["handler"] == "users.find"
    assert "observe discovery:stats" in chains["in"]
    assert chains["in"][-2:] == ["decode", "users.find"]
    assert chains["call"][-1] == chains["publish"][-1] == "encode"


def test_chains_are_numbered_for_people(folder: Path) -> None:
    """Text says which way each chain goes."""
    with CommandLine("explain", "app:Users.find", directory=folder) as process:
        assert process.wait() == 0
    assert process.out[0] == "users.find"
    assert "a call comes in through:" in process.out
    assert any(line.strip().startswith("1. ") for line in process.out)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["app:Users.nothing"], 3, "has no handler 'nothing'; it has find"),
        (["users.find"], 2, "is not of the form module:Service.method; write it so, or give --app"),
        (["orders.find", "--app", "app:Users"], 2, "'app:Users' is the service 'users', not 'orders'"),
        (["nowhere:Users.find"], 2, "module 'nowhere' is neither in"),
        (["find", "--app", "app:Users"], 2, "is not of the form service.method"),
        (["app:Users.find", "--set", "tiemout=1"], 3, "did you mean 'timeout'?"),
    ],
)
def test_failure_says_what(folder: Path, arguments: list[str], code: int, text: str) -> None:
    """One line with the remedy."""
    with CommandLine("explain", *arguments, directory=folder) as process:
        assert process.wait() == code
    assert len(process.err) == 1
    assert text in process.err[0]
