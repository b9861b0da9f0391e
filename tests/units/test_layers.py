"""Imports go down only. The contracts are in `.importlinter`; here they are run, and seen to bite."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import transom

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / ".importlinter"
PACKAGE = Path(transom.__file__).parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over the package that `folder` holds."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", CONTRACTS, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_go_down_only() -> None:
    done = lint(PACKAGE.parent)
    assert done.returncode == 0, done.stdout + done.stderr


# For each contract an import that it must refuse.
FORBIDDEN = {
    "model/names.py": "transom.runtime.clock",
    "runtime/signals.py": "transom.catalog.kinds",
    "logs/rules.py": "aiokafka",
    "tables/core.py": "transom.region.driver",
    "links/naming.py": "transom.hub.changes",
    "region/planning.py": "transom.links.naming",
    "region/topics.py": "transom.hub.changes",
    "region/gateway/service.py": "transom.links.naming",
    "hub/changes.py": "transom.region.driver",
    "hub/relay.py": "sqlalchemy",
    "catalog/tenant/kind.py": "transom.logs.protocol",
    "catalog/deployment/controller.py": "transom.region.driver",
    "catalog/deployment/driver.py": "transom.links.naming",
    "client/config.py": "transom.logs.protocol",
    "cli/output.py": "transom.region.topics",
    "links/positions.py": "sqlite3",
    "hub/archive.py": "psycopg",
}


def test_every_contract_bites(tmp_path: Path) -> None:
    copy = tmp_path / "transom"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file, module in FORBIDDEN.items():
        with (copy / file).open("a") as source:
            source.write(f"\n\ndef _late() -> None:\n    import {module}\n")
    done = lint(tmp_path)
    names = [
        line.removeprefix("name = ") for line in CONTRACTS.read_text().splitlines() if line[:6] == "name ="
    ]
    assert len(names) > 10
    unbitten = [name for name in names if f"{name} BROKEN" not in done.stdout]
    assert unbitten == [], done.stdout + done.stderr


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_regions_process_loads_neither_the_hub_nor_its_database() -> None:
    modules = loaded_by("transom.processes.region")
    assert "transom.region.service" in modules
    assert {name for name in modules if name.split(".")[0] in {"sqlalchemy", "alembic"}} == set()
    assert {name for name in modules if name.startswith(("transom.hub", "transom.links"))} == set()
    assert {name for name in modules if name.endswith(".controller")} == set()


def test_a_gateways_process_loads_neither_the_hub_nor_what_runs_apps() -> None:
    modules = loaded_by("transom.processes.gateway")
    assert "transom.region.gateway.service" in modules
    assert {name for name in modules if name.split(".")[0] in {"sqlalchemy", "alembic"}} == set()
    assert {name for name in modules if name.startswith(("transom.hub", "transom.links"))} == set()
    assert {name for name in modules if name.endswith((".controller", ".driver"))} == set()
    assert {name for name in modules if name.startswith("transom.region.drivers")} == set()


def test_the_hubs_process_loads_no_region_and_no_driver() -> None:
    modules = loaded_by("transom.processes.hub")
    assert "transom.hub.store" in modules
    assert {
        name for name in modules if name.startswith("transom.region") or name.endswith(".driver")
    } == set()


def test_the_command_line_starts_without_what_only_processes_need() -> None:
    modules = loaded_by("transom.cli.main")
    assert {
        name for name in modules if name.startswith(("transom.hub", "transom.region", "sqlalchemy"))
    } == set()


@pytest.mark.parametrize("process", ["hub", "region", "gateway"])
def test_a_process_loads_no_client_of_an_engine_that_it_was_not_told_to_use(process: str) -> None:
    modules = {name.split(".")[0] for name in loaded_by(f"transom.processes.{process}")}
    assert "transom" in modules
    assert modules & {"aiokafka", "psycopg", "psycopg_binary"} == set()
