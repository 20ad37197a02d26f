"""`run`: services as processes, on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from cliffracer_cli.testing import CommandLine

from cliffracer_core import ClientProxy
from cliffracer_core.testing import eventually, unique

APP = """
import asyncio
import os

from cliffracer_core import CliffracerService, ServiceConfig, rpc


class One(CliffracerService):
    name = "{name}_one"

    @rpc
    async def pid(self) -> int:
        return os.getpid()

    @rpc
    async def slow(self) -> str:
        print("begun", flush=True)
        await asyncio.sleep(0.5)
        return "finished"

    @rpc
    async def loop(self) -> str:
        return type(asyncio.get_running_loop()).__module__


two = CliffracerService(ServiceConfig("{name}_two", timeout=7.0))


@two.rpc
async def timeout() -> float:
    return two.runtime.settings.kernel.timeout


@two.rpc
async def reconnect_wait_s() -> float:
    return two.info.settings["nats"].reconnect_wait_s
"""


@pytest.fixture
def name(tmp_path: Path) -> str:
    name = unique()
    (tmp_path / "app.py").write_text(APP.format(name=name))
    return name


async def test_services_run_together_when_several_targets_are_given(tmp_path: Path, nats_url: str, name: str) -> None:
    """A class and an object run in one process, with settings from the command line below those in code."""
    arguments = ["--set", "timeout=5", "--set", "nats.reconnect_wait_s=2", "--log-level", "WARNING"]
    with CommandLine("run", "app:One", "app:two", "--transport", nats_url, *arguments, directory=tmp_path) as process:
        async with ClientProxy(nats_url) as client:
            await answering(client, f"{name}_two.timeout")
            assert await client.send(f"{name}_one.pid") == process.pid
            assert await client.send(f"{name}_two.timeout") == 7.0
            assert await client.send(f"{name}_two.reconnect_wait_s") == 2.0
        process.wait_for(f"service '{name}_two': setting 'timeout' from the command line is overruled by code")
        assert process.stop() == 0


async def answering(client: ClientProxy, method: str) -> object:
    async def ask() -> object:
        try:
            return await client.send(method)
        except ConnectionError:
            return None
        except Exception as error:
            if getattr(error, "code", "") == "no_handler":
                return None
            raise

    return await eventually(ask, 30.0)


async def test_accepted_request_is_answered_when_sigterm_comes(tmp_path: Path, nats_url: str, name: str) -> None:
    """SIGTERM drains: what was accepted is answered, and the exit code is 0."""
    with CommandLine("run", "app:One", "--transport", nats_url, directory=tmp_path) as process:
        process.wait_for("is ready")
        async with ClientProxy(nats_url) as client:
            reply = asyncio.create_task(client.send(f"{name}_one.slow"))
            await asyncio.to_thread(process.wait_for, "begun")
            process.signal(signal.SIGTERM)
            assert await reply == "finished"
        assert await asyncio.to_thread(process.wait) == 0


@pytest.mark.parametrize("option", [[], ["--workers", "1"], ["--reload"]])
async def test_ctrl_c_drains_and_the_exit_code_is_130(
    tmp_path: Path, nats_url: str, name: str, option: list[str]
) -> None:
    """A terminal sends SIGINT to every process of the group; workers drain all the same, and there is no trace."""
    with CommandLine("run", "app:One", *option, "--transport", nats_url, directory=tmp_path) as process:
        await asyncio.to_thread(process.wait_for, "is ready")
        async with ClientProxy(nats_url) as client:
            reply = asyncio.create_task(client.send(f"{name}_one.slow"))
            await asyncio.to_thread(process.wait_for, "begun")
            process.ctrl_c()
            assert await reply == "finished"
        assert await asyncio.to_thread(process.wait) == 130
    assert "Traceback" not in "\n".join(process.err)


@pytest.mark.parametrize(("option", "module"), [("--uvloop", "uvloop"), ("--no-uvloop", "asyncio.unix_events")])
async def test_loop_is_the_one_asked_for(tmp_path: Path, nats_url: str, name: str, option: str, module: str) -> None:
    """`--uvloop` and `--no-uvloop` choose; without either it is uvloop where that is installed."""
    with CommandLine("run", "app:One", option, "--transport", nats_url, directory=tmp_path) as process:
        await asyncio.to_thread(process.wait_for, "is ready")
        async with ClientProxy(nats_url) as client:
            assert await client.send(f"{name}_one.loop") == module
        assert await asyncio.to_thread(process.stop) == 0


def test_own_logging_of_the_program_stays(tmp_path: Path, nats_url: str, name: str) -> None:
    """What a program sets up when it is imported is not overruled."""
    (tmp_path / "own.py").write_text(
        "import logging\nlogging.basicConfig(format='own %(message)s', level=20)\nfrom app import two\n"
    )
    with CommandLine("run", "own:two", "--transport", nats_url, directory=tmp_path) as process:
        assert process.wait_for("is ready")[0].startswith("own service ")
        assert process.stop() == 0


def test_warning_is_logged_when_a_service_has_no_transport(tmp_path: Path, name: str) -> None:
    """A service in memory is for its own process only, which is hardly what was meant."""
    with CommandLine("run", "app:One", directory=tmp_path) as process:
        process.wait_for("has no transport, so only this process can call it")
        process.wait_for("is ready")
        assert process.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nowhere:One"], 2, "module 'nowhere' is neither in"),
        (["app:Nothing"], 2, "module 'app' has no 'Nothing'; services in it: One, two"),
        (["app.py:One"], 2, "names a file; write the module, such as 'app:Service'"),
        (["app:asyncio"], 2, "is a module, not a service class or object"),
        (["app:"], 2, "is not of the form 'module:Service'"),
        (["broken"], 1, "module 'broken' cannot be imported: ZeroDivisionError: division by zero (broken.py, line 2)"),
        (["syntax"], 1, "module 'syntax' cannot be imported: SyntaxError"),
        (["needs"], 1, "module 'needs' cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        (["failing"], 1, "service class 'failing' cannot be made: ValueError: no (failing.py, line 7)"),
        (["wrong"], 3, "module 'wrong' cannot be imported: "),
        (["app:One", "--set", "tiemout=3"], 3, "setting 'tiemout' from the command line is not known; did you mean"),
        (["app:One", "--set", "nats.urll=3"], 3, "did you mean 'nats.url'?"),
        (["app:One", "--set", "timeout=soon"], 3, "setting 'timeout' from the command line: expected `float`"),
        (["app:One", "--set", "timeout=-1"], 3, "setting 'timeout'"),
        (["app:One", "--transport", "gopher://x"], 3, "nothing installed serves 'gopher://x'"),
        (["app:One", "--transport", "nats://127.0.0.1:1"], 4, "cannot reach 'nats://127.0.0.1:1'"),
        (["app:One", "--transport", "nats://127.0.0.1:1", "--workers", "1"], 4, "cannot reach 'nats://127.0.0.1:1'"),
        (["app:One", "--workers", "2", "--reload"], 2, "--workers and --reload exclude each other"),
        (["app:One", "--workers", "0"], 2, "'--workers'"),
        (["app:One", "--set", "timeout"], 2, "'timeout' is not of the form key=value"),
    ],
)
def test_start_says_what_is_wrong_when_it_fails(
    tmp_path: Path, name: str, arguments: list[str], code: int, text: str
) -> None:
    """One line on stderr with the remedy, and the exit code by kind."""
    (tmp_path / "broken.py").write_text("x = 1\nx / 0\n")
    (tmp_path / "syntax.py").write_text("def\n")
    (tmp_path / "needs.py").write_text("import not_there\n")
    (tmp_path / "failing.py").write_text(
        "from cliffracer_core import CliffracerService\n\n\nclass Failing(CliffracerService):\n"
        "    def __init__(self):\n        super().__init__()\n        raise ValueError('no')\n"
    )
    (tmp_path / "wrong.py").write_text("from cliffracer_core import ServiceConfig\nServiceConfig('x', timeout='y')\n")
    with CommandLine("run", *arguments, directory=tmp_path) as process:
        assert process.wait() == code, process.err
    errors = [line for line in process.err if line.startswith("error: ")]
    assert len(errors) == 1
    assert text in errors[0]
    assert "Traceback" not in "\n".join(process.err)


def test_start_is_refused_when_the_token_is_wrong(tmp_path: Path, nats_url: str, name: str) -> None:
    """Wrong credentials are exit code 4 and are not shown."""
    url = f"nats://hunter2@{nats_url.rpartition('@')[2]}"
    with CommandLine("run", "app:One", "--transport", url, directory=tmp_path) as process:
        assert process.wait() == 4
    assert "credentials" in process.err[-1]
    assert "hunter2" not in "\n".join(process.err)


async def test_worker_is_replaced_when_it_is_killed(tmp_path: Path, nats_url: str, name: str) -> None:
    """Workers share the requests; one that is killed is replaced, and all end with their parent's SIGTERM."""
    arguments = ["run", "app:One", "--workers", "2", "--transport", nats_url]
    with CommandLine(*arguments, directory=tmp_path) as process:
        await asyncio.to_thread(process.wait_for, "is ready", times=2)
        async with ClientProxy(nats_url) as client:
            pids = await pids_of(client, name, 2)
            assert process.pid not in pids
            victim = min(pids)
            os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(process.wait_for, f"worker {victim} ended with exit code 137; another starts")
            await asyncio.to_thread(process.wait_for, "is ready", times=3)
            after = await pids_of(client, name, 2)
            assert victim not in after
            assert len(pids & after) == 1
        assert await asyncio.to_thread(process.stop) == 0
    assert not any(is_alive(pid) for pid in pids | after)


