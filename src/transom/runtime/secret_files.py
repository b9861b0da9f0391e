"""Keys in files that only their owner can read, and comparing keys by their hashes.

A key is 256 random bits, so one SHA-256 is enough to store it (argon2 is for what people can remember).
"""

import hashlib
import hmac
import os
from pathlib import Path

from transom.model.errors import InvalidError, Problem
from transom.runtime.randomness import new_secret


def hash_secret(secret: str) -> str:
    """What is stored of a key: SHA-256, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, hashed: str) -> bool:
    """Whether `secret` is the key whose hash is `hashed`; takes the same time whatever they hold."""
    return hmac.compare_digest(hash_secret(secret), hashed)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all, on disk when this returns."""
    _write(path, text, 0o600)


def write_public(path: Path, text: str) -> None:
    """Write a file that everybody may read (0644), whole or not at all, on disk when this returns."""
    _write(path, text, 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def ensure_secret(path: Path) -> str:
    """The key in `path`; made there when the file does not exist yet."""
    if not path.exists():
        write_private(path, new_secret() + "\n")
    return read_secret(path)


def read_secret(path: Path) -> str:
    """The key in `path`. Raises `InvalidError` when it is missing, empty, or open to others."""
    try:
        mode = path.stat().st_mode
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"key file {path}", [Problem("", f"cannot be read: {error}")]) from None
    if mode & 0o077:
        raise InvalidError(f"key file {path}", [Problem("", f"others can read it; run: chmod 600 {path}")])
    if not secret:
        raise InvalidError(f"key file {path}", [Problem("", "is empty; remove it and start again")])
    return secret
