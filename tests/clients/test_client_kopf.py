"""kopf: an operator that nobody here knows of, over a kind of one's own."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clients_parts import gadget, until

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "how-to" / "kubectl.md"


@pytest.fixture
def operator(hub, tmp_path):
    (line,) = re.findall(r"^\$ kopf (.*)", PAGE.read_text(), re.MULTILINE)
    words = [sys.executable, "-m", "kopf", *shlex.split(line)]
    with (tmp_path / "operator.log").open("w") as log:
        env = {**os.environ, "KUBECONFIG": str(hub.kubeconfig), "HOME": str(tmp_path)}
        process = subprocess.Popen(words, env=env, cwd=HERE, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield tmp_path / "operator.log"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def test_an_operator(new_kubectl, operator, name):
    def painted():
        return new_kubectl("get", "gadget", name, "-o", "jsonpath={.status.painted}")

    new_kubectl("create", "-f", "-", stdin=gadget(name, {"paint": "yes"}, colour="red"))
    other = f"{name}-other"
    new_kubectl("create", "-f", "-", stdin=gadget(other, {"paint": "no"}, colour="red"))
    try:
        until(lambda: painted() == "red")
        finalizers = new_kubectl("get", "gadget", name, "-o", "jsonpath={.metadata.finalizers}")
        assert finalizers == '["clients.example/painter"]'
        new_kubectl("patch", "gadget", name, "--type=merge", "-p", '{"spec":{"colour":"blue"}}')
        until(lambda: painted() == "blue")
        new_kubectl("delete", "gadget", name, "--timeout=60s")
    except BaseException as error:
        error.add_note(operator.read_text()[-3000:])
        raise
    assert f"cleaned {name}" in operator.read_text()
    assert new_kubectl("get", "gadget", other, "-o", "jsonpath={.status.painted}") == ""
