"""Controllers and injectables."""

# ruff: noqa: B008 - `inject()` as a default is how it is used

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cliffracer_core import ClientProxy, CliffracerService, ServiceConfig
from cliffracer_core.context import MessageContext
from cliffracer_core.errors import ConfigurationError
from cliffracer_core.handlers import Controller, EventPattern, Injectable, MessagePattern, inject
from cliffracer_core.injection import Builder
from cliffracer_core.testing import Collector, unique

if TYPE_CHECKING:
    from fractions import Fraction


@Injectable()
class Database:
    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}


@Injectable()
class UserService:
    def __init__(self, database: Database = inject()) -> None:
        self.database = database

    async def create(self, data: dict[str, Any]) -> dict[str, Any]:
        self.database.users[data["id"]] = data
        return data

    async def find_by_id(self, id: str) -> dict[str, Any] | None:
        return self.database.users.get(id)


class Plain:
    pass


@Injectable()
class Egg:
    def __init__(self, hen: Hen = inject()) -> None: ...


@Injectable()
class Hen:
    def __init__(self, egg: Egg = inject()) -> None: ...


@Controller()
class UserMicroserviceController:
    """Document 003's example, as it is written there but for imports and the printing."""

    def __init__(self, user_service=inject(), seen=inject(Collector)):  # type: ignore[no-untyped-def]
        self.user_service = user_service
        self.seen = seen

    @MessagePattern("user.create")
    async def handle_create_user(self, data: dict, context: MessageContext):  # type: ignore[no-untyped-def, type-arg]
        """Handle user creation request."""
        user = await self.user_service.create(data)
        return {"success": True, "user": user}

    @MessagePattern("user.get")
    async def handle_get_user(self, data: dict, context: MessageContext):  # type: ignore[no-untyped-def, type-arg]
        """Handle get user request."""
        user = await self.user_service.find_by_id(data["id"])
        if not user:
            return {"success": False, "error": "User not found"}
        return {"success": True, "user": user}

    @EventPattern("user.created")
    async def handle_user_created_event(self, data: dict, context: MessageContext):  # type: ignore[no-untyped-def, type-arg]
        """Handle user created event."""
        self.seen((data, context.pattern))


class Users(CliffracerService):
    controllers = (UserMicroserviceController,)
    injectables = (UserService,)


@pytest.fixture(autouse=True)
def kernel_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("CLIFFRACER_PLUGINS", "")
    monkeypatch.chdir(tmp_path)


def builder(*injectables: type, **replaced: object) -> Builder:
    return Builder(injectables, replaced)


async def test_controller_serves_when_written_as_in_the_reference() -> None:
    """The third document's controller, with `user_service=inject()`, answers requests and events."""
    seen: Collector[Any] = Collector()
    url = f"memory://{unique()}"
    service = Users(ServiceConfig("users", transport=url), replace={Collector: seen})
    async with service, ClientProxy(transport=url) as client:
        created = await client.send(pattern="user.create", data={"id": "123", "name": "John"})
        assert created == {"success": True, "user": {"id": "123", "name": "John"}}
        assert await client.send("user.get", {"id": "123"}) == created
        assert await client.send("user.get", {"id": "9"}) == {"success": False, "error": "User not found"}
        await client.emit("user.created", {"id": "123"})
        assert await seen.at_least(1) == [({"id": "123"}, "user.created")]


def test_instance_is_one_when_several_ask_for_it() -> None:
    """Of each injectable there is one per service, and another service has its own."""

    class Both:
        def __init__(self, first: UserService = inject(), database: Database = inject(), other=inject(Database)):  # type: ignore[no-untyped-def]
            self.parts = (first.database, database, other)

    one, other = builder(), builder()
    built: Any = one.build(Both)
    assert len(set(map(id, built.parts))) == 1
    assert one.build(Database) is built.parts[0]
    assert other.build(Database) is not built.parts[0]
    assert Database in one.built


def test_classes_are_named_when_they_need_each_other() -> None:
    """A circle is an error that shows its whole way."""
    with pytest.raises(ConfigurationError, match="injectables need each other: Hen -> Egg -> Hen; break the circle"):
        builder().build(Hen)


def test_builder_still_works_when_a_constructor_failed() -> None:
    """An error in one constructor does not make a later build look like a circle."""
    failures = [ZeroDivisionError("first time"), None]

    @Injectable()
    class Fragile:
        def __init__(self) -> None:
            error = failures.pop(0)
            if error:
                raise error

    maker = builder()
    with pytest.raises(ZeroDivisionError):
        maker.build(Fragile)
    assert isinstance(maker.build(Fragile), Fragile)


def test_parameter_is_filled_by_name_when_its_class_is_listed() -> None:
    """A bare `inject()` finds a listed class by its name in snake case, acronyms included."""

    @Injectable()
    class HTTPClient: ...

    @Injectable()
    class UserDB2Cache: ...

    class Wants:
        def __init__(self, http_client=inject(), user_db2_cache=inject(), limit: int = 5):  # type: ignore[no-untyped-def]
            self.parts = (type(http_client), type(user_db2_cache), limit)

    wants: Any = builder(HTTPClient, UserDB2Cache).build(Wants)
    assert wants.parts == (HTTPClient, UserDB2Cache, 5)


@pytest.mark.parametrize("known", [(), (UserService, Database)])
def test_parameter_is_named_when_nothing_fits_it(known: tuple[type, ...]) -> None:
    """A parameter that asks for what is not there names itself, what is known, and the remedy."""

    class Wants:
        def __init__(self, nobody=inject()): ...  # type: ignore[no-untyped-def]

    names = "database, user_service" if known else "none"
    with pytest.raises(
        ConfigurationError, match=rf"constructor of Wants: .* 'nobody' \(known by name: {names}\); annotate"
    ):
        builder(*known).build(Wants)


def test_class_is_refused_when_it_is_no_injectable() -> None:
    """A class that nobody marked is not built behind its author's back."""

    class Wants:
        def __init__(self, plain: Plain = inject()): ...

    with pytest.raises(ConfigurationError, match=r"nothing to inject for 'plain' .*annotate it with an @Injectable"):
        builder().build(Wants)


def test_annotation_is_named_when_it_cannot_be_resolved() -> None:
    """A type imported for type checkers only is named with where to import it."""

    class Wants:
        def __init__(self, part: Fraction = inject()): ...

    with pytest.raises(
        ConfigurationError, match="constructor of Wants: name 'Fraction' .*import the type at module level"
    ):
        builder().build(Wants)


def test_object_is_used_when_a_test_replaces_it() -> None:
    """`replace` takes the parameter's name, the class, or the class's name, and builds nothing then."""

    class Wants:
        def __init__(self, store: Database = inject()) -> None:
            self.store = store

    fake = Database()
    for maker in (builder(store=fake), Builder((), {Database: fake}), builder(database=fake)):
        wants: Any = maker.build(Wants)
        assert wants.store is fake
        assert Database not in maker.built
    assert Builder((), {Hen: "a hen"}).build(Hen) == "a hen"


def test_replacement_breaks_a_circle_when_one_of_them_is_replaced() -> None:
    """What is replaced is not built, so that what it needs does not matter."""
    assert isinstance(Builder((), {Egg: object()}).build(Hen), Hen)