async def pids_of(client: ClientProxy, name: str, count: int) -> set[int]:
    """Ask until so many workers have answered."""
    pids: set[int] = set()

    async def ask() -> bool:
        pids.add(await client.send(f"{name}_one.pid"))
        return len(pids) >= count

    await eventually(ask)
    return pids


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_worker_is_tried_again_when_it_cannot_start_for_a_while(tmp_path: Path, nats_url: str, name: str) -> None:
    """Once it has been ready, a worker that does not start again is a matter of time: pauses grow, nothing ends."""
    app = tmp_path / "app.py"
    good = app.read_text()
    arguments = ["run", "app:One", "--workers", "1", "--transport", nats_url]
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    with CommandLine(*arguments, directory=tmp_path, environment=environment) as process:
        await asyncio.to_thread(process.wait_for, "is ready")
        app.write_text("1 / 0\n")
        async with ClientProxy(nats_url) as client:
            os.kill(await client.send(f"{name}_one.pid"), signal.SIGTERM)
        await asyncio.to_thread(process.wait_for, "ended with exit code 1; another starts in 0.4 s")
        app.write_text(good)
        await asyncio.to_thread(process.wait_for, "is ready", times=2)
        assert await asyncio.to_thread(process.stop) == 0


async def test_workers_end_when_their_parent_is_killed(tmp_path: Path, nats_url: str, name: str) -> None:
    """`kill -9` of the parent leaves nothing behind."""
    arguments = ["run", "app:One", "--workers", "2", "--transport", nats_url]
    with CommandLine(*arguments, directory=tmp_path) as process:
        await asyncio.to_thread(process.wait_for, "is ready", times=2)
        async with ClientProxy(nats_url) as client:
            pids = await pids_of(client, name, 2)
        process.signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        await eventually(lambda: not any(is_alive(pid) for pid in pids))


