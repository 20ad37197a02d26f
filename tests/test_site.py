"""The site: its reference misses no public name, its navigation no page, its performance page no row."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import cliffracer_core

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGES = ["cliffracer_core", *sorted(path.parent.name for path in ROOT.glob("plugins/*/*_*/__init__.py"))]
IN_HOOKS = {"hookimpl", "hookspec"}  # pluggy's markers, which say nothing of themselves


def _load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / ".ci" / "mkdocs_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = _load_hooks()
SETTINGS = (ROOT / ".ci" / "mkdocs.yml").read_text(encoding="utf-8")


def documented() -> dict[str, set[str]]:
    """Return what each module named in the reference shows: its `__all__`."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    modules = re.findall(r"^::: ([\w.]+)$", text, re.M)
    assert len(modules) == len(set(modules)), "a module stands on two pages"
    return {name: set(getattr(importlib.import_module(name), "__all__", ())) for name in modules}


def test_the_reference_has_every_name_of_the_kernel() -> None:
    """Each name of `cliffracer_core.__all__` is defined in a module that a page shows."""
    known = documented()
    for name in cliffracer_core.__all__:
        module, _, last = str(hooks.where(name)).rpartition(".")
        assert last in known.get(module, ()), f"{name}: add '::: {module}' to a page of docs/reference"


@pytest.mark.parametrize("package", PACKAGES[1:])
def test_the_reference_has_every_plugin(package: str) -> None:
    """The names that a plugin exports are on a page, and mkdocs knows where its code is."""
    assert package in documented(), f"add a page with '::: {package}' to docs/reference and to .ci/mkdocs.yml"
    folder = next(ROOT.glob(f"plugins/*/{package}")).parent
    assert f"../{folder.relative_to(ROOT)}" in re.split(r"[\[\], ]+", SETTINGS)


def test_the_reference_has_every_module_that_the_pages_import() -> None:
    """What a page tells its reader to import can be looked up."""
    known = documented()
    text = "\n".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
    used = set(re.findall(rf"^(?:from|import) ((?:{'|'.join(PACKAGES)})[\w.]*)", text, re.M)) - {"cliffracer_core"}
    assert used
    assert used <= known.keys()


def test_every_documented_name_says_what_it_is() -> None:
    """No function and no class of ours in the reference is without a docstring; what a library made says its own."""
    silent = []
    for module, names in documented().items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            ours = str(getattr(value, "__module__", "")).partition(".")[0] in PACKAGES
            if ours and (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value):
                silent.append(f"{module}.{name}")
    assert silent == []


def test_the_table_of_names_has_a_line_for_each() -> None:
    """The index of the reference links each name of the kernel and says what it is for."""
    assert "<!-- names of the kernel -->" in (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\[[\w.]+\] \| (.+) \|$", hooks.names(), re.M))
    assert rows.keys() == set(cliffracer_core.__all__)
    assert {name for name, text in rows.items() if text.startswith("see ")} == IN_HOOKS


RESULTS = sorted((ROOT / "benchmarks").glob("results*.md"), key=lambda path: path.stem)


def test_the_performance_page_has_every_row_of_the_results() -> None:
    """What the benchmarks measured is what the page shows, row by row and sample by sample, misses included."""
    measured = [each.read_text(encoding="utf-8") for each in RESULTS]
    assert "<!-- benchmark results -->" in (DOCS / "performance.md").read_text(encoding="utf-8")
    page = hooks.on_page_markdown("before\n<!-- benchmark results -->\nafter", None, None, None)
    shown = [line.strip() for line in page.splitlines() if line.strip().startswith("|")]
    rows = [[line for line in each.splitlines() if line.startswith("|")] for each in measured]
    assert all(len(each) > 10 for each in rows)
    assert shown == [line for each in rows for line in each]
    headings = [heading for each in measured for heading in re.findall(r"^#+ .+$", each, re.M)]
    titles = [f"#{heading}".replace("## Results: ", "## ") for heading in headings]
    assert re.findall(r"^#+ .+$", page, re.M) == titles


@pytest.mark.parametrize("text", ["# Results: NATS\n\nNothing yet.\n", "| a table | of what |\n"])
def test_results_without_a_title_or_a_table_stop_the_build(text: str) -> None:
    """An empty or broken results file is an error, not an empty page."""
    with pytest.raises(ValueError, match="without a title or a table"):
        hooks.results(text)


def test_the_navigation_has_every_page_and_no_other() -> None:
    """A page that nobody can find is not written; decisions are reached from their index."""
    listed = re.findall(r"^ +- (?:[^:\n]+: )?([\w/.-]+\.md)$", SETTINGS.partition("\nnav:\n")[2], re.M)
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "examples" not in page.parts}
    assert sorted(listed) == sorted(each for each in there if not re.match(r"adr/\d", each))


def names_there_and_here() -> list[tuple[str, list[str], str]]:
    """Return each row of docs/reference-names.md: the old name, our names, since when."""
    text = (DOCS / "reference-names.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!there |---)(.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    return [(there, re.findall(r"`(cliffracer_[\w.]+)`", here), since) for there, here, since in rows]


@pytest.mark.parametrize(("there", "here", "since"), names_there_and_here(), ids=lambda each: str(each)[:40])
def test_the_map_of_names_is_true(there: str, here: list[str], since: str) -> None:
    """What is said to be there can be imported; what is planned ships in no package yet, or the row is out of date."""
    if since == "planned":
        shipped = [name for name in here if name.partition(".")[0] in PACKAGES[1:]]
        assert here
        assert not shipped, f"{shipped[0]} ships: give {there} the version since when, in docs/reference-names.md"
        return
    assert re.fullmatch(r"\d+\.\d+|-", since)
    assert here or since == "-"
    for name in here:
        find(name)


def find(name: str) -> object:
    """Return what a dotted name names, a field of a Struct included."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(name)
