"""Finding plugins, blocking them, asking them, and what an error says."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pluggy
import pytest

from cliffracer_core import CliffracerService, Plugins, ServiceConfig, hookimpl, hookspecs, rpc
from cliffracer_core.assembly import BUILTIN, load_plugins
from cliffracer_core.errors import NotFoundError, PluginError
from cliffracer_core.interfaces import Section, TransportFactory
from cliffracer_core.memory import MemoryTransport

PREAMBLE = "from cliffracer_core.hookspecs import hookimpl, hookspec\n"
Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution: a module and its metadata in a folder on the path, as pip would leave them."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    modules: list[str] = []

    def make(
        plugin: str, source: str = "", *, distribution: str = "", version: str = "1.2.3", attribute: str = ""
    ) -> str:
        distribution = distribution or f"cliffracer-{plugin}"
        module = f"t_{distribution.replace('-', '_')}_plugin"
        (site / f"{module}.py").write_text(PREAMBLE + source)
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[cliffracer]\n{plugin} = {module}{attribute and ':'}{attribute}\n")
        modules.append(module)
        return module

    yield make
    for module in modules:
        sys.modules.pop(module, None)


def load(only: str | None = None, disable: str = "nats,discovery,cli,http,websocket,db") -> Plugins:
    environment = {"CLIFFRACER_DISABLE": disable, **({} if only is None else {"CLIFFRACER_PLUGINS": only})}
    return load_plugins(environment=environment)


def kernel(**extra: object) -> Plugins:
    return load_plugins(extra, environment={"CLIFFRACER_PLUGINS": ""})


# --- discovery --------------------------------------------------------------------------------------

OFFER = """
@hookimpl
def cliffracer_register_lifespans():
    return ["{0}"]
"""


def test_plugin_is_found_when_its_distribution_is_installed(install: Install) -> None:
    """Installing is all there is to do; the plugin is known by its entry point, with distribution and version."""
    install("greeter", OFFER.format("hello"))
    plugins = load()
    assert plugins.is_active("greeter")
    info = plugins.infos["greeter"]
    assert (info.name, info.distribution, info.version) == ("greeter", "cliffracer-greeter", "1.2.3")
    assert list(plugins.ask("cliffracer_register_lifespans", service=None)) == [("greeter", "hello")]


def test_plugins_answer_in_the_order_of_their_names_when_asked(install: Install) -> None:
    """The order of answers is that of the plugins' names, not of their installation."""
    for name in ("beta", "alpha", "gamma"):
        install(name, OFFER.format(name))
    answers = list(load().ask("cliffracer_register_lifespans", service=None))
    assert answers == [("alpha", "alpha"), ("beta", "beta"), ("gamma", "gamma")]
    given = kernel(zeta=Greeter(), eta=Greeter())
    assert [name for name, _ in given.ask("cliffracer_register_lifespans", service=None)] == ["eta", "zeta"]


def test_both_distributions_are_named_when_they_bring_one_plugin(install: Install) -> None:
    """Two distributions under one plugin name stop the start before either is imported."""
    first = install("greeter", "raise RuntimeError('imported')", distribution="cliffracer-greeter")
    second = install("greeter", "raise RuntimeError('imported')", distribution="acme-greeter")
    with pytest.raises(PluginError, match="two plugins are named 'greeter': .*CLIFFRACER_DISABLE=greeter") as caught:
        load()
    assert "cliffracer-greeter" in str(caught.value)
    assert "acme-greeter" in str(caught.value)
    assert not {first, second} & set(sys.modules)
    assert not load(disable="greeter,nats,discovery,cli").is_active("greeter")


def test_distribution_counts_once_when_it_is_seen_twice(install: Install, tmp_path: Path) -> None:
    """One distribution found in two places of the path, as editable installs are, is one plugin."""
    install("greeter", OFFER.format("hello"))
    install("greeter", OFFER.format("hello"), version="1.2.4")
    assert list(load().ask("cliffracer_register_lifespans", service=None)) == [("greeter", "hello")]


