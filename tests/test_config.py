"""Settings: every source, which wins, and what an error says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from cliffracer_core import ClientProxy, CliffracerService, Plugins, hookimpl
from cliffracer_core.assembly import (
    load_plugins,
    make_stores,
    make_transports,
    mask_url,
    opened,
    options_url,
    resolve_settings,
    service_info,
)
from cliffracer_core.config import KernelSettings, ServiceConfig, Settings, get_env, resolve
from cliffracer_core.errors import ConfigurationError, InvalidSubject, PluginError
from cliffracer_core.interfaces import Section, Store, StoreFactory, Transport, TransportFactory
from cliffracer_core.memory import MemoryStore, MemoryTransport


class BusSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str | list[str] | None = None
    password: str | None = None
    port: int = 4222
    hosts: list[str] = []
    ports: list[int] = []
    labels: dict[str, int] = {}
    tls: bool = False
    level: Literal["low", "high"] = "low"
    timeout_s: float = 1.0


class CacheSettings(msgspec.Struct, frozen=True):
    size: int = 10

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("Size must not be negative")


BUS = Section(
    name="bus",
    type=BusSettings,
    flat={"bus_url": "url", "bus_port": "port", "connection_limit": "port", "zone_url": "url"},
    transport_field="url",
    secrets=frozenset({"password"}),
)
CACHE = Section(name="cache", type=CacheSettings)
SECTIONS = (BUS, CACHE)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Run in an empty directory, where nothing but what a test writes is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(environment: dict[str, str] | None = None, **options: Any) -> Settings:
    values = options.pop("code", {})
    config = ServiceConfig("users", **values)
    return resolve(config, SECTIONS, environment=environment or {}, **options)


def bus(found: Settings) -> BusSettings:
    section = found.sections["bus"]
    assert isinstance(section, BusSettings)
    return section


# --- sources and precedence -------------------------------------------------------------------------

LAYERS: list[tuple[str, str]] = [
    ("the class", "class"),
    ("cliffracer.toml", "file"),
    ("cliffracer.toml [services.users]", "service"),
    ("CLIFFRACER_VERSION", "env"),
    ("the command line", "flag"),
    ("code", "code"),
]


@pytest.mark.parametrize("count", range(len(LAYERS) + 1))
def test_later_source_wins_when_several_speak(count: int, elsewhere: Path) -> None:
    """Defaults < class < file < [services.x] < environment < command line < code, and each says it was the source."""
    spoken = dict(LAYERS[:count])
    given: dict[str, Any] = {source: {"version": value} for source, value in spoken.items()}
    lines = ['[services.other]\nversion = "not mine"']
    if "cliffracer.toml" in spoken:
        lines.insert(0, 'version = "file"')
    if "cliffracer.toml [services.users]" in spoken:
        lines.append('[services.users]\nversion = "service"')
    (elsewhere / "cliffracer.toml").write_text("\n".join(lines))
    found = settings(
        {"CLIFFRACER_VERSION": "env"} if "CLIFFRACER_VERSION" in spoken else {},
        class_values=given.get("the class"),
        overrides=given.get("the command line"),
        code=given.get("code", {}),
    )
    assert found.kernel.version == (LAYERS[count - 1][1] if count else KernelSettings(name="x").version)
    assert found.sources.get("version") == (LAYERS[count - 1][0] if count else None)


def test_sections_are_merged_when_sources_set_different_fields(elsewhere: Path) -> None:
    """A later source changes the fields it names and leaves the others."""
    (elsewhere / "cliffracer.toml").write_text("[bus]\nport = 1\ntls = true\n[services.users.bus]\ntimeout_s = 5")
    found = settings({"CLIFFRACER_BUS__PORT": "2"}, code={"bus": {"password": "x"}})
    assert (bus(found).port, bus(found).tls, bus(found).timeout_s, bus(found).password) == (2, True, 5.0, "x")
    assert found.sources["bus.port"] == "CLIFFRACER_BUS__PORT"
    assert found.sources["bus.timeout_s"] == "cliffracer.toml [services.users]"
    assert found.sections["cache"] == CacheSettings()


def test_settings_are_defaults_when_nobody_speaks() -> None:
    """Without any source a service has the documented defaults."""
    found = settings()
    assert found.kernel == KernelSettings(name="users")
    assert found.urls("transport") == found.urls("store") == {"default": "memory://"}
    assert found.sources == {"name": "code"}


def test_pyproject_is_read_when_there_is_no_file_of_ours(elsewhere: Path) -> None:
    """`[tool.cliffracer]` in pyproject.toml is the file, unless cliffracer.toml exists."""
    (elsewhere / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.cliffracer]\nversion = "2"\n[tool.cliffracer.services.users]\ntimeout = 3'
    )
    found = settings()
    assert (found.kernel.version, found.kernel.timeout) == ("2", 3.0)
    assert found.sources["version"] == "pyproject.toml"
    (elsewhere / "cliffracer.toml").write_text('version = "3"')
    assert settings().kernel.version == "3"


def test_pyproject_is_ignored_when_it_says_nothing_to_us(elsewhere: Path) -> None:
    """A pyproject.toml of another tool is no source."""
    (elsewhere / "pyproject.toml").write_text('[project]\nname = "x"')
    assert settings().sources == {"name": "code"}


def test_another_file_is_read_when_the_environment_names_it(elsewhere: Path) -> None:
    """CLIFFRACER_CONFIG chooses the file, a pyproject.toml too, and the others are not read."""
    (elsewhere / "cliffracer.toml").write_text('version = "here"')
    (elsewhere / "other").mkdir()
    chosen = elsewhere / "other" / "production.toml"
    chosen.write_text('version = "there"')
    assert settings({"CLIFFRACER_CONFIG": str(chosen)}).kernel.version == "there"
    project = elsewhere / "other" / "pyproject.toml"
    project.write_text('[project]\nname = "x"\n[tool.cliffracer]\nversion = "project"')
    assert settings({"CLIFFRACER_CONFIG": str(project)}).kernel.version == "project"


def test_file_is_named_when_it_cannot_be_read(elsewhere: Path) -> None:
    """A file that was asked for and is missing, or is no TOML, stops the start by name."""
    with pytest.raises(ConfigurationError, match="settings file 'gone.toml' cannot be read: No such file"):
        settings({"CLIFFRACER_CONFIG": "gone.toml"})
    (elsewhere / "cliffracer.toml").write_text("version = ")
    with pytest.raises(ConfigurationError, match="settings file 'cliffracer.toml' is not valid TOML"):
        settings()
    (elsewhere / "cliffracer.toml").write_bytes(b'version = "\xff"')
    with pytest.raises(ConfigurationError, match="settings file 'cliffracer.toml' is not valid TOML"):
        settings()


@pytest.mark.parametrize("text", ["services = 3", "[services]\nusers = 1"])
def test_file_is_refused_when_services_are_no_tables(elsewhere: Path, text: str) -> None:
    """A scalar where a table belongs is named, with the right spelling."""
    (elsewhere / "cliffracer.toml").write_text(text)
    with pytest.raises(
        ConfigurationError, match=r"setting 'services(\.users)?' from cliffracer.toml is no table; write"
    ):
        settings()


# --- names ------------------------------------------------------------------------------------------


def test_flat_name_sets_its_field_when_it_is_used() -> None:
    """The flat names of the reference documents stand for fields of sections, in code and environment."""
    assert bus(settings(code={"bus_port": 7})).port == 7
    assert bus(settings({"BUS_PORT": "8"})).port == 8
    assert bus(settings({"CLIFFRACER_BUS_PORT": "9"})).port == 9
    assert bus(settings({"CONNECTION_LIMIT": "10"})).port == 10
    assert bus(settings({"bus_port": "8"})).port == 4222, "environment variables are upper case"


def test_section_is_accepted_when_it_is_a_struct() -> None:
    """A plugin's section may be given as the Struct it registered."""
    assert bus(settings(code={"bus": BusSettings(port=5)})).port == 5


