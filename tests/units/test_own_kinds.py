"""Kinds that somebody adds: what a module says, and every mistake in it, told at start."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.kinds import shipped
from transom.hub.controllers import check_controllers
from transom.hub.regional import regional_controllers
from transom.model.errors import InvalidError
from transom.model.kinds import PEOPLE, Catalog, Spec
from transom.model.own import OwnKinds, kind, plural_of
from transom.model.regional import InRegion, Regional, regional
from transom.model.resources import Metadata, Resource

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-own-kind" / "databases.py"

NOTE = """
from transom.model.kinds import Spec
from transom.model.own import kind
class Note(Spec):
    text: str
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module; it is forgotten when the test is over."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def written(name, text):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
        return tmp_path

    yield written
    for name in set(sys.modules) - before:
        if not name.startswith("transom"):
            del sys.modules[name]


class Note(Spec):
    text: str
    done: bool = False
    tags: list[str] = Field(default_factory=list)


def note(**spec):
    return Resource("Note", Metadata("a", "acme"), spec=spec, status={"seen": 3})


# --- one kind ------------------------------------------------------------------------------------------


def test_a_class_with_fields_is_a_kind():
    columns = {
        "TEXT": "spec.text",
        "DONE": "spec.done",
        "TAGS": "spec.tags",
        "SEEN": "status.seen",
        "NO": "spec.x.y",
    }
    made = kind(Note, group="acme.example", short_names=("nt",), columns=columns)
    assert (made.name, made.plural, made.api_version) == ("Note", "notes", "acme.example/v1")
    assert (made.owner, made.status_owner, made.namespaced) == (PEOPLE, PEOPLE, True)
    shown = made.validate(note(text="x", tags=["a", "b"]))
    assert [column.show(shown) for column in made.columns] == ["x", "false", "a,b", "3", ""]
    assert shipped([made]).named("nt") is made
    assert shipped([made]).served("acme.example", "v1", "notes") is made
    with pytest.raises(InvalidError, match=r"spec\.text.*spec\.size: unknown field"):
        made.validate(note(size=1))


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("Database", "databases"),
        ("Policy", "policies"),
        ("Key", "keys"),
        ("Box", "boxes"),
        ("Branch", "branches"),
    ],
)
def test_names_have_the_plural_that_english_has(name, plural):
    assert plural_of(name) == plural


# --- modules -------------------------------------------------------------------------------------------


def test_a_module_brings_its_kinds(write):
    folder = write("notes.py", f'{NOTE}KINDS = [kind(Note, group="acme.example")]')
    for named in ("notes", "notes.py"):
        (found,) = OwnKinds([named], folder).kinds
        assert found.qualified == "notes.acme.example"
    assert OwnKinds(["notes", "notes"], folder).kinds == [found]


def test_installed_packages_name_theirs_as_entry_points(write, tmp_path):
    write("notes.py", f'{NOTE}KINDS = [kind(Note, group="acme.example")]')
    write("notes-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: notes\nVersion: 1\n")
    write("notes-1.dist-info/entry_points.txt", "[transom.kinds]\nnotes = notes\n")
    assert [found.name for found in OwnKinds([]).kinds] == ["Note"]


MISTAKES = {
    "": "has no list KINDS",
    "KINDS = [1]": "KINDS holds 1, which is no kind",
    "import nowhere_to_be_found": "cannot be imported: ModuleNotFoundError",
    "1 / 0": "cannot be imported: ZeroDivisionError",
    'KINDS = [kind(Note, group="acme.example", plural="No tes")]': "the plural 'No tes'",
    'KINDS = [kind(Note, group="acme.example", name="note")]': "the name must be CamelCase",
    'KINDS = [kind(Note, group="acme")]': "the group 'acme' must be a domain of your own",
    'KINDS = [kind(Note, group="transom.dev")]': "the group 'transom.dev' must be a domain of your own",
    'KINDS = [kind(Note, group="apps.k8s.io")]': "the group 'apps.k8s.io' must be",
    'KINDS = [kind(Note, group="")]': "the group '' must be",
    'KINDS = [kind(Note, group="a.b", version="1")]': "the version '1' must be as v1",
    'KINDS = [kind(Note, group="a.b", short_names=("N T",))]': "the short name 'N T'",
    'class Empty(Spec): pass\nKINDS = [kind(Empty, group="a.b")]': "from Spec and have a field",
    'KINDS = [kind(int, group="a.b")]': "its class must inherit from Spec",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_every_mistake_of_a_module_is_one_error(write, text):
    folder = write("notes.py", f"{NOTE}\n{text}\n")
    with pytest.raises(InvalidError) as caught:
        OwnKinds(["notes.py"], folder)
    assert MISTAKES[text] in str(caught.value)
    assert all(problem.path.startswith("notes") for problem in caught.value.problems)


def test_all_modules_are_told_of_at_once(write):
    folder = write("json.py", "")
    with pytest.raises(
        InvalidError, match=r"no_such: cannot.*json\.py: cannot.*called 'json' is there.*gone\.py"
    ):
        OwnKinds(["no_such", "json.py", "gone.py"], folder)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ('name="Tenant"', "Tenant: owned twice"),
        ('plural="deployments"', "Note: the name 'deployments' already means Deployment"),
        ('short_names=("deploy",)', "Note: the name 'deploy' already means Deployment"),
        ('owner="n", reads=("Note",)', "reads itself through Note -> Note"),
        ('owner="n", reads=("Nothing",)', "reads 'Nothing', which is not a kind"),
    ],
)
def test_what_does_not_fit_the_kinds_that_ship_is_refused(write, about, said):
    folder = write("notes.py", f'{NOTE}KINDS = [kind(Note, group="acme.example", {about})]')
    with pytest.raises(InvalidError) as caught:
        shipped(OwnKinds(["notes.py"], folder).kinds)
    assert said in str(caught.value)


