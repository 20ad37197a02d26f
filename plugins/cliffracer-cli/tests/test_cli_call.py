"""`call` and `publish` against a service that runs as a process on a real server."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cliffracer_cli.testing import CommandLine

from cliffracer_core.testing import unique

APP = """
import asyncio

from cliffracer_core import CliffracerService, MessageContext, NotFoundError, ServiceError, event, rpc


class Away(ServiceError, code="user_away", status=409): ...


class Users(CliffracerService):
    name = "{name}"

    @rpc
    async def greet(self, name: str, times: int = 1) -> str:
        return f"hello {{name}}" * times

    @rpc
    async def find(self, id: str) -> dict[str, str]:
        if id == "7":
            return {{"id": id}}
        if id == "out":
            raise Away("gone fishing")
        raise NotFoundError(f"no user {{id}};\\nmake one", details={{"id": id}})

    @rpc
    async def header(self, context: MessageContext) -> str | None:
        return context.headers.get("X-Tenant")

    @rpc
    async def sleep(self, seconds: float) -> None:
        print("sleeping", seconds, flush=True)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            print("cancelled", seconds, flush=True)
            raise

    @rpc
    async def fail(self) -> None:
        raise RuntimeError("secret")

    @event("{name}.made.*")
    async def made(self, body: dict) -> None:
        print("made", body["id"], flush=True)

    @event("{name}.kept.>", durable=True)
    async def kept(self, id: int) -> None:
        print("kept", id, flush=True)
