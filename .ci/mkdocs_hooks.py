"""What mkdocs puts into the site that is written elsewhere: benchmark results, and the names of the kernel."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results.md"
SAMPLES = "Every sample"


def results(text: str) -> str:
    """Return benchmarks/results.md as part of a page: without its title, with the samples folded up.

    Raises:
        ValueError: it has no table.
    """
    lines, folded = [], False
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        if line.startswith(SAMPLES):
            lines.append(f'??? note "{line.rstrip(":")}"')
            folded = True
            continue
        folded = folded and not line.startswith("#")
        lines.append(f"    {line}" if folded and line else line)
    if not any(line.lstrip().startswith("|") for line in lines):
        raise ValueError("benchmarks/results.md has no table; run python -m benchmarks")
    return "\n".join(lines).replace("README.md says", "`benchmarks/README.md` says")


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
        markdown = markdown.replace("<!-- benchmark results -->", results(RESULTS.read_text(encoding="utf-8")))
    if "<!-- names of the kernel -->" in markdown:
        markdown = markdown.replace("<!-- names of the kernel -->", names())
    return markdown