@pytest.mark.parametrize("value", [5, "text", None, CacheSettings()])
def test_section_is_refused_when_it_is_no_table(value: object) -> None:
    """A section that is neither Struct nor mapping names what to give."""
    with pytest.raises(ConfigurationError, match=r"setting 'bus' from code is no table; give BusSettings\(...\)"):
        settings(code={"bus": value})


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("timeuot", "did you mean 'timeout'?"),
        ("bus_prot", "did you mean 'bus_port'?"),
        ("bsu", "did you mean 'bus'?"),
        ("http", "it belongs to cliffracer-http: install that, or remove the setting"),
        ("nats_url", "it belongs to cliffracer-nats"),
        ("db_host", "it belongs to cliffracer-db"),
        ("auth_secret_key", "it belongs to cliffracer-auth"),
        ("connection_pool_size", "it belongs to cliffracer-db"),
        ("zzzzzz", "known here are bus, bus_port, bus_url, cache,"),
    ],
)
def test_remedy_is_given_when_a_key_is_unknown(key: str, remedy: str) -> None:
    """An unknown key is an error with the nearest known one, else the distribution it belongs to."""
    with pytest.raises(ConfigurationError) as caught:
        settings(code={key: 1})
    assert str(caught.value).startswith(f"setting {key!r} from code is not known; {remedy}")


