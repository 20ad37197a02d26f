"""What the documentation says is so: its code runs, its tables and headings match the code, its links lead somewhere.

How a page's code blocks are read (the pages of docs, the README and the plugins' READMEs):

- ```python runs on its own, as a script would that is imported: `__name__` is not `__main__`.
- `<!-- continued -->` on the line above a block: it runs on in the namespace of the block before it.
- title="name.py" after the language: a file of that name in a folder of the page, which later blocks import from; a
  pyproject.toml there is taken for installed, and a `test_*.py` is run by pytest, or only collected where
  `<!-- collect -->` stands above the block.
- `<!-- output -->` above a ```text block: what the python block before it has printed, to the letter.
- `<!-- session -->` above a ```console block: its commands are run, in one terminal for the page, and print what is
  shown; `<!-- eventually -->`: they are run until they do; `<!-- background -->`: the command goes on while the page
  does, or until the next one of these. After `cd`, titled files and their tests belong to that folder and its commands.
- ```diff title="name.py" changes that file.
- ```toml and ```json parse. Of ```console, each line `$ cliffracer ...` is a command that exists, with its options.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import logging
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest
from cliffracer_cli.group import make_cli
from cliffracer_cli.state import State

from cliffracer_core import errors, hookspecs
from cliffracer_core.assembly import load_plugins
from cliffracer_core.config import KernelSettings

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.console import PYTEST_OPTIONS, Session  # noqa: E402

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if "adr" not in path.parts),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
MODULE = "a_page_of_the_docs"
TERMINAL = ("session", "eventually", "background")
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)?(?: +title=\"(?P<title>[^\"]+)\")? *\n(?P<body>.*?)^(?P=indent)```$",
    re.M | re.S,
)


class Block(NamedTuple):
    """One fenced block of a page."""

    line: int
    language: str
    title: str
    mark: str
    """What the comment on the line above says: `continued`, `output`, `collect`, `session` and so on, or nothing."""
    body: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        above = text[: match.start()].rstrip("\n").rpartition("\n")[2].strip()
        mark = re.fullmatch(r"<!-- (continued|output|collect|session|eventually|background) -->", above)
        body = re.sub(f"^{match['indent']}", "", match["body"], flags=re.M)
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(line, match["language"] or "", match["title"] or "", mark[1] if mark else "", body))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_blocks(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(block.language in languages for block in blocks(page))]


def runnable(page: Path) -> bool:
    return any(block.language == "python" or block.mark in TERMINAL for block in blocks(page))


@contextlib.contextmanager
def importable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let blocks import the page's files, and forget those modules afterwards."""
    known = {*sys.modules}
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        yield
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        if name == MODULE or (file and Path(file).is_relative_to(folder)):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _keep_log_level() -> Iterator[None]:
    level = logging.getLogger("cliffracer").level
    yield
    logging.getLogger("cliffracer").setLevel(level)


def write(folder: Path, block: Block) -> Path:
    path = folder / block.title
    assert path.resolve().is_relative_to(folder.resolve())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.body, encoding="utf-8")
    if block.title == "pyproject.toml":
        install(folder, tomllib.loads(block.body)["project"])
    importlib.invalidate_caches()
    return path


def install(folder: Path, project: dict[str, Any]) -> None:
    """Give a page's distribution the metadata by which its entry points are found."""
    information = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in project.get("entry-points", {}).items()
    ]
    (information / "entry_points.txt").write_text("".join(points))


def execute(block: Block, page: Path, module: types.ModuleType) -> str:
    """Run a block; a failure's traceback shows the page and its line. Return what it printed."""
    code = compile("\n" * (block.line - 1) + block.body, str(page), "exec")
    sys.modules[MODULE] = module
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, module.__dict__)
    return printed.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs, and prints what the page says it prints."""
    module = types.ModuleType(MODULE)
    printed = ""
    with importable(tmp_path, monkeypatch), Session(tmp_path) as session:
        for block in blocks(page):
            where = f"{name_of(page)}:{block.line}"
            if block.mark == "output":
                assert printed.rstrip() == block.body.rstrip(), where
            if block.mark in TERMINAL:
                run_in_terminal(session, block, where)
            elif block.language == "diff":
                change(session.folder / block.title, block, where)
            elif block.title:
                path = write(session.folder, block)
                if path.name.startswith("test_") and session.folder == tmp_path:
                    run_pytest(path, where, *["--collect-only"][: block.mark == "collect"])
            elif block.language == "python":
                if block.mark != "continued":
                    module = types.ModuleType(MODULE)
                printed = execute(block, page, module)
        session.stop(name_of(page))


def change(path: Path, block: Block, where: str) -> None:
    """Change a file as a diff shows it: its lines, with what is around them, stand in it once."""
    lines = block.body.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] != "+")
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{where}: {path.name} does not have these lines once"
    path.write_text(text.replace(old, "".join(line[1:] for line in lines if line[0] != "-")), encoding="utf-8")


def run_in_terminal(session: Session, block: Block, where: str) -> None:
    run = {"session": session.run, "eventually": session.run_until, "background": session.run_in_background}
    run[block.mark](block.body, where)


def run_pytest(path: Path, where: str, *options: str) -> None:
    """Run a page's test file in a process of its own, without the settings of this repository."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
        "-W",
        "error",
        *PYTEST_OPTIONS,
    ]
    command += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function", *options, path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", with_blocks("toml", "json"), ids=name_of)
