"""The README's tour, run as it is printed: its commands, and what it says that they print.

`…` in the README stands for anything; runs of blanks are equal, as the widths
of columns depend on what is in them.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines.process import free_ports

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60


def steps():
    """(command, expected lines) of every console block, in order; a here-document belongs to its command."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        inside = ""
        for line in block.splitlines():
            if inside:
                found[-1][0] += f"\n{line}"
                inside = "" if line == inside else inside
            elif line.startswith("$ "):
                found.append([line[2:], []])
                here = re.search(r"<<'(\w+)'", line)
                inside = here.group(1) if here else ""
            else:
                found[-1][1].append(line)
    return found


def matches(printed, expected):
    """Whether what was printed is what the README shows."""
    pattern = "".join(
        "(?:.*\n)*" if line.strip() == "…" else r"\s*".join(map(_part, line.split())) + "\n"
        for line in expected
    )
    return re.fullmatch(pattern, printed.strip() + "\n" if printed.strip() else "") is not None


def _part(word):
    return "".join(".*" if piece == "…" else re.escape(piece) for piece in re.split("(…)", word))


def test_matching_can_fail():
    assert matches("a  b 3s\nx\ny", ["a b …", "…"])
    assert not matches("a  c 3s", ["a b …"])
    assert not matches("error", [])


class Shell:
    """One interactive shell, as a reader of the README has it."""

    def __init__(self, folder, base):
        self.base = base
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.process = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, command):
        """What `command` prints. The README's ports are exchanged for free ones, both ways."""
        for number in range(7):
            command = command.replace(f"127.0.0.1:{8480 + number}", f"127.0.0.1:{self.base + number}")
        self.process.stdin.write(f"{command}\necho '--done--'\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == "--done--":
                break
            lines.append(line)
        printed = "".join(lines)
        for number in range(7):
            printed = printed.replace(f"127.0.0.1:{self.base + number}", f"127.0.0.1:{8480 + number}")
        return printed


@pytest.fixture
def shell(tmp_path):
    base = free_ports(7)
    shell = Shell(tmp_path, base)
    command = [Path(sys.executable).parent / "transom", "up", "--demo", "--port", str(base)]
    with (tmp_path / "up.txt").open("w") as output:
        up = subprocess.Popen(
            command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "Ctrl-C here ends" not in (tmp_path / "up.txt").read_text():
            assert up.poll() is None, (tmp_path / "up.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "up.txt").read_text()
            time.sleep(0.05)
        yield shell
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(DEADLINE_SECONDS) == 0
        os.killpg(shell.process.pid, signal.SIGKILL)
        shell.process.communicate()


@pytest.mark.timeout(180)
def test_the_tour_works_as_printed(shell, tmp_path):
    (demo, shown), *tour = steps()
    assert demo == "make demo"
    assert "transom up --demo" in (ROOT / "Makefile").read_text()
    text = (tmp_path / "up.txt").read_text()
    for number in range(7):
        text = text.replace(f"127.0.0.1:{shell.base + number}", f"127.0.0.1:{8480 + number}")
    assert matches(text, shown), text
    assert len(tour) > 20
    for command, expected in tour:
        printed = shell.run(command)
        assert matches(printed, expected), f"$ {command}\n{printed}\n--- the README says ---\n" + "\n".join(
            expected
        )
