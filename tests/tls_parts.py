"""A certificate authority for the tests of one process, and both sides of TLS by it."""

import atexit
import shutil
import ssl
import tempfile
from pathlib import Path

from transom.runtime.authority import ensure_authority
from transom.runtime.clock import SystemClock
from transom.runtime.secret_files import write_private
from transom.runtime.serving_tls import FromAuthority, ServerTls


class Trust:
    """`server` is a server's side, for this machine; `client` trusts it, and `ca_file` says whom that is."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="transom-tls-"))
        atexit.register(shutil.rmtree, folder)
        clock = SystemClock()
        authority = ensure_authority(folder / "authority.pem", clock.wall())
        hosts = ("localhost", "127.0.0.1", "::1")
        self.server = ServerTls(FromAuthority(authority, hosts, folder / "server.pem", clock), clock).context
        self.ca_file = authority.ca_file
        self.client = ssl.create_default_context(cafile=self.ca_file)


TRUST = Trust()


def say_where(folder: Path, address: str, key: str) -> None:
    """Have the command line find the hub at `address` from `folder`."""
    write_private(folder / ".transom" / "admin.key", key)
    text = f'hub = "{address}"\nkey_file = "admin.key"\nca_file = "{TRUST.ca_file}"\n'
    (folder / ".transom" / "client.toml").write_text(text)