def test_toml_and_json_blocks_parse(page: Path) -> None:
    """What the pages show to copy can be parsed."""
    for block in blocks(page):
        if block.language == "toml":
            tomllib.loads(block.body)
        elif block.language == "json":
            json.loads(block.body)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    """A link inside the repository leads to a file, and to a heading where it names one."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target!r}"
        if anchor:
            assert anchor in anchors(file), f"{name_of(page)} links to {target!r}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_hook_has_its_heading() -> None:
    """docs/hooks.md has one heading for each hook, in the order of hookspecs.py's areas, and marks provisional ones."""
    text = (DOCS / "hooks.md").read_text(encoding="utf-8")
    parts = re.split(r"^### `(\w+)`\n", text, flags=re.M)[1:]
    documented = dict(zip(parts[::2], parts[1::2], strict=True))
    hooks = {name for name in vars(hookspecs) if name.startswith("cliffracer_")}
    assert len(parts) == 2 * len(documented)
    assert documented.keys() == hooks
    assert {
        name for name, part in documented.items() if part.lstrip().startswith("*Provisional.*")
    } == hookspecs.PROVISIONAL
    for name, part in documented.items():
        for what in ("- **Arguments:**", "- **Returns:**", "- **Failure:**", "Called "):
            assert what in part, f"{name} lacks {what!r}"
        assert "```python" in part or "see the example above" in part, f"{name} has no example"


def table_under(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, its two first lines left out."""
    section = page.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert lines, f"{name_of(page)} has no table under {heading!r}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[0].splitlines()[2:]]


def settings_of(type: type[msgspec.Struct]) -> list[tuple[str, str]]:
    """Return name and default of each field as the tables write them."""
    found = []
    for field in msgspec.structs.fields(type):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        text = (
            "none"
            if default is None
            else f"`{msgspec.json.encode(default).decode()}`"
            if not field.required
            else "required"
        )
        found.append((f"`{field.name}`", text))
    return found


def test_tables_name_every_setting_and_its_default() -> None:
    """docs/configuration.md has each setting of the kernel and of the plugins of this repository, no other."""
    page = DOCS / "configuration.md"
    sections = [section for _, section in load_plugins(environment={}).ask("cliffracer_register_settings")]
    known = {"kernel": KernelSettings, **{section.name: section.type for section in sections}}
    assert set(re.findall(r"^### `(\w+)`$", page.read_text(encoding="utf-8"), re.M)) == known.keys()
    for name, type in known.items():
        assert [(row[0], row[2]) for row in table_under(page, f"### `{name}`")] == settings_of(type), name
    flat = [
        [f"`{name}`", f"`{name.upper()}`", f"`{section.name}.{field}`"]
        for section in sections
        for name, field in section.flat.items()
    ]
    assert table_under(page, "## Flat names") == flat


def test_table_of_errors_is_that_of_the_code() -> None:
    """docs/services.md has every error of the kernel, with its code, status and whether a retry helps."""
    documented = {row[0]: row[1:] for row in table_under(DOCS / "services.md", "## Errors")}
    known = {
        f"`{name}`": [f"`{each.code}`", str(each.status), "yes" if each.retryable else "no"]
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, errors.CliffracerError) and name != "CliffracerError"
    }
    assert documented == known


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """Return line and words of each `$ cliffracer ...`, without variables before it and pipes."""
    found = []
    for block in blocks(page):
        for number, line in enumerate(block.body.splitlines() if block.language == "console" else ()):
            for part in line.removeprefix("$ ").split(" | ") if line.startswith("$ ") else ():
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words[:1] == ["cliffracer"]:
                    found.append((block.line + number, list(itertools.takewhile(lambda word: word != ">", words[1:]))))
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_exist(page: Path) -> None:
    """Each command line on the pages parses: the command exists, and so do its options and arguments."""
    for line, words in commands(page):
        if not words:  # the program alone shows its help
            continue
        group = make_cli()
        context = group.make_context("cliffracer", list(words), resilient_parsing=False, obj=State())
        try:
            name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
            assert command is not None
            command.make_context(name, rest, parent=context)
        except click.exceptions.Exit:  # --help
            continue
        except click.ClickException as error:
            pytest.fail(f"{name_of(page)}:{line}: {error.format_message()}")
