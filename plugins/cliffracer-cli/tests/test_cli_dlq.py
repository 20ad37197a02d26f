"""`dlq` on dead letters of a service that runs as a process on a real server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cliffracer_cli.testing import CommandLine, fake_plugin

from cliffracer_core import ClientProxy
from cliffracer_core.testing import unique

APP = """
import pathlib

from cliffracer_core import CliffracerService, event


class Billing(CliffracerService):
    name = "{name}"

    @event("{name}.placed", durable=True, retries=1, backoff_s=0.01)
    async def charge(self, id: int) -> None:
        if not pathlib.Path("healed").exists():
            raise RuntimeError("printer on fire")
        print("charged", id, flush=True)

    @event("{name}.plain")
    async def plain(self, id: int) -> None: ...

    @event("{name}.placed", durable=True)
    async def note(self, id: int) -> None:
        print("noted", id, flush=True)
"""


THIN = """
from cliffracer_core import hookimpl
from cliffracer_core.interfaces import Capabilities, TransportFactory


class Thin:
    capabilities = Capabilities()

    async def open(self):
        pass

    async def close(self):
        pass


@hookimpl
def cliffracer_register_transports():
    return [TransportFactory(schemes=["thin"], create=lambda url, service: Thin())]
"""


class Shop:
    """A running service, and the command line beside it."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name, self.url, self.folder = name, url, folder
        self.service = CommandLine("run", "app", "--transport", url, directory=folder)

    def run(self, *arguments: str) -> CommandLine:
        with CommandLine(*arguments, "--transport", self.url, directory=self.folder) as process:
            process.wait()
        return process

    def fail(self, *ids: int) -> None:
        """Publish events and wait until each is a dead letter."""
        before = len(self.service.err)

        async def publish() -> None:
            async with ClientProxy(self.url) as proxy:
                for id in ids:
                    await proxy.caller.publish(
                        f"{self.name}.placed", {"id": id}, durable=True, headers={"X-Correlation-ID": "c-1"}
                    )

        asyncio.run(publish())
        known = [line for line in self.service.err[:before] if "moved to DLQ" in line]
        self.service.wait_for("moved to DLQ", times=len(known) + len(ids))


@pytest.fixture
def shop(tmp_path: Path, nats_url: str) -> Iterator[Shop]:
    name = unique()
    (tmp_path / "app.py").write_text(APP.format(name=name))
    shop = Shop(name, nats_url, tmp_path)
    with shop.service:
        shop.service.wait_for("is ready")
        yield shop
        assert shop.service.stop() == 0


def test_dead_letters_are_listed_and_shown_with_why(shop: Shop) -> None:
    """Cause, attempts, times, handler, subject, correlation id and size are there; the payload only where asked for."""
    shop.fail(41, 42)
    first, second = shop.run("dlq", "list", shop.name, "--json").json()
    assert first["sequence"] < second["sequence"]
    assert (first["handler"], first["subject"], first["attempts"]) == ("charge", f"{shop.name}.placed", 2)
    assert (first["cause"], first["correlation_id"]) == ("RuntimeError: printer on fire", "c-1")
    assert first["payload_bytes"] == len('{"id":41}')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["failed_at"])
    assert first["first_failed_at"] == first["failed_at"]
    header, line, *_ = shop.run("dlq", "list", shop.name).out
    assert header.split("  ")[0] == "SEQUENCE"
    assert "charge" in line
    assert line.endswith("RuntimeError: printer on fire")
    number = str(second["sequence"])
    assert shop.run("dlq", "show", shop.name, number, "--json").json() == [second]
    assert "42" not in " ".join(shop.run("dlq", "show", shop.name, number).out).replace(shop.name, "").split("payload")
    assert shop.run("dlq", "show", shop.name, number, "--payload", "--json").json()[0]["payload"] == {"id": 42}
    assert '  "id": 42' in shop.run("dlq", "show", shop.name, number, "--payload").out


