"""The marker `simulation`, in pytest runs of its own."""

from __future__ import annotations

import fnmatch

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings = error
addopts = --strict-markers -p no:randomly -p no:schemathesis -p no:hypothesispytest -p no:anyio
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


def test_failing_seed_is_named_and_can_be_rerun_alone(pytester: pytest.Pytester) -> None:
    """Each seed is a test of its own; the one that fails says how to run it alone, and that runs it alone."""
    result = run(pytester, FAILS_ON_3, mode="strict")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["*seed 3 failed after 3600 s of virtual time*", "*pytest 'test_it.py::test_wait?seed3?' --simulation-seed=3*"]
    )
    again = pytester.runpytest_subprocess("test_it.py::test_wait[seed3]", "--simulation-seed=3")
    again.assert_outcomes(failed=1)


def test_seeds_can_be_more_than_the_marker_says(pytester: pytest.Pytester) -> None:
    """`--simulation-seeds` runs as many seeds as wanted."""
    run(pytester, FAILS_ON_3, "--simulation-seeds=30").assert_outcomes(passed=29, failed=1)


def test_simulations_mix_with_the_rest_of_pytest(pytester: pytest.Pytester) -> None:
    """Faults and limit reach the simulation; methods, fixtures and parameters work; other tests are as ever."""
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

    @pytest.mark.simulation(seeds=1)
    async def test_limit(self, simulation):
        await asyncio.sleep(51)

async def test_real(cliffracer_service):
    assert "Virtual" not in type(asyncio.get_running_loop()).__name__
    assert time.time() > 1_750_000_000
"""
    result = run(pytester, code)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["*TimeLimit: not over after*"])


MISUSES = {
    "@pytest.mark.simulation(seeds=0)\nasync def test_it(simulation): ...": "*seeds=0*number above 0*",
    "@pytest.mark.simulation(seed=1)\nasync def test_it(simulation): ...": "*takes seeds=, *'seed'*",
    "@pytest.mark.simulation(5)\nasync def test_it(simulation): ...": "*takes seeds=, faults= and limit_s=*5*",
    "@pytest.mark.simulation\ndef test_plain(simulation): ...": "*async def test_plain(simulation)*",
    "@pytest.mark.simulation\nasync def test_without(): ...": "*async def test_without(simulation)*",
    "async def test_it(simulation): ...": "*for tests marked @pytest.mark.simulation*",
}


def test_misuse_says_what_to_write(pytester: pytest.Pytester) -> None:
    """A marker or a test of another form fails in words that say what is wrong."""
    pytester.makeini(INI.format(mode="auto"))
    pytester.makepyfile(**{f"test_{number}": HEAD + code for number, code in enumerate(MISUSES)})
    result = pytester.runpytest_subprocess("--continue-on-collection-errors")
    for message in MISUSES.values():
        assert any(fnmatch.fnmatch(line, message) for line in result.outlines), message
