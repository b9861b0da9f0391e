"""Where the hub is and which file holds the key: options, then the environment, then a file nearby.

The key itself is on no command line, in no environment and in no configuration: only the path of its file.
Next on the data's way: `client.hub` speaks to the hub that was found.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from transom.model.errors import InvalidError, Problem
from transom.runtime.config import Config, load
from transom.runtime.secret_files import read_secret

CLIENT_FILE = Path(".transom") / "client.toml"
_LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class ClientConfig(Config):
    """`hub` is the API's address, `key_file` the file that holds the administrator's key."""

    hub: str
    key_file: Path


def find(hub: str = "", key_file: str = "", folder: Path | None = None) -> ClientConfig:
    """Where the hub is, from what was given, else TRANSOM_HUB and TRANSOM_KEY_FILE, else the nearest
    `.transom/client.toml` from `folder` (the working directory) upwards; `transom up` writes one.

    Raises `InvalidError` that says what to do.
    """
    hub = hub or os.environ.get("TRANSOM_HUB", "")
    key_file = key_file or os.environ.get("TRANSOM_KEY_FILE", "")
    if not (hub and key_file):
        nearest = _nearest(folder or Path.cwd())
        hub = hub or (nearest.hub if nearest else "")
        key_file = key_file or (str(nearest.key_file) if nearest else "")
    if not (hub and key_file):
        missing = "--hub or TRANSOM_HUB" if not hub else "--key-file or TRANSOM_KEY_FILE"
        raise InvalidError(
            "the way to the hub",
            [Problem("", f"give {missing}, or run this below a folder where `transom up` was started")],
        )
    return ClientConfig(hub=_checked(hub), key_file=Path(key_file))


def read_key(config: ClientConfig) -> str:
    """The administrator's key. Raises `InvalidError`."""
    return read_secret(config.key_file)


def _nearest(folder: Path) -> ClientConfig | None:
    for place in (folder, *folder.parents):
        file = place / CLIENT_FILE
        if file.is_file():
            return load(file, ClientConfig)
    return None


def _checked(hub: str) -> str:
    parts = urlsplit(hub)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        wrong = "expected http://HOST:PORT or https://HOST:PORT"
    elif parts.scheme == "http" and parts.hostname not in _LOOPBACK_HOSTS:
        wrong = "http would send the key in the clear; use https to reach another machine"
    else:
        return hub.rstrip("/")
    raise InvalidError(f"address of the hub {hub!r}", [Problem("", wrong)])
