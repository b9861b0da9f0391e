"""Which driver has a folder of workloads, when several processes of a region share it.

Looked at right before each thing that is done there. Next on the data's way: `process`.
"""

from pathlib import Path

from transom.model.errors import FencedError
from transom.runtime.randomness import new_secret
from transom.runtime.secret_files import write_private


class Holder:
    """Which driver has a folder: the last that took it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder.with_name(f"{folder.name}.holder")
        self._nonce = new_secret()

    def take(self) -> None:
        """Have it from now on; made when there is none."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._file, self._nonce)

    def check(self) -> None:
        """Raise `FencedError` when another has it, or nobody can tell."""
        try:
            held = self._file.read_text(encoding="utf-8")
        except OSError as error:
            held = str(error)
        if held != self._nonce:
            raise FencedError(f"another driver has taken {self._folder} over; nothing was done there")
