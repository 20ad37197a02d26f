"""What `run` and `dev` do once their options are read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from cliffracer_core.service import CliffracerService

from .instructions import Instructions, Urls, configure_services, load_services
from .logs import set_up_logging
from .serving import run_services
from .supervisor import Supervisor, reload
from .watching import changed_files
from .worker import Worker

__all__ = ["no_urls", "run", "serve"]

_RELOADING = {"PYTHONDONTWRITEBYTECODE": "1"}
"""A bytecode file knows its source by second and size: two edits within one second could look the same."""


def no_urls(settings: Iterable[str]) -> Mapping[str, str]:
    """Return no URL, as there are no embedded servers."""
    return {}


def run(
    instructions: Instructions, *, workers: int | None = None, watch: Sequence[str] = (), urls: Urls = no_urls
) -> int:
    """Run services until SIGTERM or SIGINT; returns the exit code.

    Args:
        instructions: what to run.
        workers: how many processes; None is this one.
        watch: directories; when a file there changes, the services start anew in another process.
        urls: starts embedded servers.

    Raises:
        CliffracerError: in this process, one did not start.
    """
    instructions.show_pid = workers is not None
    instructions.shares_ports = workers is not None and workers > 1
    if watch or workers is not None:
        set_up_logging(instructions.log_level, show_pid=instructions.show_pid)
    if watch:
        return asyncio.run(_reload(instructions, [os.path.abspath(each) for each in watch], urls))
    if workers is not None:
        return asyncio.run(_supervise(instructions, workers, urls))
    return serve(instructions, urls)


def serve(
    instructions: Instructions,
    urls: Urls,
    *,
    on_loaded: Callable[[], None] = lambda: None,
    on_ready: Callable[[Sequence[CliffracerService]], None] = lambda services: None,
) -> int:
    """Run services in this process; returns the exit code, and raises, as `run`.

    Args:
        instructions: what to run.
        urls: starts embedded servers.
        on_loaded: called before they start.
        on_ready: called with them once all have started.
    """
    services = load_services(instructions)
    set_up_logging(instructions.log_level, show_pid=instructions.show_pid)  # not before the program's own set-up
    configure_services(services, instructions, urls)
    on_loaded()
    return run_services(services, uvloop=instructions.uvloop, on_ready=lambda: on_ready(services))


async def _supervise(instructions: Instructions, workers: int, urls: Urls) -> int:
    return await Supervisor(lambda: Worker.start(instructions, urls, {}), workers).run()


async def _reload(instructions: Instructions, directories: Sequence[str], urls: Urls) -> int:
    changes = changed_files(directories, relative_to=os.getcwd())
    return await reload(lambda: Worker.start(instructions, urls, _RELOADING), changes)