def test_redrive_reaches_the_failed_handler_alone_and_removes_the_entry(shop: Shop) -> None:
    """A healed handler gets its event again, the other one does not, and the rest of the stream stays."""
    shop.fail(1, 2)
    first, second = shop.run("dlq", "list", shop.name, "--json").json()
    (shop.folder / "healed").touch()
    process = shop.run("dlq", "redrive", shop.name, str(first["sequence"]), "--json")
    assert process.json()["message_id"].startswith("redrive:")
    shop.service.wait_for("charged 1")
    assert shop.run("dlq", "list", shop.name, "--json").json() == [second]
    assert shop.run("publish", f"{shop.name}.plain", "id=x").wait() == 0
    shop.service.wait_for("moved to DLQ", times=3)
    process = shop.run("dlq", "redrive", shop.name, "--all", "--yes")
    assert process.out[0].startswith(f"{second['sequence']} redriven as redrive:")
    assert process.wait() == 1
    plain = re.findall(rf"error: of service '{shop.name}', (\d+) cannot be redriven; see why with", process.err[0])[0]
    shop.service.wait_for("charged 2")
    assert len(shop.service.wait_for("noted")) == 2
    assert "hears plain events" in " ".join(shop.run("dlq", "show", shop.name, plain).out)
    assert shop.run("dlq", "drop", shop.name, plain).wait() == 0
    process = shop.run("dlq", "list", shop.name)
    assert (process.wait(), process.out, process.err) == (0, [], [f"service {shop.name!r} has no dead letters"])


def test_first_failure_stays_when_a_redriven_event_fails_again(shop: Shop) -> None:
    """The new entry keeps the time of the first one."""
    shop.fail(1)
    (first,) = shop.run("dlq", "list", shop.name, "--json").json()
    assert shop.run("dlq", "redrive", shop.name, "--all", "--yes").wait() == 0
    shop.service.wait_for("moved to DLQ", times=2)
    (second,) = shop.run("dlq", "list", shop.name, "--json").json()
    assert second["sequence"] > first["sequence"]
    assert second["first_failed_at"] == first["failed_at"] <= second["failed_at"]
    assert second["message_id"] == first["message_id"]


def test_dropped_letters_are_gone(shop: Shop) -> None:
    """`drop` removes what is named, and with --all the rest."""
    shop.fail(1, 2, 3)
    one, two, three = (str(each["sequence"]) for each in shop.run("dlq", "list", shop.name, "--json").json())
    assert shop.run("dlq", "drop", shop.name, two).out == [f"{two} dropped"]
    process = shop.run("dlq", "drop", shop.name, "--all", "--yes", "--json")
    assert [json.loads(line) for line in process.out] == [{"sequence": int(one)}, {"sequence": int(three)}]
    assert shop.run("dlq", "list", shop.name, "--json").json() == []


def test_nothing_happens_when_a_letter_is_missing_or_nothing_is_confirmed(shop: Shop) -> None:
    """A missing number refuses the whole command; --all asks first, and does not where nobody can answer."""
    shop.fail(1)
    (letter,) = shop.run("dlq", "list", shop.name, "--json").json()
    number = str(letter["sequence"])
    for verb in ("redrive", "drop"):
        process = shop.run("dlq", verb, shop.name, number, "9999")
        assert process.wait() == 1
        assert process.err == [
            f"error: service {shop.name!r} has no dead letter 9999; "
            f"list them with 'cliffracer dlq list {shop.name}'"
        ]  # fmt: skip
        process = shop.run("dlq", verb, shop.name, "--all")
        assert process.wait() == 2
        assert process.err[0].endswith("; confirm with --yes")
        assert shop.run("dlq", verb, shop.name).wait() == 2
        assert shop.run("dlq", verb, shop.name, number, "--all", "--yes").wait() == 2
    assert shop.run("dlq", "list", shop.name, "--json").json() == [letter]


def test_service_name_is_checked_before_anything_is_connected_to(tmp_path: Path) -> None:
    """A name that is none is wrong usage; one that `$` or a dot stands in never reaches the broker."""
    with CommandLine("dlq", "list", "a.b", "--transport", "nats://localhost:1", directory=tmp_path) as process:
        assert process.wait() == 2
    assert "service 'a.b'" in process.err[0]


def test_transport_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    """A transport without streams has no dead letters, which is no empty list."""
    fake_plugin(tmp_path, "thin", THIN)
    environment = {"PYTHONPATH": str(tmp_path)}
    with CommandLine("dlq", "list", "a", "--transport", "thin://", directory=tmp_path, environment=environment) as it:
        assert it.wait() == 3
    assert it.err == ["error: transport keeps no dead letters; name one that stores messages, such as nats://"]
