"""What went wrong, as one line, as JSON, and as an exit code."""

from __future__ import annotations

import enum

import click
import msgspec

from cliffracer_core.errors import CliffracerError, ConfigurationError, ConnectionError, DeadlineExceeded, NoHandler

__all__ = ["ExitCode", "exit_code", "failure_json", "failure_line", "one_line"]


class ExitCode(enum.IntEnum):
    """What the process returns."""

    OK = 0
    FAILED = 1
    """The service answered with an error, or the command failed."""
    USAGE = 2
    CONFIGURATION = 3
    """A setting, a declaration or a plugin is wrong."""
    UNREACHABLE = 4
    """Nobody there: no broker, wrong credentials, or no handler."""
    DEADLINE = 5
    INTERRUPTED = 130


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error."""
    match error:
        case click.Abort() | KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case click.ClickException():
            return error.exit_code
        case DeadlineExceeded():
            return ExitCode.DEADLINE
        case ConnectionError() | NoHandler():
            return ExitCode.UNREACHABLE
        case ConfigurationError():
            return ExitCode.CONFIGURATION
    return ExitCode.FAILED


def one_line(text: str) -> str:
    """Put text from elsewhere on one line, without what a terminal would take for a command."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def failure_line(error: BaseException) -> str:
    """Say what went wrong in one line, without `error: `."""
    if isinstance(error, click.ClickException):
        return _click_line(error)
    if not isinstance(error, CliffracerError):
        return one_line(f"{type(error).__name__}: {error}")
    text = str(error)
    if error.service is not None:
        text = f"{error.service} answered {error.code}: {text}"
    if error.correlation_id is not None and error.correlation_id not in text:
        text = f"{text}; correlation id {error.correlation_id}"
    return one_line(text)


def _click_line(error: click.ClickException) -> str:
    """Write click's sentences ("No such option: -x.") as ours are written, with a remedy where there is none."""
    text = one_line(error.format_message()).removesuffix(".")
    text = text[:1].lower() + text[1:]
    if isinstance(error, click.UsageError) and error.ctx is not None and "; " not in text:
        text = f"{text}; see '{error.ctx.command_path} --help'"
    return text


def failure_json(error: BaseException) -> str:
    """Return `{"error": {...}}` on one line: type, message, exit_code, retryable, details, service, correlation_id."""
    body: dict[str, object] = {"type": type(error).__name__, "message": one_line(str(error))}
    if isinstance(error, click.ClickException):
        body = {"type": "usage_error", "message": _click_line(error)}
    elif isinstance(error, CliffracerError):
        body = {"type": error.code, "message": str(error), "retryable": error.retryable, "details": error.details}
        body |= {"service": error.service, "correlation_id": error.correlation_id}
    body["exit_code"] = int(exit_code(error))
    return msgspec.json.encode({"error": body}, enc_hook=str).decode()