def test_field_is_named_when_a_section_has_no_such_one(elsewhere: Path) -> None:
    """An unknown field of a section is named with section, source and the nearest one."""
    (elsewhere / "cliffracer.toml").write_text("[bus]\nprot = 1")
    with pytest.raises(
        ConfigurationError, match=r"'bus.prot' from cliffracer.toml is not known; did you mean 'bus.port'"
    ):
        settings()
    (elsewhere / "cliffracer.toml").unlink()
    with pytest.raises(ConfigurationError, match="'bus.prot' from CLIFFRACER_BUS__PROT"):
        settings({"CLIFFRACER_BUS__PROT": "1"})
    with pytest.raises(ConfigurationError, match="'nothing' from CLIFFRACER_NOTHING"):
        settings({"CLIFFRACER_NOTHING": "1"})


def test_reserved_variables_are_no_settings_when_they_are_set() -> None:
    """The variables that choose plugins are not taken for settings."""
    assert settings({"CLIFFRACER_DISABLE": "bus", "CLIFFRACER_PLUGINS": "x"}).kernel.name == "users"


@pytest.mark.parametrize("key", ["http", "http_port", "db_host", "connection_pool_size", "greeter"])
def test_setting_is_skipped_when_its_plugin_is_disabled(key: str) -> None:
    """Disabling a plugin needs no change of its settings, flat ones included."""
    found = settings(code={key: 1}, ignored={"http", "db", "greeter"})
    assert found.kernel.name == "users"
    with pytest.raises(ConfigurationError, match="is not known"):
        settings(code={"auth": 1}, ignored={"http", "db"})


# --- the transport field ----------------------------------------------------------------------------


def test_transport_is_the_plugins_url_when_only_that_is_set() -> None:
    """`nats_url=...` alone is enough to be reached there; a list is joined by commas."""
    assert settings(code={"bus_url": "bus://h"}).kernel.transport == "bus://h"
    assert settings(code={"bus": {"url": ["bus://a", "bus://b"]}}).kernel.transport == "bus://a,bus://b"
    assert settings({"BUS_URL": "bus://env"}).sources["transport"] == "BUS_URL"


@pytest.mark.parametrize("variable", ["BUS_URL", "ZONE_URL", "CLIFFRACER_ZONE_URL", "CLIFFRACER_BUS__URL"])
def test_transport_is_the_explicit_one_when_one_source_sets_both(variable: str) -> None:
    """A `transport` beside the plugin's URL wins, in code and in the environment; a later source wins over both."""
    assert settings(code={"bus_url": "bus://h", "transport": "memory://x"}).kernel.transport == "memory://x"
    environment = {variable: "bus://env", "CLIFFRACER_TRANSPORT": "memory://x"}
    found = settings(environment)
    assert found.kernel.transport == "memory://x"
    assert bus(found).url == "bus://env"
    assert settings(environment, code={"bus_url": "bus://code"}).kernel.transport == "bus://code"


def test_transport_stays_when_the_url_is_no_url() -> None:
    """A URL of a wrong type is an error about that setting, not about the transport made of it."""
    with pytest.raises(
        ConfigurationError, match="setting 'bus.url' from code: expected `str | array | null`, got `int`"
    ):
        settings(code={"bus_url": 5})
    with pytest.raises(ConfigurationError, match="'bus.url.*' from code: expected `str`, got `int`"):
        settings(code={"bus_url": ["bus://a", 5]})


