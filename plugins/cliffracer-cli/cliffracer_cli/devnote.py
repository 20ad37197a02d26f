"""The note that `cliffracer dev` leaves, so that `cliffracer call` in the same directory finds its servers.

It holds generated tokens, so it stands in a directory that only this user can read, outside the project.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cliffracer_core.errors import ConfigurationError

__all__ = ["read_note", "remove_note", "write_note"]


class _Note(msgspec.Struct):
    pid: int
    urls: dict[str, str]


def _directory() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base, f"cliffracer-{os.getuid()}")


def _path() -> Path:
    return _directory() / f"dev-{hashlib.sha256(os.getcwd().encode()).hexdigest()[:16]}.json"


def _is_private(directory: Path) -> bool:
    """Tell whether it is ours alone: others may write into the directory above and put one there first."""
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def write_note(urls: Mapping[str, str]) -> None:
    """Write down the URLs by setting, for this working directory.

    Raises:
        ConfigurationError: the directory for it belongs to somebody else, or can be read by others.
    """
    directory = _directory()
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(directory):
        raise ConfigurationError(f"directory {str(directory)!r} is not this user's alone; remove it or 'chmod 700' it")
    descriptor, name = tempfile.mkstemp(dir=directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(_Note(os.getpid(), dict(urls))))
    os.replace(name, _path())


def remove_note() -> None:
    """Remove the note, where it is this process's."""
    note = _read()
    if note is not None and note.pid == os.getpid():
        _path().unlink(missing_ok=True)


def read_note() -> dict[str, str]:
    """Return the URLs by setting that a running `cliffracer dev` of this directory left; empty where there is none."""
    note = _read()
    if note is None:
        return {}
    try:
        os.kill(note.pid, 0)
    except OSError:
        return {}
    return note.urls


def _read() -> _Note | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        if _is_private(_directory()):
            return msgspec.json.decode(_path().read_bytes(), type=_Note)
    return None