def test_cause_and_remedy_are_named_when_a_plugin_cannot_be_imported(install: Install) -> None:
    """A broken plugin stops the start with its distribution, version, the cause, and how to do without it."""
    install("greeter", "import t_missing_library")
    with pytest.raises(PluginError) as caught:
        load()
    assert str(caught.value) == (
        "plugin 'greeter' (cliffracer-greeter 1.2.3) cannot be imported: ModuleNotFoundError: "
        "No module named 't_missing_library'; reinstall or upgrade it, or disable it with CLIFFRACER_DISABLE=greeter"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_plugin_is_not_imported_when_it_is_disabled(install: Install) -> None:
    """CLIFFRACER_DISABLE blocks a plugin before its module is touched, spaces and empty names aside."""
    module = install("greeter", "raise RuntimeError('imported')")
    plugins = load(disable=" greeter , ,nats,discovery,cli")
    assert not plugins.is_active("greeter")
    assert "greeter" in plugins.disabled
    assert module not in sys.modules


def test_kernel_is_alone_when_the_list_of_plugins_is_empty(install: Install) -> None:
    """CLIFFRACER_PLUGINS= loads nothing but the kernel's own, and what was left out counts as disabled."""
    module = install("greeter", "raise RuntimeError('imported')")
    plugins = load("")
    assert list(plugins.infos) == ["core"]
    assert "greeter" in plugins.disabled
    assert module not in sys.modules


def test_only_those_are_loaded_when_plugins_are_listed(install: Install) -> None:
    """CLIFFRACER_PLUGINS names what to load; what is disabled as well is not."""
    for name in ("alpha", "beta", "gamma"):
        install(name, OFFER.format(name))
    assert list(load("gamma, alpha").infos) == ["core", "alpha", "gamma"]
    assert list(load("gamma,alpha", "gamma").infos) == ["core", "alpha"]


def test_known_ones_are_named_when_a_listed_plugin_is_missing(install: Install) -> None:
    """A plugin that was asked for and is not installed stops the start."""
    install("greeter", OFFER.format("x"))
    with pytest.raises(PluginError, match=r"CLIFFRACER_PLUGINS names 'greter', which is not installed; known are \["):
        load("greeter,greter")


def test_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are those of the process."""
    monkeypatch.setenv("CLIFFRACER_PLUGINS", "")
    assert list(load_plugins().infos) == ["core"]


# --- registration -----------------------------------------------------------------------------------


class Greeter:
    """A plugin given in code."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl
    def cliffracer_register_lifespans(self) -> list[str]:
        self.asked += 1
        return ["hello"]


def test_kernel_is_a_plugin_when_nothing_else_is() -> None:
    """The kernel's own transports, stores and injectables come by the same hooks as any other's."""
    plugins = kernel()
    list(plugins.ask("cliffracer_register_transports"))
    list(plugins.ask("cliffracer_register_stores"))
    list(plugins.ask("cliffracer_register_injectables"))
    assert plugins.infos["core"].distribution == "cliffracer-core"
    assert plugins.infos["core"].registered == {
        "cliffracer_register_transports": ["memory"],
        "cliffracer_register_stores": ["memory"],
        "cliffracer_register_injectables": ["MessageContext"],
    }


def test_plugin_may_hold_a_service_whose_plugins_are_not_loaded() -> None:
    """What a plugin keeps is not asked for anything: a service would load its plugins, this one among them."""

    class Keeper:
        service: CliffracerService

    keeper = Keeper()
    keeper.service = CliffracerService(ServiceConfig("kept"), plugins={"keeper": keeper})
    assert "keeper" in load_plugins({"keeper": keeper}).infos


def test_plugin_is_refused_when_its_name_is_taken() -> None:
    """A plugin given in code cannot take the place of another one."""
    with pytest.raises(PluginError, match="two plugins are named 'core': cliffracer-core and given in code"):
        kernel(core=Greeter())


def test_plugin_is_refused_when_it_is_given_twice() -> None:
    """One object under two names is named, not registered twice."""
    greeter = Greeter()
    with pytest.raises(PluginError, match="plugin 'second' .*does not fit its hooks: ValueError"):
        kernel(first=greeter, second=greeter)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "@hookimpl\ndef cliffracer_register_setings(): return []",
            "plugin 'greeter' .* implements a hook that does not exist: .*cliffracer_register_setings",
        ),
        (
            "def cliffracer_register_settings(): return []",
            "plugin 'greeter': cliffracer_register_settings has the name of a hook and no @hookimpl; add it",
        ),
        (
            "@hookimpl\ndef cliffracer_register_settings(service): return []",
            r"plugin 'greeter' \(cliffracer-greeter 1.2.3\) does not fit its hooks: .*service",
        ),
    ],
    ids=["misspelt", "unmarked", "arguments"],
)
def test_plugin_is_refused_when_a_hook_of_it_is_wrong(install: Install, source: str, text: str) -> None:
    """A hook that would never be called, or could not be, stops the start with plugin and hook."""
    install("greeter", source)
    with pytest.raises(PluginError, match=text):
        load()