"""


@pytest.fixture(scope="module")
def name() -> str:
    return unique()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats_url: str, name: str) -> Iterator[CommandLine]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(APP.format(name=name))
    with CommandLine("run", "app", "--transport", nats_url, directory=folder) as running:
        running.wait_for("is ready")
        yield running
        assert running.stop() == 0


@pytest.fixture
def run(service: CommandLine, nats_url: str, tmp_path: Path) -> Cli:
    return Cli(nats_url, tmp_path)


class Cli:
    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def __call__(self, *arguments: str, stdin: str = "") -> CommandLine:
        variables = {"NATS_URL": self.url}
        with CommandLine(*arguments, directory=self.folder, environment=variables, stdin=stdin) as process:
            process.wait()
        return process

    def code(self, *arguments: str, stdin: str = "") -> tuple[int, list[str], list[str]]:
        process = self(*arguments, stdin=stdin)
        return process.wait(), process.out, process.err


def test_result_is_printed_when_arguments_are_pairs(run: Cli, name: str) -> None:
    """Values are JSON where they can be read so; a text result stands as it is."""
    assert run.code("call", f"{name}.greet", "name=Ada", "times=2") == (0, ["hello Adahello Ada"], [])


def test_text_that_looks_like_a_number_stays_text_when_it_is_quoted(run: Cli, name: str) -> None:
    """A JSON string is a string; other results are JSON."""
    process = run("call", f"{name}.find", 'id="7"')
    assert process.json() == {"id": "7"}


def test_arguments_are_read_from_stdin_when_a_dash_is_given(run: Cli, name: str) -> None:
    """`-` reads JSON."""
    code, out, _ = run.code("call", f"{name}.greet", "-", "--json", stdin='{"name": "Ada"}')
    assert (code, out) == (0, ['"hello Ada"'])


def test_headers_reach_the_service_when_given(run: Cli, name: str) -> None:
    """`--header` is sent along."""
    assert run.code("call", f"{name}.header", "--header", "X-Tenant=acme")[1] == ["acme"]


def test_error_is_one_line_when_the_service_answers_with_one(run: Cli, name: str) -> None:
    """Service, code, message and correlation id stand on one line of stderr; the exit code is 1."""
    code, out, err = run.code("call", f"{name}.find", "id=nobody")
    assert (code, out) == (1, [])
    assert len(err) == 1
    assert err[0].startswith(f"error: {name} answered not_found: no user nobody; make one; correlation id ")
    code, out, err = run.code("call", f"{name}.find", "id=out")
    assert (code, err[0].startswith(f"error: {name} answered user_away: gone fishing; correlation id ")) == (1, True)


def test_error_is_json_when_asked_for(run: Cli, name: str) -> None:
    """With `--json` the error is one JSON object on stderr."""
    code, out, err = run.code("call", f"{name}.find", "id=nobody", "--json")
    error = json.loads("\n".join(err))["error"]
    assert (code, out) == (1, [])
    assert (error["type"], error["details"], error["exit_code"]) == ("not_found", {"id": "nobody"}, 1)
    assert (error["service"], error["retryable"]) == (name, False)


def test_wrong_option_is_json_when_asked_for(run: Cli) -> None:
    """So is wrong usage, wherever `--json` stands."""
    code, _, err = run.code("call", "a.b", "--frobnicate", "--json")
    assert (code, json.loads(err[0])["error"]["type"]) == (2, "usage_error")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["call", "{name}.greet", "name=[1]"], 1, "validation_error: argument 'name'"),
        (["call", "{name}.fail"], 1, "internal error"),
        (["call", "{name}.nothing"], 4, "nobody listens on 'rpc.{name}.nothing'"),
        (["call", "{name}.sleep", "seconds=20", "--timeout", "0.2"], 5, "{name}.sleep"),
        (["call", "a b"], 2, "subject 'a b'"),
        (["call", "a.*"], 2, "subject 'a.*'"),
        (["call", "a.b", "c", "d"], 2, "argument 'c' is not of the form name=value"),
        (["call", "a.b", "c=1", "c=2"], 2, "argument 'c' is given twice"),
        (["call", "a.b", "{{"], 2, "argument '{{' is neither name=value nor JSON"),
        (["call", "a.b", "--header", "x"], 2, "'x' is not of the form key=value"),
        (["publish", "a.b", "--message-id", "1"], 2, "--message-id works with --durable only"),
        (["call", "a.b", "--transport", "nats://127.0.0.1:1"], 4, "cannot reach 'nats://127.0.0.1:1'"),
        (["call", "a.b", "--transport", "gopher://x"], 3, "nothing installed serves 'gopher://x'"),
    ],
)
def test_failure_says_what_and_has_its_exit_code(
    run: Cli, name: str, arguments: list[str], code: int, text: str
) -> None:
    """Every failure is one line that begins with `error: `, without a trace and without secrets."""
    got, out, err = run.code(*(each.format(name=name) for each in arguments))
    assert (got, out, len(err)) == (code, [], 1)
    assert err[0].startswith("error: ")
    assert text.format(name=name) in err[0]
    assert not err[0].endswith(".")


def test_wrong_credentials_are_refused_without_showing_them(run: Cli, nats_url: str) -> None:
    """A wrong token is exit code 4, and stands nowhere in the message."""
    address = nats_url.rpartition("@")[2]
    code, _, err = run.code("call", "a.b", "--transport", f"nats://hunter2@{address}")
    assert code == 4
    assert "credentials" in err[0]
    assert "hunter2" not in err[0]


def test_trace_is_shown_when_asked_for(run: Cli) -> None:
    """`--traceback` shows the trace above the line."""
    code, _, err = run.code("--traceback", "call", "a.b", "--transport", "gopher://x")
    assert (code, err[0]) == (3, "Traceback (most recent call last):")
    assert err[-1].startswith("error: ")


def test_command_asks_for_a_transport_when_nobody_names_one(tmp_path: Path) -> None:
    """Without settings there is nothing to connect to; the error says how to set it."""
    with CommandLine("call", "a.b", directory=tmp_path) as process:
        assert process.wait() == 3
    assert "no transport is set; give --transport" in process.err[0]


def test_event_arrives_when_published(run: Cli, service: CommandLine, name: str) -> None:
    """`publish` prints nothing and the handlers hear it."""
    assert run.code("publish", f"{name}.made.now", "id=4711") == (0, [], [])
    service.wait_for("made 4711")


def test_event_is_stored_once_when_the_message_id_is_the_same(run: Cli, service: CommandLine, name: str) -> None:
    """`--durable --message-id` is safe to repeat."""
    for _ in range(2):
        arguments = ["publish", f"{name}.kept.x", '{"id": 1}', "--durable", "--message-id", "m1", "--json"]
        assert run(*arguments).json() == {"subject": f"{name}.kept.x", "durable": True}
    run.code("publish", f"{name}.kept.x", "id=2", "--durable")
    service.wait_for("kept 2")
    assert service.wait_for("kept ") == ["kept 1", "kept 2"]


def test_ctrl_c_ends_a_call_with_130_and_no_trace(
    service: CommandLine, nats_url: str, name: str, tmp_path: Path
) -> None:
    """SIGINT while a call waits: nothing but the exit code, and the callee is cancelled."""
    arguments = ["call", f"{name}.sleep", "seconds=21", "--transport", nats_url]
    with CommandLine(*arguments, directory=tmp_path) as process:
        service.wait_for("sleeping 21.0")
        process.signal(signal.SIGINT)
        assert process.wait() == 130
    assert [line for line in process.err if line] == []
    service.wait_for("cancelled 21.0")
