"""Rules of the repository that no other tool holds."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.runtime.steps import POINTS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "transom"
MODULES = sorted(SOURCE.rglob("*.py"))
DEMO = SOURCE / "processes" / "demo_app.py"
"""An app, not a part: it runs with nothing but the standard library."""
LINES_MAX = 400
FOLDERS = ("src", "tests", "docs", "engines", "benchmarks", "examples", "requirements", ".ci")
TOP = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "pyproject.toml",
    ".importlinter",
    ".gitignore",
)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def texts() -> Iterator[tuple[Path, str]]:
    """Every file that people read."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))]
    for path in [*paths, *(ROOT / name for name in TOP)]:
        if path.is_file() and not {"__pycache__", ".jars"} & set(path.parts) and path != Path(__file__):
            yield path, path.read_text(encoding="utf-8", errors="replace")


def calls_of(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The calls in a module, each with the dotted name that is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 50
    assert sum(1 for _ in texts()) > len(MODULES)


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_module_fits_and_says_what_it_is(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX, "make it a folder, or divide it by what it is about"
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "say what it is, why, and which module comes next"


def test_every_durable_step_has_a_point_and_every_point_a_step() -> None:
    steps: list[str] = []
    for module in MODULES:
        for name, call in calls_of(module):
            if name in {"step", "steps.step"}:
                (argument,) = call.args
                assert isinstance(argument, ast.Constant), (
                    f"{named(module)}: a point is named where it stands"
                )
                steps.append(str(argument.value))
    assert set(steps) == set(POINTS)
    assert len(steps) == len(set(steps)), "two steps with one name cannot be told apart"
    assert list(POINTS) == sorted(POINTS, key=lambda point: point.partition(".")[0])


CLOCK, DICE = SOURCE / "runtime" / "clock.py", SOURCE / "runtime" / "randomness.py"


@pytest.mark.parametrize("module", [path for path in MODULES if path not in (CLOCK, DICE, DEMO)], ids=named)
def test_time_and_randomness_enter_through_runtime(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported & {"random", "secrets"} == set()
    outside = re.compile(
        r"time\.(time|monotonic|perf_counter|sleep)(_ns)?|(datetime\.)*(now|utcnow|today)"
        r"|(uuid\.)?uuid[14]|os\.urandom"
    )
    assert [name for name, _ in calls_of(module) if outside.fullmatch(name)] == []
    # asyncio.sleep(0) lets others run; any other sleep is time.
    sleeps = [ast.unparse(call) for name, call in calls_of(module) if name == "asyncio.sleep"]
    assert set(sleeps) <= {"asyncio.sleep(0)"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "time"]


RACE = SOURCE / "logs" / "server.py"
"""Races a call against the client's leaving, and awaits both before it returns."""
OUTSIDE_RUNTIME = [path for path in MODULES if path.parent.name != "runtime" and path not in (RACE, DEMO)]


@pytest.mark.parametrize("module", OUTSIDE_RUNTIME, ids=named)
def test_tasks_belong_to_groups(module: Path) -> None:
    loose = re.compile(
        r"asyncio\.(create_task|ensure_future)|.*loop(\(\))?\.create_task|Thread|threading\.Thread"
    )
    assert [name for name, _ in calls_of(module) if loose.fullmatch(name)] == []


def test_nothing_names_the_machine_it_was_written_on() -> None:
    place = re.compile(r"(?<![\w$}<.])/(?:home|Users|root|work)/\w+")
    found = [f"{named(path)}: {hit.group()}" for path, text in texts() for hit in place.finditer(text)]
    assert found == []


def test_requirements_are_pinned_hashed_and_name_no_registry() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host|file:|@ ", text), (
            path
        )
        wanted = [line for line in text.splitlines() if re.match(r"\w", line)]
        assert wanted
        assert [line for line in wanted if not re.match(r"[\w.\[\]-]+==\S+", line)] == []
        assert text.count("--hash=sha256:") >= len(wanted)


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?! )|raise NotImplementedError")
    found = [named(path) for path, text in texts() if path.suffix == ".py" and later.search(text)]
    assert found == []