# --- wrong values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"timeout": "5"}, "setting 'timeout' from code: expected `float`, got `str`"),
        ({"timeout": 0}, "setting 'timeout': timeout 0.0 is not"),
        ({"timeout": float("inf")}, "setting 'timeout': timeout inf is not"),
        ({"max_timeout_s": -1}, "setting 'max_timeout_s'"),
        ({"shutdown_grace_s": 0}, "setting 'shutdown_grace_s'"),
        ({"concurrency": 0}, "too low"),
        ({"concurrency": True}, "setting 'concurrency' from code: expected `int`, got `bool`"),
        ({"queue_size": -1}, "too low"),
        ({"event_buffer": -1}, "too low"),
        ({"metadata": {"a": 1}}, r"setting 'metadata\[...\]' from code: expected `str`, got `int`"),
        ({"metadata": {1: "a"}}, "setting 'metadata' from code: expected `str`, got `int`"),
        ({"transport": 5}, "setting 'transport' from code"),
        ({"transport": {"bus": "memory://"}}, r"'transport' names \['bus'\] and no 'default'"),
        ({"store": {}}, r"'store' names \[\] and no 'default'"),
    ],
)
def test_kernel_setting_is_refused_where_it_is_written_when_it_is_wrong(values: dict[str, Any], text: str) -> None:
    """A wrong kernel setting in code is an error of the very line that makes the ServiceConfig."""
    with pytest.raises(ConfigurationError, match=text):
        ServiceConfig("users", **values)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", "a\n"])
def test_name_is_refused_when_it_is_no_token(name: str) -> None:
    """A service's name is part of its subjects."""
    with pytest.raises(InvalidSubject, match="service name"):
        ServiceConfig(name)


def test_setting_and_source_are_named_when_a_value_has_the_wrong_type(elsewhere: Path) -> None:
    """A wrong value names the setting and where it came from, deep values included."""
    (elsewhere / "cliffracer.toml").write_text(
        'timeout = "soon"\n[metadata]\na = 1\n[bus]\nport = "x"\nports = [1, "y"]\n[cache]\nsize = -1'
    )
    wrong = {"timeout": 1.0, "metadata": {}, "bus": {"port": 1, "ports": []}, "cache": {"size": 1}}
    for key, text in [
        ("timeout", "setting 'timeout' from cliffracer.toml: expected `float`, got `str`"),
        ("metadata", r"setting 'metadata\[...\]' from cliffracer.toml: expected `str`"),
        ("cache", "settings of section 'cache': size must not be negative"),
    ]:
        with pytest.raises(ConfigurationError, match=text):
            settings(overrides={name: value for name, value in wrong.items() if name != key})
    right = {name: value for name, value in wrong.items() if name != "bus"}
    with pytest.raises(ConfigurationError, match="setting 'bus.port' from cliffracer.toml: expected `int`"):
        settings(overrides=right)
    with pytest.raises(ConfigurationError, match=r"setting 'bus.ports\[1\]' from cliffracer.toml: expected `int`"):
        settings(overrides={**right, "bus": {"port": 1}})


@pytest.mark.parametrize("value", [12345678, ["s3cret"], {"s3cret": 1}])
def test_secret_is_not_shown_when_its_value_is_wrong(value: object) -> None:
    """No error repeats a value, so that none repeats a password."""
    with pytest.raises(ConfigurationError, match="setting 'bus.password' from code") as caught:
        settings(code={"bus": {"password": value}})
    assert "s3cret" not in str(caught.value)
    assert "12345678" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="from BUS_PORT") as caught:
        settings({"BUS_PORT": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_configuration_hides_its_values_when_it_is_shown() -> None:
    """A log of a ServiceConfig holds its name and no secret."""
    assert repr(ServiceConfig("users", bus={"password": "s3cret"})) == "ServiceConfig(name='users', ...)"


# --- the environment --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("port", "7", 7),
        ("timeout_s", "2.5", 2.5),
        ("tls", "true", True),
        ("tls", "0", False),
        ("password", "007", "007"),
        ("password", "", ""),
        ("level", "high", "high"),
        ("hosts", "a, b ,c", ["a", "b", "c"]),
        ("hosts", "a", ["a"]),
        ("hosts", '["a,b", "c"]', ["a,b", "c"]),
        ("ports", "1,2", [1, 2]),
        ("ports", "[1, 2]", [1, 2]),
        ("labels", '{"a": 1}', {"a": 1}),
    ],
)
def test_variable_is_read_by_its_type_when_set(field: str, text: str, value: object) -> None:
    """Text becomes what the field is: numbers, flags, JSON, and words between commas."""
    assert getattr(bus(settings({f"CLIFFRACER_BUS__{field.upper()}": text})), field) == value


