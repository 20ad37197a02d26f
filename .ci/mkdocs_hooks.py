"""What mkdocs puts into the site that is written elsewhere: benchmark results, and the names of the kernel."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks"
SAMPLES = "Every sample"


def results(text: str) -> str:
    """Return a file of results as part of a page: its headings one level deeper, the samples folded up.

    Raises:
        ValueError: it has no title or no table.
    """
    title = re.match(r"# Results: (.+)\n", text)
    if title is None or not re.search(r"^\|", text, re.M):
        raise ValueError("results of benchmarks without a title or a table; run python -m benchmarks")
    lines, folded = [f"## {title[1]}"], False
    for line in text.splitlines()[1:]:
        if line.startswith(SAMPLES):
            lines.append(f'??? note "{line.rstrip(":")}"')
            folded = True
            continue
        folded = folded and not line.startswith("#")
        deeper = f"#{line}" if line.startswith("#") else line
        lines.append(f"    {line}" if folded and line else deeper)
    return "\n".join(lines).replace("README.md says", "`benchmarks/README.md` says")


def all_results() -> str:
    """Return what each benchmark command has written, one after the other: `results.md`, `results-*.md`."""
    return "\n".join(
        results(each.read_text(encoding="utf-8")) for each in sorted(RESULTS.glob("results*.md"), key=_rank)
    )


def _rank(path: Path) -> tuple[bool, str]:
    return (path.name != "results.md", path.name)


def names() -> str:
    """Return a table of the names in `cliffracer_core.__all__`; strict builds fail where one is in no page."""
    import cliffracer_core

    rows = ["| name | |", "|---|---|"]
    for name in sorted(cliffracer_core.__all__, key=str.lower):
        value = getattr(cliffracer_core, name)
        plain = inspect.isfunction(value) or inspect.isclass(value)
        text = (inspect.getdoc(value) or "").partition("\n")[0] if plain else "see [Hooks](../hooks.md)"
        rows.append(f"| [`{name}`][{where(name)}] | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def where(name: str) -> str:
    """Return the full name under which the reference has a name of `cliffracer_core`.

    Raises:
        LookupError: no module of the kernel lists it.
    """
    import importlib
    import pkgutil

    import cliffracer_core

    value = getattr(cliffracer_core, name)
    for module in pkgutil.iter_modules(cliffracer_core.__path__, "cliffracer_core."):
        if module.name == "cliffracer_core.testing":  # needs pytest
            continue
        found = importlib.import_module(module.name)
        if name in getattr(found, "__all__", ()) and getattr(found, name) is value:
            return f"{module.name}.{name}"
    raise LookupError(f"no module of cliffracer_core lists {name!r} in its __all__")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in the two marks; called by mkdocs for each page."""
    if "<!-- benchmark results -->" in markdown:
        markdown = markdown.replace("<!-- benchmark results -->", all_results())
    if "<!-- names of the kernel -->" in markdown:
        markdown = markdown.replace("<!-- names of the kernel -->", names())
    return markdown
