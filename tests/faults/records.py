"""`Records`: reads the ledger that workers write."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from .workers.ledger import Entry, Step

__all__ = ["Records"]

_decode = msgspec.json.Decoder(Entry).decode


class Records:
    """What all workers of a test wrote, in the order they wrote it.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[Entry] = []
        self._read = 0

    def entries(self, what: str, step: Step) -> list[Entry]:
        """Return those of one handler and one step."""
        self._catch_up()
        return [each for each in self._entries if (each.what, each.step) == (what, step)]

    def times(self, what: str, step: Step) -> Counter[str]:
        """Count them by id."""
        return Counter(each.id for each in self.entries(what, step))

    def _catch_up(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        self._entries += map(_decode, whole.splitlines())
