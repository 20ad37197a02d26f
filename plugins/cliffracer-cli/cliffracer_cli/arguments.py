"""`name=value ...`, one JSON text, or `-`: what a call or an event carries."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import click
import msgspec

__all__ = ["HELP", "read_payload"]

HELP = """\b
Arguments, one of:
  name=value ...   a value is JSON where it can be read so (age=36, tags='["a"]', zip='"0123"'), else text
  JSON             one text, such as '{"name": "Ada"}'
  -                JSON from stdin
"""
_PAIR = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def read_payload(arguments: Sequence[str]) -> object:
    """Turn arguments into a payload; None where there are none.

    Raises:
        click.UsageError: they are neither pairs nor one JSON text.
    """
    if not arguments:
        return None
    if len(arguments) == 1 and not _PAIR.fullmatch(arguments[0]):
        return _read_json(arguments[0])
    payload: dict[str, object] = {}
    for argument in arguments:
        pair = _PAIR.fullmatch(argument)
        if pair is None:
            raise click.UsageError(f"argument {argument!r} is not of the form name=value")
        name, text = pair.groups()
        if name in payload:
            raise click.UsageError(f"argument {name!r} is given twice; give it once")
        payload[name] = _value(text)
    return payload


def _read_json(argument: str) -> object:
    text = sys.stdin.buffer.read() if argument == "-" else argument.encode()
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        what = "stdin is" if argument == "-" else f"argument {argument!r} is neither name=value nor"
        raise click.UsageError(f"{what} no JSON: {error}".replace("nor no JSON", "nor JSON")) from None


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text
