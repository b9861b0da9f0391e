"""Named points around every durable step, so that a test can kill or freeze the process exactly there.

`TRANSOM_DIE_AT=store.committed:3` kills this process (SIGKILL, nothing is flushed or cleaned up) the third
time it comes past that point; `TRANSOM_FREEZE_AT` stops it there (SIGSTOP) until somebody continues it.
Without the variables a point costs one comparison.
"""

import os
import signal

POINTS = (
    "agent.reported",
    "agent.remembered",
    "archive.stored",
    "carry.fenced",
    "carry.fetched",
    "carry.kept",
    "carry.marked",
    "carry.produced",
    "carry.taken",
    "contexts.planned",
    "contexts.written",
    "driver.intended",
    "driver.spawned",
    "driver.recorded",
    "driver.stopping",
    "driver.stopped",
    "log.appending",
    "log.appended",
    "mirror.fetched",
    "mirror.appended",
    "publish.read",
    "publish.appended",
    "relay.read",
    "relay.appended",
    "store.committing",
    "store.committed",
    "table.applying",
    "table.applied",
)
"""Every point there is; `scenarios` draws from these."""

_die = os.environ.get("TRANSOM_DIE_AT", "")
_name, _, _count = (_die or os.environ.get("TRANSOM_FREEZE_AT", "")).partition(":")
_left = int(_count or 1)


def step(name: str) -> None:
    """Mark a durable step; die or freeze here when the environment says so."""
    global _left  # noqa: PLW0603  # one process dies once
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL if _die else signal.SIGSTOP)
