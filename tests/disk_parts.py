"""A disk so small that a test can fill it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def disk_of(mebibytes: int, folder: Path) -> Iterator[Path]:
    """A file system of this size at `folder`; skips the test where none may be mounted."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a full disk needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def grow(folder: Path, mebibytes: int) -> None:
    """Make room on a disk that `disk_of` made."""
    subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", str(folder)], check=True)
