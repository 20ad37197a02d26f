"""Tests marked `simulation`: one item for each seed, run under virtual time."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cliffracer_core.testing import Simulation

__all__ = ["ARGUMENT", "MARKER", "SimulatedTest", "seeds_of", "simulated"]

MARKER = "simulation"
ARGUMENT = "simulation"
SEEDS = 20
"""How many seeds a test has that says nothing of it."""


def seeds_of(definition: pytest.Function | pytest.Item, config: pytest.Config) -> Sequence[int]:
    """Return the seeds that a marked test is to run with.

    Raises:
        CollectError: the marker has arguments of another form.
    """
    one = config.getoption("simulation_seed")
    if one is not None:
        return [int(one)]
    seeds = config.getoption("simulation_seeds")
    if seeds is None:
        seeds = _options(definition).get("seeds", SEEDS)
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return range(seeds)
    if isinstance(seeds, Iterable) and not isinstance(seeds, str | bytes):
        given = list(seeds)
        if given and all(isinstance(each, int) for each in given):
            return given
    raise pytest.Collector.CollectError(
        f"{definition.nodeid}: simulation(seeds={seeds!r}) is neither a number above 0 nor a list of integers"
    )


def simulated(nodes: Iterable[Any]) -> list[Any]:
    """Replace the marked functions among what was collected by `SimulatedTest`s."""
    return [SimulatedTest.of(node) if _is_marked(node) else node for node in nodes]


def _is_marked(node: object) -> bool:
    return isinstance(node, pytest.Function) and node.get_closest_marker(MARKER) is not None


class SimulatedTest(pytest.Function):
    """A coroutine function, run by `cliffracer_core.testing.simulate` with the seed in its id."""

    @classmethod
    def of(cls, function: pytest.Function) -> SimulatedTest:
        """Make one of a collected function.

        Raises:
            CollectError: it is no coroutine function, or does not take the simulation.
        """
        if not inspect.iscoroutinefunction(function.obj) or ARGUMENT not in function.fixturenames:
            raise pytest.Collector.CollectError(
                f"{function.nodeid}: write a simulation as 'async def {function.originalname}(simulation)'"
            )
        made: SimulatedTest = cls.from_parent(
            function.parent,
            name=function.name,
            callspec=getattr(function, "callspec", None),
            fixtureinfo=function._fixtureinfo,
            keywords=function.keywords,
            originalname=function.originalname,
        )
        made.own_markers = function.own_markers
        return made

    def _getobj(self) -> Callable[..., None]:
        """Return the function made synchronous, so that no plugin for coroutines takes it for its own."""
        function: Callable[..., Any] = super()._getobj()  # type: ignore[no-untyped-call]  # pytest's is not annotated

        @functools.wraps(function)
        def run(**fixtures: Any) -> None:
            __tracebackhide__ = True
            seed: int = fixtures.pop(ARGUMENT)
            try:
                _simulate(lambda simulation: function(**fixtures, **{ARGUMENT: simulation}), seed, _options(self))
            except BaseException as error:
                error.add_note(f"  this seed alone: pytest '{self.nodeid}' --simulation-seed={seed}")
                raise

        del run.__wrapped__  # it would show pytest-asyncio the coroutine function again
        return run


def _simulate(test: Callable[[Simulation], Any], seed: int, options: Mapping[str, Any]) -> None:
    from cliffracer_core.testing import simulate

    __tracebackhide__ = True
    simulate(test, seed=seed, **{name: value for name, value in options.items() if name != "seeds"})


def _options(node: pytest.Item) -> dict[str, Any]:
    """Merge the arguments of a test's markers, the closest last. Raises CollectError for what is not known."""
    options: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers(MARKER))):
        unknown = sorted(set(marker.kwargs) - {"seeds", "faults", "limit_s"})
        if unknown or marker.args:
            raise pytest.Collector.CollectError(
                f"{node.nodeid}: marker 'simulation' takes seeds=, faults= and limit_s=, not {unknown or marker.args!r}"
            )
        options |= marker.kwargs
    return options
