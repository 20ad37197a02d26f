"""Running services in this process until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.process import ServiceOrchestrator, run_until_signal
from cliffracer_core.service import CliffracerService

from .failures import ExitCode
from .overrides import overruled

__all__ = ["listen_for_signals", "run_services"]

logger = logging.getLogger("cliffracer.cli")


def run_services(
    services: Sequence[CliffracerService],
    *,
    uvloop: bool | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> int:
    """Start services in order, run until SIGTERM or SIGINT, stop them in reverse; blocks.

    Args:
        services: unstarted.
        uvloop: whether to run on it; None: where it is installed.
        on_ready: called once all have started.

    Returns:
        The exit code: 0 after SIGTERM, 130 after SIGINT.

    Raises:
        CliffracerError: one did not start; those before it are stopped.
    """

    def announce() -> None:
        for service in services:
            _warn(service)
        on_ready()

    with asyncio.Runner(loop_factory=_loop_factory(uvloop)) as runner:
        number = runner.run(run_until_signal(ServiceOrchestrator(*services), announce))
    return ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.OK


def _loop_factory(wanted: bool | None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if wanted is False:
        return None
    try:
        import uvloop
    except ImportError:
        if wanted:
            raise ConfigurationError("uvloop is not installed; pip install 'cliffracer-cli[uvloop]'") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@contextlib.contextmanager
def listen_for_signals(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Call `on_signal` with the number of each SIGTERM and SIGINT, on the running loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _warn(service: CliffracerService) -> None:
    settings = service.runtime.settings
    for setting, source in overruled(service.overrides, settings).items():
        logger.warning("service %r: setting %r from the command line is overruled by %s", service.name, setting, source)
    if settings.urls("transport")["default"].startswith("memory:") and "transport" not in settings.sources:
        logger.warning(
            "service %r has no transport, so only this process can call it; give --transport or use 'cliffracer dev'",
            service.name,
        )