@pytest.mark.parametrize(
    ("field", "text"),
    [("port", "x"), ("port", ""), ("tls", "maybe"), ("ports", "1,x"), ("labels", "a=1"), ("labels", '{"a": "x"}')],
)
def test_variable_is_named_when_its_text_does_not_fit(field: str, text: str) -> None:
    """A variable that does not fit its field is named."""
    variable = f"CLIFFRACER_BUS__{field.upper()}"
    with pytest.raises(ConfigurationError, match=f"setting from {variable}: expected"):
        settings({variable: text})


def test_kernel_is_set_when_variables_name_its_fields() -> None:
    """Every kernel field has a variable."""
    found = settings(
        {
            "CLIFFRACER_TIMEOUT": "2",
            "CLIFFRACER_CONCURRENCY": "3",
            "CLIFFRACER_METADATA": '{"zone": "a"}',
            "CLIFFRACER_STORE": "memory://s",
            "UNRELATED": "x",
        }
    ).kernel
    assert (found.timeout, found.concurrency, found.metadata, found.store) == (2.0, 3, {"zone": "a"}, "memory://s")


def test_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the process's own environment."""
    monkeypatch.setenv("CLIFFRACER_DESCRIPTION", "from outside")
    assert resolve(ServiceConfig("users"), SECTIONS).kernel.description == "from outside"


def test_transports_are_named_when_a_variable_holds_a_table() -> None:
    """Several transports can be named in one variable, as JSON."""
    table = '{"default": "memory://", "bus": "memory://bus"}'
    found = settings({"CLIFFRACER_TRANSPORT": table})
    assert found.urls("transport") == {"default": "memory://", "bus": "memory://bus"}


# --- get_env ----------------------------------------------------------------------------------------


