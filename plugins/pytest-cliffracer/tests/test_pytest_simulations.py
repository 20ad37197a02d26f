"""The marker `simulation`, in whole pytest runs of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings = error
addopts = --strict-markers -p no:randomly
"""

HEAD = """
import asyncio, time, pytest
from cliffracer_core import CliffracerService, ClientProxy, rpc
from cliffracer_core.testing import Faults
"""

FAILS_ON_3 = """
@pytest.mark.simulation(seeds=5)
async def test_wait(simulation):
    await asyncio.sleep(3600)
    assert simulation.seed != 3
"""


def run(pytester: pytest.Pytester, code: str, *arguments: str, mode: str = "auto") -> pytest.RunResult:
    pytester.makeini(INI.format(mode=mode))
    pytester.makepyfile(test_it=HEAD + code)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_failing_seed_is_named_and_can_be_rerun_alone(pytester: pytest.Pytester, mode: str) -> None:
    """Each seed is a test of its own; the one that fails says how to run it alone, and that runs it alone."""
    result = run(pytester, FAILS_ON_3, mode=mode)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["*seed 3 failed after 3600 s of virtual time*", "*pytest 'test_it.py::test_wait?seed3?' --simulation-seed=3*"]
    )
    again = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "test_it.py::test_wait[seed3]", "--simulation-seed=3"
    )
    again.assert_outcomes(failed=1)


def test_seed_can_be_one_that_the_marker_does_not_have(pytester: pytest.Pytester) -> None:
    """`--simulation-seed` runs any seed, and `--simulation-seeds` as many as wanted."""
    run(pytester, FAILS_ON_3, "--simulation-seed=1234567").assert_outcomes(passed=1)
    run(pytester, FAILS_ON_3, "--simulation-seeds=30").assert_outcomes(passed=29, failed=1)


def test_marker_hands_on_faults_and_mixes_with_the_rest_of_pytest(pytester: pytest.Pytester) -> None:
    """Faults and limit reach the simulation; methods, other fixtures and parameters work; the closest marker wins."""
    code = """
@pytest.fixture
def things():
    return []

@pytest.mark.simulation(faults=Faults(drop=0.25), limit_s=50.0)
class TestThings:
    @pytest.mark.parametrize("word", ["a", "b"])
    @pytest.mark.simulation(seeds=[7, 8])
    async def test_things(self, word, simulation, things, tmp_path):
        assert simulation.faults == Faults(drop=0.25)
        assert simulation.seed in (7, 8)
        things.append(word)
        assert len(things) == 1
        with pytest.raises(RuntimeError):
            await asyncio.open_connection("127.0.0.1", 1)

    @pytest.mark.simulation(seeds=1)
    async def test_limit(self, simulation):
        await asyncio.sleep(51)
"""
    result = run(pytester, code)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*TimeLimit: not over after*"])


def test_tests_around_a_simulation_are_as_ever(pytester: pytest.Pytester) -> None:
    """Asynchronous tests without the marker run in pytest-asyncio's loop and in real time."""
    code = """
@pytest.mark.simulation(seeds=1)
async def test_simulated(simulation):
    await asyncio.sleep(10_000)

async def test_real(cliffracer_service):
    assert "Virtual" not in type(asyncio.get_running_loop()).__name__
    assert time.time() > 1_750_000_000
"""
    run(pytester, code).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("@pytest.mark.simulation(seeds=0)\nasync def test_it(simulation): ...", "*seeds=0*number above 0*"),
        ("@pytest.mark.simulation(seed=1)\nasync def test_it(simulation): ...", "*takes seeds=, faults= and limit_s=*"),
        ("@pytest.mark.simulation\ndef test_it(simulation): ...", "*async def test_it*"),
        ("@pytest.mark.simulation\nasync def test_it(): ...", "*async def test_it(simulation)*"),
        ("async def test_it(simulation): ...", "*for tests marked @pytest.mark.simulation*"),
    ],
)
def test_misuse_says_what_to_write(pytester: pytest.Pytester, code: str, message: str) -> None:
    """A marker or a test of another form fails in words that say what is wrong."""
    result = run(pytester, code)
    assert result.ret != 0
    result.stdout.fnmatch_lines([message]) if "for tests" in message else None
    assert any(line for line in [*result.outlines, *result.errlines] if message.strip("*").split("*")[-1] in line)
