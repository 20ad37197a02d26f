"""Texts of the command line turned into values."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import click
import msgspec
import pytest
from cliffracer_cli.arguments import read_payload
from cliffracer_cli.devnote import read_note, remove_note, write_note
from cliffracer_cli.failures import ExitCode, exit_code, failure_json, failure_line
from cliffracer_cli.overrides import nested, read_overrides
from hypothesis import given
from hypothesis import strategies as st

from cliffracer_core import ConfigurationError, ConnectionError, DeadlineExceeded, NoHandler, RPCError, Section
from cliffracer_core.assembly import load_plugins
from cliffracer_core.hookspecs import hookimpl

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), JSON, min_size=1, max_size=4))
def test_pairs_give_what_their_json_says(values: dict[str, object]) -> None:
    """Whatever JSON a value is, it arrives as that, and so does the whole as one text."""
    assert read_payload([f"{name}={json.dumps(value)}" for name, value in values.items()]) == values
    assert read_payload([json.dumps(values)]) == values


@pytest.mark.parametrize("text", ["Ada", "a=b", "0123", "1.2.3", "{", "", "nan", "two\nlines", "'quoted'"])
def test_value_is_text_when_it_is_no_json(text: str) -> None:
    """Anything else is text, to the letter."""
    assert read_payload([f"name={text}"]) == {"name": text}


class Shop(msgspec.Struct):
    url: str = ""
    size: int = 1
    wait_s: float = 1.0
    open: bool = False
    names: list[str] = []
    limits: dict[str, int] = {}


class ShopPlugin:
    @hookimpl
    def cliffracer_register_settings(self) -> list[Section]:
        return [Section(name="shop", type=Shop, flat={"shop_size": "size"})]


def overrides(**texts: str) -> dict[str, object]:
    plugins = load_plugins({"shop": ShopPlugin()}, environment={"CLIFFRACER_PLUGINS": ""})
    return read_overrides(plugins, {key.replace("__", "."): text for key, text in texts.items()})


def test_settings_have_the_type_of_their_field() -> None:
    """A number for a number, text for text even where it looks like a number, lists by commas or JSON."""
    assert overrides(version="1", timeout="2", shop__url="7", shop__wait_s="2", shop__open="true", shop_size="3") == {
        "version": "1", "timeout": 2.0, "shop": {"url": "7", "wait_s": 2.0, "open": True}, "shop_size": 3,
    }  # fmt: skip
    assert overrides(shop__names="a, b", shop__limits='{"a": 1}') == {"shop": {"names": ["a", "b"], "limits": {"a": 1}}}
    assert overrides(shop__names='["a,b"]') == {"shop": {"names": ["a,b"]}}


def test_setting_is_refused_when_it_does_not_fit() -> None:
    """The error names it."""
    with pytest.raises(ConfigurationError, match=r"setting 'shop\.size' from the command line: expected `int`"):
        overrides(shop__size="many")


def test_unknown_settings_are_left_for_the_kernel_to_refuse() -> None:
    """It knows the nearest name."""
    assert overrides(shoop__size="1") == {"shoop": {"size": "1"}}
    assert nested({"a": 1, "b.c": 2, "b.d": 3}) == {"a": 1, "b": {"c": 2, "d": 3}}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RPCError("x"), 1),
        (ValueError("x"), 1),
        (click.ClickException("x"), 1),
        (click.UsageError("x"), 2),
        (ConfigurationError("x"), 3),
        (ConnectionError("x"), 4),
        (NoHandler("x"), 4),
        (DeadlineExceeded("x"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_tells_the_kind_of_error(error: BaseException, code: int) -> None:
    """Scripts can tell them apart."""
    assert exit_code(error) == ExitCode(code)


def test_line_and_json_hold_no_control_characters() -> None:
    """What a service answers cannot move the cursor or forge another line."""
    error = RPCError("red \x1b[31m\nerror: forged\x9b2J")
    assert failure_line(error) == "red ?[31m error: forged?2J"
    assert "\n" not in failure_json(error)
    assert json.loads(failure_json(error))["error"]["exit_code"] == 1


def test_note_is_private_and_for_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this user reads it, it is found in the directory where it was written, and it is not left behind."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_note({"transport": "nats://t@127.0.0.1:1"})
    assert read_note() == {"transport": "nats://t@127.0.0.1:1"}
    files = [*tmp_path.glob("cliffracer-*/*")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]
    monkeypatch.chdir(tmp_path)
    assert read_note() == {}
    monkeypatch.chdir(tmp_path / "here")
    files[0].write_text(files[0].read_text().replace(str(os.getpid()), "999999999"))
    assert read_note() == {}
    write_note({})
    remove_note()
    assert [*tmp_path.glob("cliffracer-*/*")] == []


def test_note_is_neither_read_nor_written_when_others_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that somebody else put there first is not trusted."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write_note({"transport": "x"})
    (folder,) = tmp_path.glob("cliffracer-*")
    folder.chmod(0o777)
    assert read_note() == {}
    with pytest.raises(ConfigurationError, match="is not this user's alone"):
        write_note({})
