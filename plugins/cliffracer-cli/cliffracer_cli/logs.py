"""Log lines that are read on a terminal."""

from __future__ import annotations

import logging
import sys

__all__ = ["LEVELS", "set_up_logging"]

LEVELS = ("debug", "info", "warning", "error")
_COLOURS = {
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[31m",
    logging.DEBUG: "\x1b[2m",
}


class _Coloured(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _COLOURS.get(record.levelno)
        return f"{colour}{text}\x1b[0m" if colour else text


def set_up_logging(level: str, *, show_pid: bool = False) -> None:
    """Send log lines to stderr, unless the program or a plugin has set up logging itself.

    Args:
        level: one of `LEVELS`.
        show_pid: name the process, where there are several.
    """
    handler = logging.StreamHandler(sys.stderr)
    pid = " [%(process)d]" if show_pid else ""
    form = _Coloured if sys.stderr.isatty() else logging.Formatter
    handler.setFormatter(form(f"%(asctime)s.%(msecs)03d %(levelname)-7s{pid} %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(handler)
        root.setLevel(level.upper())
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it would tell of each change, and of ours too