def test_variable_or_default_is_returned_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_env` as the reference documents use it."""
    monkeypatch.delenv("T_URL", raising=False)
    assert get_env("T_URL", "nats://localhost:4222") == "nats://localhost:4222"
    assert get_env("T_URL") is None
    assert get_env("T_URL", default=8080, type=int) == 8080
    assert get_env("T_URL", "x", required=True) == "x"
    monkeypatch.setenv("T_URL", "1234")
    assert get_env("T_URL", "other") == "1234"
    assert get_env("T_URL", default=8080, type=int) == 1234


def test_variable_is_named_when_it_is_required_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing required variable is an error with its name and the remedy."""
    monkeypatch.delenv("T_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match="'T_SECRET' is not set; set it"):
        get_env("T_SECRET", required=True)


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("1", True),
        ("True", True),
        ("yes", True),
        ("on", True),
        ("OFF", False),
        ("0", False),
        ("no", False),
        ("false", False),
    ],
)
def test_flag_is_read_when_the_type_is_bool(monkeypatch: pytest.MonkeyPatch, text: str, flag: bool) -> None:
    """`bool` reads the usual words, so that 'false' is false."""
    monkeypatch.setenv("T_FLAG", text)
    assert get_env("T_FLAG", type=bool) is flag


@pytest.mark.parametrize("type", [bool, int, float])
def test_value_is_hidden_when_the_type_does_not_take_it(monkeypatch: pytest.MonkeyPatch, type: Any) -> None:
    """A value that does not fit is not repeated; it may be a secret in the wrong variable."""
    monkeypatch.setenv("T_PORT", "s3cret")
    with pytest.raises(ConfigurationError, match="'T_PORT' is no") as caught:
        get_env("T_PORT", type=type)
    assert "s3cret" not in str(caught.value)


# --- from settings to transports and stores ---------------------------------------------------------


class FailingTransport(MemoryTransport):
    def __init__(self, log: list[str], name: str, fail: str = "") -> None:
        super().__init__()
        self.log, self.name, self.fail = log, name, fail

    async def open(self) -> None:
        self.log.append(f"open {self.name}")
        if self.fail == "open":
            raise ZeroDivisionError("open")

    async def close(self) -> None:
        self.log.append(f"close {self.name}")
        if self.fail == "close":
            raise OSError("close")


class BusPlugin:
    def __init__(self, sections: list[Section] | None = None, schemes: tuple[str, ...] = ("bus",)) -> None:
        self.sections = [BUS] if sections is None else sections
        self.schemes = schemes

    @hookimpl
    def cliffracer_register_settings(self) -> list[Section]:
        return self.sections

    @hookimpl
    def cliffracer_register_transports(self) -> Iterator[TransportFactory] | list[TransportFactory]:
        return [TransportFactory(schemes=self.schemes, create=lambda url, service: MemoryTransport("memory://"))]

    @hookimpl
    def cliffracer_register_stores(self) -> list[StoreFactory]:
        return [StoreFactory(schemes=self.schemes, create=lambda url, service: MemoryStore("memory://"))]


class OtherBusPlugin(BusPlugin):
    @hookimpl
    def cliffracer_register_transports(self) -> list[TransportFactory]:
        build = lambda options: f"{self.schemes[0]}://built-from-{options['host']}"  # noqa: E731
        return [
            TransportFactory(schemes=self.schemes, create=lambda url, service: MemoryTransport(), options_url=build)
        ]


def loaded(**extra: object) -> Plugins:
    return load_plugins(extra, environment={"CLIFFRACER_PLUGINS": ""})


def test_all_are_made_when_settings_name_several() -> None:
    """Each named transport and store is made by the plugin that serves its scheme, unopened."""
    plugins = loaded(bus=BusPlugin())
    config = ServiceConfig(
        "users", transport={"default": "memory://", "second": "bus://h"}, store={"default": "bus://h"}
    )
    found = resolve_settings(plugins, config)
    info = service_info(found)
    transports, stores = make_transports(plugins, found, info), make_stores(plugins, found, info)
    assert list(transports) == ["default", "second"]
    assert not any(each.connected for each in transports.values())
    assert list(stores) == ["default"]
    assert info.settings["bus"] == BusSettings()
    assert service_info(found).id != info.id


@pytest.mark.parametrize("url", ["kafka://user:s3cret@h", "kafka", "", "user:s3cret@h"])
def test_remedy_is_given_when_nothing_serves_a_scheme(url: str) -> None:
    """A URL nobody serves names what is known and what to install, without its password."""
    plugins = loaded(bus=BusPlugin())
    found = resolve_settings(plugins, ServiceConfig("users", transport=url, store=url))
    for make, what in ((make_transports, "transport"), (make_stores, "store")):
        with pytest.raises(
            ConfigurationError, match=f"{what} 'default': .*known are bus://, memory://; install"
        ) as caught:
            make(plugins, found, service_info(found))
        assert "s3cret" not in str(caught.value)


def test_both_plugins_are_named_when_they_claim_one_setting() -> None:
    """Two plugins with one section, or one flat name, stop the start."""
    twice = Section(name="bus_port", type=CacheSettings)
    for section in (BUS, twice):
        with pytest.raises(
            PluginError, match="plugins 'a' and 'b' both register the setting 'bus.*CLIFFRACER_DISABLE=b"
        ):
            resolve_settings(loaded(a=BusPlugin(), b=BusPlugin([section])), ServiceConfig("users"))


def test_both_plugins_are_named_when_they_serve_one_scheme() -> None:
    """Two plugins with one scheme stop the start, the kernel's own included."""
    plugins = loaded(a=BusPlugin(), b=BusPlugin([]))
    found = resolve_settings(plugins, ServiceConfig("users"))
    with pytest.raises(
        PluginError, match="plugins 'a' and 'b' both serve 'bus'; disable one with CLIFFRACER_DISABLE=b"
    ):
        make_stores(plugins, found, service_info(found))
    plugins = loaded(mine=BusPlugin(schemes=("memory",)))
    with pytest.raises(PluginError, match="plugins 'core' and 'mine' both serve 'memory'"):
        make_transports(plugins, found, service_info(found))


def test_disabled_plugin_may_keep_its_settings_when_the_kernel_runs_alone(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLIFFRACER_PLUGINS= (empty) leaves installed plugins out, and their settings are no error then."""
    (elsewhere / "cliffracer.toml").write_text('[nats]\nurl = "nats://h"')
    (elsewhere / "some.dist-info").mkdir()
    (elsewhere / "some.dist-info" / "entry_points.txt").write_text("[cliffracer]\nnats = t_nobody_imports_it\n")
    (elsewhere / "some.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    plugins = loaded()
    assert "nats" in plugins.disabled
    assert resolve_settings(plugins, ServiceConfig("users", nats_url="nats://h")).kernel.transport == "memory://"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://h:4222", "nats://h:4222"),
        ("nats://u:p@h", "nats://***@h"),
        ("nats://token@h/x", "nats://***@h/x"),
        ("nats://u:p@ss@h", "nats://***@h"),
        ("nats://u:pa,ss@h", "nats://***@h"),
        ("nats://u:a://b@h", "nats://***@h"),
        ("nats://u:p@a,nats://v:q@b", "nats://***@a,nats://***@b"),
        ("nats://a,u:p@b", "nats://***@b"),
        ("u:p@h", "***@h"),
        ("", ""),
    ],
)
def test_credentials_are_masked_when_a_url_is_shown(url: str, shown: str) -> None:
    """Nothing that stands before an `@` is shown."""
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("transport", "options", "url"),
    [
        ("bus://h", {"host": "ignored"}, "bus://h"),
        ("bus", {}, "bus://"),
        ("bus", {"host": "h", "port": 6379}, "bus://h:6379"),
        ("bus", {"host": "h", "username": "u", "password": "p@/:"}, "bus://u:p%40%2F%3A@h"),
        ("bus", {"host": "h", "user": "u"}, "bus://u:@h"),
        ("bus", {"url": "bus://given"}, "bus://given"),
        ("other", {"host": "h"}, "other://built-from-h"),
    ],
)
def test_url_is_built_when_a_client_gives_options(transport: str, options: dict[str, object], url: str) -> None:
    """`ClientProxy(transport=..., options=...)` becomes a URL; a plugin may build it itself."""
    plugins = loaded(bus=BusPlugin(), other=OtherBusPlugin([], ("other",)))
    assert options_url(plugins, transport, options) == url


async def test_client_names_the_distribution_when_its_transport_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheme that nothing serves says what to install."""
    monkeypatch.setenv("CLIFFRACER_PLUGINS", "")
    with pytest.raises(ConfigurationError, match="transport 'redis' is not installed; install cliffracer-redis"):
        await ClientProxy(transport="redis").connect()


async def test_all_are_closed_in_reverse_when_one_cannot_open() -> None:
    """Whatever was opened is closed again, the failed one too, and the first error is what is raised."""
    log: list[str] = []
    failures: list[str] = []
    things: dict[str, Transport] = {
        "a": FailingTransport(log, "a", "close"),
        "b": FailingTransport(log, "b", "open"),
        "c": FailingTransport(log, "c"),
    }
    with pytest.raises(ZeroDivisionError):
        async with opened(things, "transport", lambda text, error: failures.append(f"{text}: {error}")):
            raise AssertionError("never entered")
    assert log == ["open a", "open b", "close b", "close a"]
    assert failures == ["transport 'a' did not close: close"]


async def test_store_is_open_when_the_block_runs() -> None:
    """Inside the block all are open, after it all are closed."""
    store: Store = MemoryStore()
    async with opened({"default": store}, "store", lambda text, error: None):
        assert await store.put("k", b"v") > 0


async def test_class_attributes_are_settings_when_a_service_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`version` and `description` of the class are settings like any other, and can be overridden."""
    monkeypatch.setenv("CLIFFRACER_PLUGINS", "")

    class Users(CliffracerService):
        version = "1.2.3"
        description = "knows users"

    async with Users(overrides={"version": "2.0.0"}) as service:
        assert (service.info.name, service.info.version, service.info.description) == ("users", "2.0.0", "knows users")
