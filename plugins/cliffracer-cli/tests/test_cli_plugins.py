"""`plugins`, and commands and embedded servers that plugins add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cliffracer_cli.testing import CommandLine, fake_plugin

COMMAND = """
import click

from cliffracer_core import NotFoundError, hookimpl


@click.command("{command}", short_help="Greet somebody.")
@click.argument("name")
def greet(name):
    if name == "nobody":
        raise NotFoundError("there is nobody; name somebody")
    click.echo(f"hello {{name}}")
    return 0


@hookimpl(optionalhook=True)
def cliffracer_register_commands():
    return [greet]
"""


def run(folder: Path, *arguments: str, **variables: str) -> CommandLine:
    environment = {"PYTHONPATH": str(folder), **variables}
    with CommandLine(*arguments, directory=folder, environment=environment) as process:
        process.wait()
    return process


def by_name(process: CommandLine) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(process.out[0])["plugins"]}


def settings_of(plugin: Any) -> dict[str, Any]:
    return {each["name"]: (each["value"], each["source"]) for each in plugin["settings"]}


def test_plugins_are_listed_with_what_they_registered(tmp_path: Path) -> None:
    """Name, distribution, version, hooks and what they gave; hooks asked only at start have no items."""
    found = by_name(run(tmp_path, "plugins", "--json"))
    assert found["nats"]["distribution"] == "cliffracer-nats"
    assert found["nats"]["state"] == "active"
    assert found["nats"]["registered"]["register_transports"] == ["nats, tls"]
    assert found["nats"]["registered"]["register_embedded_servers"] == ["nats"]
    assert found["core"]["registered"]["register_transports"] == ["memory"]
    assert found["discovery"]["registered"]["register_middleware"] == []


def test_settings_have_their_value_and_source_and_no_secret(tmp_path: Path) -> None:
    """Values are those of here and now; of a URL its place is left, of any other secret nothing."""
    (tmp_path / "cliffracer.toml").write_text('timeout = 5.0\n[nats]\nuser = "ada"\n[services.users]\ntimeout = 6.0\n')
    secret = {
        "NATS_URL": "nats://tok-secret@a:1,nats://tok-secret@b:2?token=tok-secret",
        "CLIFFRACER_NATS__PASSWORD": "tok-secret",
    }
    process = run(tmp_path, "plugins", "--json", **secret)
    found = by_name(process)
    core, nats = settings_of(found["core"]), settings_of(found["nats"])
    assert core["timeout"] == (5.0, "cliffracer.toml")
    assert core["concurrency"] == (100, "default")
    assert core["transport"] == ("nats://***@a:1,nats://***@b:2", "NATS_URL")
    assert nats["nats.url"] == ("nats://***@a:1,nats://***@b:2", "NATS_URL")
    assert nats["nats.password"] == ("***", "CLIFFRACER_NATS__PASSWORD")
    assert nats["nats.user"] == ("***", "cliffracer.toml")
    table = run(tmp_path, "plugins", "--service", "users", **secret)
    assert table.wait() == 0
    assert any(line.split() == ["timeout", "6.0", "cliffracer.toml", "[services.users]"] for line in table.out)
    assert "tok-secret" not in "\n".join([*process.out, *table.out, *table.err])


def test_disabled_and_broken_plugins_are_listed(tmp_path: Path) -> None:
    """One that cannot be imported is named with its cause, the others are shown; the exit code is 3."""
    fake_plugin(tmp_path, "broken", "import not_there\n")
    process = run(tmp_path, "plugins", "--json", CLIFFRACER_DISABLE="discovery")
    found = by_name(process)
    assert process.wait() == 3
    assert {name: each["state"] for name, each in found.items()} == {
        "broken": "failed", "cli": "active", "core": "active", "db": "active",
        "discovery": "disabled", "nats": "active",
    }  # fmt: skip
    assert found["broken"]["version"] == "1.2.3"
    assert "No module named 'not_there'" in found["broken"]["error"]
    table = run(tmp_path, "plugins")
    assert table.wait() == 3
    assert table.err[0].startswith("error: plugin 'broken' (cliffracer-broken 1.2.3) cannot be imported")


def test_wrong_setting_is_reported_beside_the_plugins(tmp_path: Path) -> None:
    """The list is there, the error is on stderr, the exit code is 3."""
    process = run(tmp_path, "plugins", CLIFFRACER_TIMEOUTT="3")
    assert process.wait() == 3
    assert any(line.startswith("nats ") for line in process.out)
    assert "did you mean 'timeout'?" in process.err[0]


def test_broken_plugin_stops_other_commands_and_not_help(tmp_path: Path) -> None:
    """Commands fail and name it; help lists the built-in ones and says what is missing."""
    fake_plugin(tmp_path, "broken", "1 / 0\n")
    call = run(tmp_path, "call", "a.b")
    assert call.wait() == 3
    assert "error: plugin 'broken' (cliffracer-broken 1.2.3) cannot be imported: ZeroDivisionError" in call.err[0]
    help = run(tmp_path, "--help")
    assert help.wait() == 0
    assert any("Commands of plugins are missing" in line for line in help.out)
    assert run(tmp_path, "version").wait() == 0


def test_command_of_a_plugin_runs(tmp_path: Path) -> None:
    """It is listed, runs, and its errors become a line and an exit code as those of built-in ones."""
    fake_plugin(tmp_path, "greeter", COMMAND.format(command="greet"))
    assert any("Greet somebody." in line for line in run(tmp_path, "--help").out)
    assert run(tmp_path, "greet", "Ada").out == ["hello Ada"]
    failing = run(tmp_path, "greet", "nobody")
    assert (failing.wait(), failing.err) == (1, ["error: there is nobody; name somebody"])
    assert run(tmp_path, "greet", "Ada", CLIFFRACER_DISABLE="greeter").wait() == 2
    assert by_name(run(tmp_path, "plugins", "--json"))["greeter"]["registered"] == {"register_commands": ["greet"]}


@pytest.mark.parametrize("command", ["call", "version"])
def test_clash_with_a_built_in_command_names_the_plugin(tmp_path: Path, command: str) -> None:
    """A plugin cannot replace a built-in command; the error says which, and how to go on."""
    fake_plugin(tmp_path, "greeter", COMMAND.format(command=command))
    process = run(tmp_path, "services")
    assert process.wait() == 3
    assert process.err == [
        f"error: plugin 'greeter': its command {command!r} clashes with a built-in one; "
        f"rename it, or disable the plugin with CLIFFRACER_DISABLE=greeter"
    ]


def test_clash_of_two_plugins_names_both(tmp_path: Path) -> None:
    """Neither wins."""
    fake_plugin(tmp_path, "greeter", COMMAND.format(command="greet"))
    fake_plugin(tmp_path, "other", COMMAND.format(command="greet"))
    process = run(tmp_path, "greet", "Ada")
    assert process.wait() == 3
    assert "plugin 'other': its command 'greet' clashes with one of plugin 'greeter'" in process.err[0]


def test_item_that_is_no_command_is_refused(tmp_path: Path) -> None:
    """A function without `@click.command` is told so."""
    source = COMMAND.format(command="greet").replace("return [greet]", "return [print]")
    fake_plugin(tmp_path, "greeter", source)
    process = run(tmp_path, "greet")
    assert process.wait() == 3
    assert "plugin 'greeter': <built-in function print> is no click command" in process.err[0]


EMBEDDED = """
import contextlib
from types import SimpleNamespace