def test_a_kind_with_an_owner_needs_its_controller(write):
    folder = write("notes.py", f'{NOTE}KINDS = [kind(Note, group="a.b", owner="n", reads=("Region",))]')
    own = OwnKinds(["notes.py"], folder)
    with pytest.raises(InvalidError, match="Note: its owner 'n' is not there"):
        check_controllers(shipped(own.kinds), own.controllers())


# --- controllers and drivers ---------------------------------------------------------------------------

PART = """
from transom.model.regional import InRegion, Regional, regional
class Thing(Regional):
    size: int
    def in_region(self, region):
        return ThingThere(size=self.size)
class ThingThere(InRegion):
    size: int
KINDS = regional(Thing, ThingThere, group="acme.example")
"""


def test_each_side_loads_its_own_part_of_a_package(write):
    write("things/__init__.py", PART)
    write("things/controller.py", "import transom.hub.changes\nCONTROLLERS = ['mine']")
    write("things/driver.py", "DRIVERS = {'ThingThere': 'makes it'}")
    own = OwnKinds(["things"])
    assert own.drivers() == {"ThingThere": "makes it"}
    assert "things.controller" not in sys.modules
    assert own.controllers() == ["mine"]
    assert OwnKinds(["things"]).kinds == own.kinds


@pytest.mark.parametrize(
    ("drivers", "said"),
    [
        ("", "no DRIVERS has one for 'ThingThere'"),
        ("DRIVERS = {'ThingThere': 1, 'Thing': 2}", "DRIVERS names 'Thing', which is no kind for regions"),
    ],
)
def test_a_region_has_a_driver_for_each_kind_it_is_to_make(write, drivers, said):
    folder = write("things.py", PART + drivers)
    with pytest.raises(InvalidError, match=said):
        OwnKinds(["things.py"], folder).drivers()


def test_a_broken_driver_is_one_error(write):
    write("things/__init__.py", PART)
    write("things/driver.py", "import nowhere_to_be_found")
    with pytest.raises(
        InvalidError, match=r"things\.driver: cannot be imported with its DRIVERS: ModuleNotFound"
    ):
        OwnKinds(["things"]).drivers()


def test_a_region_refuses_a_module_that_loads_the_hub(write):
    folder = write("things.py", PART + "import transom.hub.changes\nDRIVERS = {'ThingThere': 1}")
    done = loading(f"OwnKinds([{str(folder / 'things.py')!r}]).drivers()")
    assert "loads transom.hub, which a region must not" in done.stderr


def test_the_example_loads_neither_side_and_is_short():
    done = loading(f"OwnKinds([{str(EXAMPLE)!r}]).drivers(); print(*sys.modules)")
    assert "databases" in done.stdout.split()
    assert not [name for name in done.stdout.split() if name.startswith(("transom.hub", "transom.region"))]
    assert len(EXAMPLE.read_text().splitlines()) < 40


def loading(code):
    """What a process says that does this."""
    start = f"import sys; from transom.model.own import OwnKinds; {code}"
    return subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)


# --- regional kinds ------------------------------------------------------------------------------------


class Lamp(Regional):
    watts: int

    def in_region(self, region):
        return LampThere(watts=self.watts, first=region == self.regions[0])


class LampThere(InRegion):
    watts: int
    first: bool


def test_a_regional_kind_is_two_with_a_controller():
    whole, part = regional(Lamp, LampThere, group="acme.example", short_names=("lp",))
    catalog = shipped([whole, part])
    (controller,) = regional_controllers([whole, part])
    check_controllers(catalog, [controller, DeploymentController()])
    assert (controller.primary, controller.owns, controller.name) == ("Lamp", "LampThere", "lamp-controller")
    assert (catalog.layers["Lamp"], catalog.layers["LampThere"]) == (0, 1)
    assert (part.owner, part.status_owner, whole.status_owner) == (
        "lamp-controller",
        "region",
        "lamp-controller",
    )
    asked = part.expand(Resource("Lamp", Metadata("a"), spec={"watts": 5, "regions": ["eu", "us"]}), "us")
    assert asked == {"watts": 5, "first": False, "region": "", "zone": ""}
    for wrong in ([], ["eu", "eu"], ["E U"]):
        with pytest.raises(InvalidError, match=r"spec\.regions"):
            whole.validate(Resource("Lamp", Metadata("a", "acme"), spec={"watts": 5, "regions": wrong}))


def test_classes_that_make_no_regional_kind_are_refused():
    class Silent(Regional):
        watts: int

    class Zoned(InRegion):
        zones: dict[str, int]

    with pytest.raises(
        InvalidError, match="Zoned: a field cannot be called zones; Silent: has no method in_region"
    ):
        regional(Silent, Zoned, group="acme.example")


def test_a_catalog_refuses_two_owners_of_one_plural():
    one, other = kind(Note, group="a.b"), kind(Note, group="c.d", name="Other", plural="notes")
    with pytest.raises(InvalidError, match="Other: the name 'notes' already means Note"):
        Catalog([one, other])
