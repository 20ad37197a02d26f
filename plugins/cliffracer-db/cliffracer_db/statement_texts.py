"""The statements in the text of an SQL file."""

from __future__ import annotations

import re

__all__ = ["ends_transaction", "statements_in"]

# what a semicolon may stand in without ending a statement (PostgreSQL's manual, section 4.1)
_PIECE = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<quoted>\$(?P<tag>[A-Za-z_]\w*)?\$.*?\$(?(tag)(?P=tag))\$
        | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*")
    | (?P<end>;)
    | (?P<plain>[\w$]+|[^\w$;'"/-]+|.)""",
    re.S | re.X,
)
_CONTROL = re.compile(
    r"(?:begin|start\s+transaction|commit|rollback|abort)(?:\s+(?:work|transaction|and\s+(?:no\s+)?chain))*\Z", re.I
)
_CONTROL_WORD = re.compile(r"\b(?:begin|start|commit|rollback|abort)\b", re.I)


def statements_in(text: str) -> list[str]:
    """Return the statements, without the semicolons between them and without comments.

    A function whose body is not quoted (`begin atomic`) is taken apart; write its body between `$$`.
    """
    found: list[str] = []
    now: list[str] = []
    for piece in _PIECE.finditer(text):
        if piece["end"]:
            found.append("".join(now))
            now = []
        else:
            now.append(" " if piece["comment"] else piece[0])
    return [each.strip() for each in (*found, "".join(now)) if each.strip()]


def ends_transaction(text: str) -> bool:
    """Tell whether a statement of a text begins or ends a transaction."""
    return _CONTROL_WORD.search(text) is not None and any(_CONTROL.match(each) for each in statements_in(text))