import msgspec

from cliffracer_core import Section, hookimpl


class Settings(msgspec.Struct):
    url: str = ""


@contextlib.contextmanager
def start():
    print("server starts", flush=True)
    yield "shop://ada:secret@127.0.0.1:1"
    print("server ends", flush=True)


@hookimpl
def cliffracer_register_settings():
    return [Section(name="shop", type=Settings)]


@hookimpl(optionalhook=True)
def cliffracer_register_embedded_servers():
    return [SimpleNamespace(name="shop", setting="shop.url", start=start)]
"""
APP = """
from cliffracer_core import CliffracerService


class Shop(CliffracerService):
    async def start(self) -> None:
        await super().start()
        print("shop at", self.info.settings["shop"].url, flush=True)
"""


def test_embedded_server_of_a_plugin_starts_when_its_setting_is_not_set(tmp_path: Path) -> None:
    """`dev` gives the service the URL of each offered server that it lacks, and ends it; logs show no password."""
    fake_plugin(tmp_path, "shop", EMBEDDED)
    (tmp_path / "app.py").write_text(APP)
    variables = {"PYTHONPATH": str(tmp_path), "CLIFFRACER_TRANSPORT": "memory://"}
    for option in ("--reload", "--no-reload"):
        with CommandLine("dev", "app", option, directory=tmp_path, environment=variables) as process:
            process.wait_for("is ready")
            assert process.stop() == 0
        assert process.out == ["server starts", "shop at shop://ada:secret@127.0.0.1:1", "server ends"]
        assert "secret" not in "\n".join(process.err)
    variables["CLIFFRACER_SHOP__URL"] = "shop://elsewhere"
    with CommandLine("dev", "app", directory=tmp_path, environment=variables) as process:
        process.wait_for("is ready")
        assert process.stop() == 0
    assert process.out == ["shop at shop://elsewhere"]
