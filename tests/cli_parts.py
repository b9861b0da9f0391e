"""The real `transom` command for tests."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRANSOM = str(Path(sys.executable).with_name("transom"))


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """The environment without what would lead to some other hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRANSOM_")}
    return kept | {"NO_COLOR": "1", **more}


async def transom(*arguments: str, cwd: Path, stdin: str = "", **more: str) -> Ran:
    """Run `transom` to its end."""
    process = await asyncio.create_subprocess_exec(
        TRANSOM,
        *arguments,
        cwd=cwd,
        env=environment(**more),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    return Ran(process.returncode or 0, out.decode(), err.decode())
