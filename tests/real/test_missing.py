"""Tests of a missing engine are skipped and one line says so; where engines are required, they fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS_KAFKA = ["tests/real/test_bad_roads.py::test_what_is_delayed_keeps_its_order"]
NEEDS_KAFKA += ["tests/real/test_bad_roads.py::test_a_stalled_road_goes_on_where_it_was"]


def run(tmp_path: Path, required: str) -> subprocess.CompletedProcess[str]:
    """Two tests that need Kafka, without Java."""
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *NEEDS_KAFKA],
        cwd=ROOT,
        env={**environment, "PATH": str(tmp_path), "TRANSOM_REQUIRE_ENGINES": required},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_java_they_are_skipped_and_one_line_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "")
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "NOT TESTED" in line]
    assert "NOT TESTED: Java is missing; on Debian: apt install" in line
    assert "(2 tests skipped)" in line


def test_where_engines_are_required_a_missing_one_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "1")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "TRANSOM_REQUIRE_ENGINES is set, and Java is missing" in done.stdout
    assert "2 errors" in done.stdout
