"""What `warm_start` forks parts from: a process that has imported everything, and does as it is told."""

import gc
import importlib
import json
import os
import socket
import sys
import threading
from collections.abc import Mapping

IMPORTED = ("uvloop", *(f"transom.processes.{name}" for name in ("hub", "region", "gateway", "mirror")))
AT_IMPORT = ("transom.runtime.steps",)
"""What looks at its environment when it is imported."""


def main() -> None:
    """Fork as told, and in each child be what it is to be."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork takes one thread along"
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[1]))
    said = control.makefile("rw")
    for line in said:
        what = json.loads(line)
        if "ended" in what:
            pid, status = os.waitpid(what["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                os.close(control.detach())
                become(**what)
                return
        said.write(json.dumps(answer) + "\n")
        said.flush()


def become(program: str, argument: str, environment: Mapping[str, str], output: str) -> None:
    os.setsid()
    writing = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for number in (1, 2):
        os.dup2(writing, number)
    os.close(writing)
    os.environ.clear()
    os.environ.update(environment)
    for name in AT_IMPORT:
        importlib.reload(sys.modules[name])
    gc.unfreeze()
    sys.argv = ["-c", argument]
    exec(program, {"__name__": "__main__"})  # noqa: S102


if __name__ == "__main__":
    main()
