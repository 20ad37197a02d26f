"""SQL injections: our own, and those that sqlmap publishes (GPLv2, https://sqlmap.org), read where it is installed.

Its lists name parts that it fills in at run time, such as `[RANDNUM]`; they become a number here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["OWN", "PUBLISHED"]

OWN = Path(__file__).with_name("injections.txt").read_text().splitlines()
_PART = re.compile(r"\[[A-Z0-9_]+\]")


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None or element.text is None else _PART.sub("1", element.text)


def _published() -> Iterator[str]:
    lists = Path(str(distribution("sqlmap").locate_file("sqlmap"))) / "data" / "xml"
    boundaries = [
        (_text(each.find("prefix")), _text(each.find("suffix")))
        for each in ElementTree.parse(lists / "boundaries.xml").getroot()
    ]
    yield from (f"{prefix}{suffix}" for prefix, suffix in boundaries)
    around = itertools.cycle(boundaries)
    for path in sorted((lists / "payloads").glob("*.xml")):
        for each in ElementTree.parse(path).getroot().iter():
            if each.tag in ("payload", "comparison", "vector"):
                prefix, suffix = next(around)
                yield _text(each)
                yield f"{prefix} {_text(each)}{suffix}"


PUBLISHED = sorted({each for each in _published() if each.strip()})