def test_plugin_is_an_instance_when_its_entry_point_is_a_class(install: Install) -> None:
    """Of a class each set of plugins has an instance of its own, which may keep state."""
    source = "class Greeter:\n    @hookimpl\n    def cliffracer_register_lifespans(self): return [self]"
    module = install("greeter", source, attribute="Greeter")
    ((_, one),) = load().ask("cliffracer_register_lifespans", service=None)
    ((_, other),) = load().ask("cliffracer_register_lifespans", service=None)
    assert type(one) is type(other) is vars(sys.modules[module])["Greeter"]
    assert one is not other


def test_plugin_is_accepted_when_it_imports_the_kernel_whole(install: Install) -> None:
    """A module named like a distribution of ours is no hook that lacks its decorator."""
    install("greeter", "import cliffracer_core\ncliffracer_label = 'text'\n" + OFFER.format("hello"))
    assert load().is_active("greeter")


# --- asking -----------------------------------------------------------------------------------------


def returning(result: object) -> object:
    class Plugin:
        @hookimpl
        def cliffracer_register_lifespans(self) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result

    return Plugin()


def test_plugin_and_hook_are_named_when_a_hook_raises() -> None:
    """A hook that fails stops the start; which plugin, which hook and what is said."""
    with pytest.raises(
        PluginError, match=r"plugin 'bad': hook cliffracer_register_lifespans .*KeyError: 'x'"
    ) as caught:
        list(kernel(bad=returning(KeyError("x"))).ask("cliffracer_register_lifespans", service=None))
    assert isinstance(caught.value.__cause__, KeyError)


def test_error_is_the_plugins_own_when_it_is_one_of_ours() -> None:
    """An error a plugin worded for its user is passed on as it is."""
    with pytest.raises(NotFoundError, match="^worded$"):
        list(kernel(bad=returning(NotFoundError("worded"))).ask("cliffracer_register_lifespans", service=None))


@pytest.mark.parametrize("result", [5, "text", b"bytes", {1, 2}, iter([]), object()])
def test_plugin_and_hook_are_named_when_a_hook_returns_something_else(result: object) -> None:
    """A hook returns a sequence or a mapping; a single string is neither."""
    with pytest.raises(PluginError, match=r"plugin 'bad': hook cliffracer_register_lifespans returned '.*'; ret"):
        list(kernel(bad=returning(result)).ask("cliffracer_register_lifespans", service=None))


def test_every_hook_of_structs_is_checked_when_it_returns_a_sequence() -> None:
    """The classes that items are checked against are those the hook specifications promise."""
    promised = {}
    for name, spec in vars(hookspecs).items():
        if name.startswith("cliffracer_"):
            inside = typing.get_args(typing.get_type_hints(spec).get("return"))
            if len(inside) == 1 and isinstance(inside[0], type) and issubclass(inside[0], msgspec.Struct):
                promised[name] = inside[0]
    assert promised
    for hook, wanted in promised.items():
        arguments = dict.fromkeys(inspect.signature(getattr(hookspecs, hook)).parameters)
        plugin = type(
            "Plugin", (), {hook: hookimpl(eval(f"lambda self{''.join(', ' + each for each in arguments)}: [5]"))}
        )
        with pytest.raises(
            PluginError, match=f"plugin 'bad': hook {hook} returned 'int' .*return {wanted.__name__} obj"
        ):
            list(kernel(bad=plugin()).ask(hook, **arguments))


def test_every_plugin_is_told_when_one_of_them_fails() -> None:
    """A notification reaches all plugins; what failed comes back, named."""
    last = Greeter()
    errors = kernel(a=returning(KeyError("x")), b=returning(NotFoundError("y")), c=last).tell(
        "cliffracer_register_lifespans", service=None
    )
    assert [str(each) for each in errors] == [
        "plugin 'a': hook cliffracer_register_lifespans failed: KeyError: 'x'",
        "y",
    ]
    assert last.asked == 1


@pytest.mark.parametrize("result", [None, [], (), {}])
def test_nothing_is_noted_when_a_hook_has_nothing(result: object) -> None:
    """None and empty answers add nothing."""
    plugins = kernel(idle=returning(result))
    assert list(plugins.ask("cliffracer_register_lifespans", service=None)) == []
    assert plugins.infos["idle"].registered == {}


def test_mapping_is_pairs_when_a_hook_returns_one() -> None:
    """A mapping's items come as pairs, each with the plugin's name."""
    assert list(kernel(maps=returning({"a": 1})).ask("cliffracer_register_lifespans", service=None)) == [
        ("maps", ("a", 1))
    ]