def test_command_line_of_a_worker_holds_no_secret(tmp_path: Path, nats_url: str, name: str) -> None:
    """The URL with its token reaches workers by a pipe, not where `ps` shows it."""
    arguments = ["run", "app:One", "--workers", "1"]
    with CommandLine(*arguments, directory=tmp_path, environment={"NATS_URL": nats_url}) as process:
        line = process.wait_for("is ready")[0]
        pid = line.partition("[")[2].partition("]")[0]
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert words[1:-1] == [b"-m", b"cliffracer_cli", b"_worker", b"app:One"]
        assert process.stop() == 0


async def test_service_starts_anew_when_a_file_changes(tmp_path: Path, nats_url: str, name: str) -> None:
    """`--reload` serves the new code, waits for the next change where it is broken, and ends with SIGTERM."""
    app = tmp_path / "app.py"
    good = app.read_text()
    with CommandLine("run", "app:One", "--reload", "--transport", nats_url, directory=tmp_path) as process:
        await asyncio.to_thread(process.wait_for, "is ready")
        app.write_text(good.replace('"finished"', '"modified"'))
        await asyncio.to_thread(process.wait_for, "changed: app.py; starting again")
        await asyncio.to_thread(process.wait_for, "is ready", times=2)
        async with ClientProxy(nats_url) as client:
            assert await client.send(f"{name}_one.slow") == "modified"  # as long as before, perhaps within a second
            app.write_text("def\n")
            await asyncio.to_thread(process.wait_for, "ended with exit code 1; waiting for a change")
            app.write_text(good)
            await asyncio.to_thread(process.wait_for, "is ready", times=3)
            assert await client.send(f"{name}_one.slow") == "finished"
        assert await asyncio.to_thread(process.stop) == 0


async def test_call_finds_the_server_when_dev_runs_in_the_same_directory(tmp_path: Path, name: str) -> None:
    """`dev` needs no URL; `call` in its directory finds the embedded server, and nothing of it is left at the end."""
    with CommandLine("dev", "app:One", directory=tmp_path) as process:
        await asyncio.to_thread(process.wait_for, "is ready")
        shown = process.wait_for("embedded nats for setting 'transport' runs at nats://***@127.0.0.1:")
        with CommandLine("call", f"{name}_one.pid", directory=tmp_path) as call:
            pid = call.json()
        assert is_alive(pid)
        with CommandLine("services", "--json", directory=tmp_path) as services:
            assert [row["name"] for row in services.json()] == [f"{name}_one"]
        assert await asyncio.to_thread(process.stop) == 0
    assert len(shown) == 1
    assert not is_alive(pid)
    assert [*os.scandir(tmp_path / f"cliffracer-{os.getuid()}")] == []
    with CommandLine("call", f"{name}_one.pid", directory=tmp_path) as call:
        assert call.wait() == 3


def test_dev_uses_the_server_that_is_configured(tmp_path: Path, nats_url: str, name: str) -> None:
    """Where a setting names a URL, no server is started; without reloading all is one process."""
    (tmp_path / "cliffracer.toml").write_text(f"transport = {json.dumps(nats_url)}\n")
    with CommandLine("dev", "app:One", "--no-reload", directory=tmp_path) as process:
        process.wait_for("is ready")
        with CommandLine("call", f"{name}_one.pid", directory=tmp_path) as call:
            assert call.json() == process.pid
        assert process.stop() == 0
    assert "embedded nats" not in "\n".join(process.err)
