"""Kinds of your own: a class with typed fields is a kind, in a module that the configuration names.

    KINDS = [kind(Database, group="acme.example", short_names=("db",), columns={"ENGINE": "spec.engine"})]

The module is read by hub and region both, so it imports `transom.model` alone. Controllers (`CONTROLLERS`,
for the hub) and drivers (`DRIVERS`, for regions) stand in it or, when it is a package, in its `controller`
and `driver`, of which each side loads its own. Next: `regional` for what is one thing in each region.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pydantic import BaseModel

from transom.model.errors import InvalidError, Problem
from transom.model.kinds import PEOPLE, Column, Kind, Spec
from transom.model.names import is_label, is_subdomain
from transom.model.resources import API_GROUP, Resource

ENTRY_POINTS = "transom.kinds"
"""The group of entry points that name modules of kinds: what is installed is there without configuration."""

_NAME = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_VERSION = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")
_RESERVED = re.compile(rf"(.*\.)?({re.escape(API_GROUP)}|k8s\.io|kubernetes\.io)")

Show = str | Callable[[Resource], str]


def kind(
    spec: type[Spec],
    *,
    group: str,
    name: str = "",
    plural: str = "",
    columns: Mapping[str, Show] | None = None,
    status: type[BaseModel] | None = None,
    status_owner: str = PEOPLE,
    **about: Any,
) -> Kind:
    """The kind of a class: called as the class is, its plural with an s, its status written through the API.

    `group` is yours, as acme.example; `columns` are titles with a path ("spec.engine") or a function of the
    resource. `about` is what `Kind` takes besides. What does not fit is told when the module is loaded.
    """
    name = name or spec.__name__
    return Kind(
        name=name,
        plural=plural or plural_of(name),
        spec=spec,
        group=group,
        status=status,
        status_owner=status_owner,
        columns=tuple(Column(title, _shower(show)) for title, show in (columns or {}).items()),
        **about,
    )


def plural_of(name: str) -> str:
    """The plural that English has for most names: databases, policies, boxes."""
    word = name.lower()
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def _shower(show: Show) -> Callable[[Resource], str]:
    if not isinstance(show, str):
        return show
    first, *rest = show.split(".")

    def shown(resource: Resource) -> str:
        value: Any = {"spec": resource.spec, "status": resource.status}.get(first)
        for name in rest:
            value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
        if isinstance(value, list):
            return ",".join(map(str, cast("list[Any]", value)))
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    return shown


# --- the modules that hold them ------------------------------------------------------------------------


class OwnKinds:
    """What `modules` bring, and those that installed packages name as entry points. One that ends in ".py" is
    a file in `folder`, any other must be importable.

    Raises `InvalidError` at construction, with every mistake.
    """

    def __init__(self, modules: Iterable[str], folder: Path = Path()) -> None:
        self._loaded_before = frozenset(sys.modules)
        self._modules: dict[str, ModuleType] = {}
        self.kinds: list[Kind] = []
        problems: list[Problem] = []
        named = [point.value for point in entry_points(group=ENTRY_POINTS)]
        for name in dict.fromkeys([*modules, *named]):
            try:
                module = _from_file(folder / name) if name.endswith(".py") else import_module(name)
            except Exception as error:  # noqa: BLE001  # whatever a module of somebody else's raises
                problems.append(Problem(name, f"cannot be imported: {type(error).__name__}: {error}"))
                continue
            self._modules[name] = module
            listed = list(getattr(module, "KINDS", ()))
            if not listed:
                problems.append(Problem(name, "has no list KINDS with a kind in it"))
            for each in listed:
                problems += _mistakes(name, each)
            self.kinds += listed
        if problems:
            raise InvalidError("kind_modules", problems)

    def controllers(self) -> list[Any]:
        """What the modules list as CONTROLLERS, for the hub. Raises `InvalidError`."""
        return [each for _, listed in self._listed("CONTROLLERS", "controller") for each in listed]

    def drivers(self) -> dict[str, Any]:
        """What the modules have as DRIVERS, by the name of the kind they make, for a region.

        Raises `InvalidError`, also when a module loads what belongs to the hub.
        """
        drivers: dict[str, Any] = {}
        problems: list[Problem] = []
        made = {kind.name for kind in self.kinds if kind.region_of is not None}
        there = ", ".join(self._modules)
        for module, found in self._listed("DRIVERS", "driver"):
            for name, driver in dict(found).items():
                if name not in made:
                    problems.append(Problem(module, f"DRIVERS names {name!r}, which is no kind for regions"))
                drivers[name] = driver
        problems += [
            Problem(there, f"no DRIVERS has one for {name!r}, which regions are to make")
            for name in sorted(made - drivers.keys())
        ]
        hubs = {name for name in sys.modules if name.startswith("transom.hub")} - self._loaded_before
        if hubs:
            wrong = f"loads {min(hubs)}, which a region must not; what the hub runs belongs into a package's"
            problems.append(Problem(there, f"{wrong} controller.py"))
        if problems:
            raise InvalidError("kind_modules", problems)
        return drivers

    def _listed(self, what: str, submodule: str) -> Iterator[tuple[str, Any]]:
        for name, module in self._modules.items():
            found = getattr(module, what, None)
            if found is None and hasattr(module, "__path__") and find_spec(f"{name}.{submodule}"):
                try:
                    found = getattr(import_module(f"{name}.{submodule}"), what)
                except Exception as error:  # noqa: BLE001
                    wrong = f"cannot be imported with its {what}: {type(error).__name__}: {error}"
                    raise InvalidError("kind_modules", [Problem(f"{name}.{submodule}", wrong)]) from None
            if found is not None:
                yield name, found


def _from_file(path: Path) -> ModuleType:
    path = path.resolve()
    there = sys.modules.get(path.stem)
    if there is not None:
        if there.__file__ != str(path):
            raise ImportError(f"a module called {path.stem!r} is there already; give the file another name")
        return there
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("is no file of Python")
    module = sys.modules[path.stem] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _mistakes(module: str, each: Any) -> Iterator[Problem]:
    if not isinstance(each, Kind):
        yield Problem(module, f"KINDS holds {each!r}, which is no kind; make it with kind(…)")
        return
    where = f"{module}: {each.name}"
    if not _NAME.fullmatch(each.name):
        yield Problem(where, "the name must be CamelCase, as DatabaseCluster")
    if not is_label(each.plural):
        yield Problem(where, f"the plural {each.plural!r} must be a word in lower case, as databases")
    if not is_subdomain(each.group) or "." not in each.group or _RESERVED.fullmatch(each.group):
        yield Problem(where, f"the group {each.group!r} must be a domain of your own, as acme.example")
    if not _VERSION.fullmatch(each.version):
        yield Problem(where, f"the version {each.version!r} must be as v1 or v1beta2")
    for name in each.short_names:
        if not is_label(name):
            yield Problem(where, f"the short name {name!r} must be a word in lower case, as db")
    spec: Any = each.spec
    if not (isinstance(spec, type) and issubclass(spec, Spec) and spec.model_fields):
        yield Problem(where, "its class must inherit from Spec and have a field")