def test_labels_say_what_was_registered_when_plugins_are_listed() -> None:
    """`registered` names things by scheme, name or path, a type by itself, and anything else by its type."""

    class Named:
        path = "/users"

    def factory() -> None: ...

    factories = [
        TransportFactory(schemes=("bus", "buss"), create=lambda url, service: MemoryTransport()),
        Section(name="bus", type=Section),
        Named(),
        factory,
        5,
        (),
        ("key", 1),
    ]
    plugins = kernel(bus=returning(factories))
    list(plugins.ask("cliffracer_register_lifespans", service=None))
    assert plugins.infos["bus"].registered["cliffracer_register_lifespans"] == [
        "bus, buss", "bus", "/users", "factory", "int", "tuple", "str",
    ]  # fmt: skip


def test_labels_are_noted_once_when_a_hook_is_asked_again() -> None:
    """A hook that is asked for every handler, or every health check, does not grow the list for ever."""
    plugins = kernel(greeter=Greeter())
    for _ in range(3):
        list(plugins.ask("cliffracer_register_lifespans", service=None))
    assert plugins.infos["greeter"].registered == {"cliffracer_register_lifespans": ["str"]}


def test_hook_gets_what_it_names_when_it_leaves_arguments_out() -> None:
    """A plugin may leave out arguments it does not need."""

    class Without:
        @hookimpl
        def cliffracer_register_lifespans(self) -> list[str]:
            return ["without"]

    class With:
        @hookimpl
        def cliffracer_register_lifespans(self, service: str) -> list[str]:
            return [service]

    plugins = kernel(a=Without(), b=With())
    assert list(plugins.ask("cliffracer_register_lifespans", service="users")) == [("a", "without"), ("b", "users")]


# --- hooks of plugins -------------------------------------------------------------------------------

OFFERING = """
import sys

@hookspec
def cliffracer_register_greetings(name: str):
    "Offer greetings."

@hookimpl
def cliffracer_add_hookspecs(pluginmanager):
    pluginmanager.add_hookspecs(sys.modules[__name__])
"""
USING = """
@hookimpl(optionalhook=True)
def cliffracer_register_greetings(name):
    return [f"hello {name}"]
"""


def test_plugin_answers_when_another_offers_the_hook(install: Install) -> None:
    """Plugin B implements a hook that plugin A added, whichever of them is loaded first."""
    install("offering", OFFERING)
    install("a_using", USING)
    install("z_using", USING.replace("hello", "good day"))
    answers = list(load().ask("cliffracer_register_greetings", name="Ada"))
    assert answers == [("a_using", "hello Ada"), ("z_using", "good day Ada")]


def test_plugin_loads_when_nobody_offers_its_optional_hook(install: Install) -> None:
    """Under `optionalhook=True` a plugin still loads where the one that offers the hook is missing."""
    install("using", USING)
    assert load().is_active("using")


def test_plugin_is_refused_when_nobody_offers_its_hook(install: Install) -> None:
    """Without `optionalhook=True` such a hook is a misspelt one."""
    install("using", USING.replace("(optionalhook=True)", ""))
    with pytest.raises(PluginError, match="plugin 'using' .* implements a hook that does not exist"):
        load()


def test_plugins_are_named_when_an_added_hook_does_not_fit(install: Install) -> None:
    """A hook of a plugin is checked as one of the kernel's is."""
    install("offering", OFFERING)
    install("using", USING.replace("(name)", "(nmae)").replace("{name}", "{nmae}"))
    with pytest.raises(PluginError, match="plugin 'offering': hook cliffracer_add_hookspecs failed: .*'using'"):
        load()


# --- in a service -----------------------------------------------------------------------------------


async def test_plugins_are_shared_when_a_service_gets_loaded_ones() -> None:
    """Several services of one process may share one set of plugins, and `registered` then tells of all."""

    class Users(CliffracerService):
        @rpc
        def find(self) -> None: ...

    shared = kernel()
    async with Users(ServiceConfig("one"), plugins=shared), Users(ServiceConfig("two"), plugins=shared):
        assert shared.infos["core"].registered["cliffracer_register_transports"] == ["memory"]


def test_managers_are_apart_when_plugins_are_loaded_twice() -> None:
    """There is no global plugin manager: what one has loaded another does not know."""
    one, other = kernel(greeter=Greeter()), kernel()
    assert one.is_active("greeter")
    assert not other.is_active("greeter")
    assert isinstance(one.manager, pluggy.PluginManager)
    assert all(isinstance(each, ModuleType) for each in BUILTIN.values())
    assert isinstance(one.infos, Mapping)
