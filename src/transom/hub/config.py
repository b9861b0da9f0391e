"""The hub's configuration file (TOML)."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from transom.runtime.config import Config


class HubConfig(Config):
    """`data` is the hub's folder, `link_keys` the folder with `<region>.key` for each region.

    Relative paths begin at the file's folder. `trust` is a file of certificates (PEM) that regions' log
    servers are checked against instead of the system's; `tls_cert` and `tls_key` are this server's own, and
    required for any address but this machine's.
    """

    data: Path = Path()
    host: str = "127.0.0.1"
    port: int = Field(default=8480, ge=0, le=65535)
    link_keys: Path = Path("link-keys")
    sweep_seconds: float = Field(default=600.0, ge=1.0)
    clean_seconds: float = Field(default=60.0, ge=1.0)
    trust: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
