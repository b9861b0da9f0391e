"""What is started warm is what it would be fresh: its environment, its output, its session and its end."""

import json
import os
import signal

import pytest
from benchmarks.plant import Part, fresh

from transom.runtime.steps import POINTS

TELL = """
import json, os, sys
from transom.runtime import steps
print(json.dumps([sys.argv[1:], dict(os.environ), os.getsid(0) == os.getpid(), __name__]))
for point in json.loads(os.environ["PASSED"]):
    steps.step(point)
sys.exit(3)
"""


@pytest.fixture(params=["warm", "fresh"])
def launch(request):
    return Part.launch if request.param == "warm" else fresh


def start(launch, output, passed=(), program=TELL, **environment):
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return launch(program, "config", {**kept, "PASSED": json.dumps(passed), **environment}, output)


def test_it_is_told_what_it_is_told_and_ends_as_it_ends(launch, tmp_path):
    output = tmp_path / "output.log"
    output.write_text("before\n")
    process = start(launch, output, MARK="here")
    assert process.wait(30) == process.poll() == process.returncode == 3
    before, told = output.read_text().splitlines()
    arguments, environment, leads, name = json.loads(told)
    assert (before, arguments, leads, name) == ("before", ["config"], True, "__main__")
    assert environment.keys() - {"LC_CTYPE"} == {"PATH", "PYTHONPATH", "PASSED", "MARK"}


def test_it_dies_at_the_step_that_its_own_environment_names(launch, tmp_path):
    first, second = POINTS[:2]
    at_second = start(launch, tmp_path / "1", [first, second, first], TRANSOM_DIE_AT=f"{second}:1")
    at_none = start(launch, tmp_path / "2", [first, second, first])
    at_third = start(launch, tmp_path / "3", [first, second, first], TRANSOM_DIE_AT=f"{first}:2")
    assert [each.wait(30) for each in (at_second, at_none, at_third)] == [-signal.SIGKILL, 3, -signal.SIGKILL]


def test_it_can_be_killed_and_shows_its_fault(launch, tmp_path):
    waits = start(launch, tmp_path / "1", program="import signal; signal.pause()")
    assert waits.poll() is None
    waits.kill()
    assert waits.wait(30) == -signal.SIGKILL
    waits.kill()  # nobody is there to be hit
    fails = start(launch, tmp_path / "2", program="raise ValueError('of mine')")
    assert fails.wait(30) == 1
    assert "ValueError: of mine" in (tmp_path / "2").read_text()
