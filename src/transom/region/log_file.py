"""Which file a region's log is: who has it open would go on with a file that was taken away, unheard."""

import asyncio
import os
from pathlib import Path

from transom.runtime.clock import Clock

FileIdentity = tuple[int, int]
"""Device and inode; an inode is not given to another file while somebody has it open."""

_LOOK_SECONDS = 1.0


def identity_of(path: Path) -> FileIdentity | None:
    """Which file it is; None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # one call, whatever the path is
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def until_replaced(path: Path, opened: FileIdentity | None, clock: Clock) -> None:
    """Wait until `path` is no longer the file `opened`; looks once a second."""
    while await asyncio.to_thread(identity_of, path) == opened:
        await clock.sleep(_LOOK_SECONDS)
