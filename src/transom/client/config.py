"""Where the hub is, which file holds the key and whom to trust: options, the environment, or a file nearby.

The key itself is on no command line, in no environment and in no configuration: only the path of its file.
Next on the data's way: `client.hub` speaks to the hub that was found.
"""

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from transom.model.errors import InvalidError, Problem
from transom.runtime.config import Config, load
from transom.runtime.secret_files import read_secret
from transom.runtime.tls import client_tls

CLIENT_FILE = Path(".transom") / "client.toml"


class ClientConfig(Config):
    """`hub` is the API's address, `key_file` the file that holds the administrator's key, `ca_file` that with
    the certificates (PEM) to trust as the hub's authority, instead of the system's.
    """

    hub: str
    key_file: Path
    ca_file: Path | None = None


def find(hub: str = "", key_file: str = "", ca_file: str = "", folder: Path | None = None) -> ClientConfig:
    """Where the hub is, from what was given, else TRANSOM_HUB, TRANSOM_KEY_FILE and TRANSOM_CA_FILE, else the
    nearest `.transom/client.toml` from `folder` (the working directory) upwards; `transom up` writes one.

    Whom that file trusts counts for the hub it names alone. Raises `InvalidError` that says what to do.
    """
    hub = hub or os.environ.get("TRANSOM_HUB", "")
    key_file = key_file or os.environ.get("TRANSOM_KEY_FILE", "")
    ca_file = ca_file or os.environ.get("TRANSOM_CA_FILE", "")
    if not (hub and key_file):
        nearest = _nearest(folder or Path.cwd())
        if nearest and not hub:
            ca_file = ca_file or str(nearest.ca_file or "")
        hub = hub or (nearest.hub if nearest else "")
        key_file = key_file or (str(nearest.key_file) if nearest else "")
    if not (hub and key_file):
        missing = "--hub or TRANSOM_HUB" if not hub else "--key-file or TRANSOM_KEY_FILE"
        raise InvalidError(
            "the way to the hub",
            [Problem("", f"give {missing}, or run this below a folder where `transom up` was started")],
        )
    trusted = Path(ca_file) if ca_file else None
    return ClientConfig(hub=_checked(hub), key_file=Path(key_file), ca_file=trusted)


def whom_to_trust(config: ClientConfig) -> ssl.SSLContext | None:
    """A client's side of TLS that trusts `ca_file`; None: what the system does. Raises `InvalidError`."""
    return client_tls("the way to the hub", "ca_file", config.ca_file)


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
    if parts.scheme == "https" and parts.hostname:
        return hub.rstrip("/")
    wrong = "expected https://HOST:PORT"
    if parts.scheme == "http":
        wrong += "; a hub speaks TLS, and the certificate to trust is ca.pem in its data folder (--ca-file)"
    raise InvalidError(f"address of the hub {hub!r}", [Problem("", wrong)])
