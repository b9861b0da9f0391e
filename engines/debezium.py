"""Debezium as docs/how-to/debezium.md sets it up: Kafka Connect with Debezium's connector for PostgreSQL.

    with Debezium(postgres, database_url, brokers) as debezium:
        debezium.kill()
        debezium.start()

The statements and both files are the page's own, with the addresses of our parts in place of the page's, so
what tests and benchmarks run is what people are told. The database must have the hub's tables.
"""

import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from engines import jars
from engines.kafka import Brokers
from engines.postgres import Postgres
from engines.process import Engine, EngineError, GuardedProcess, free_port

PAGE = jars.HERE.parent / "docs" / "how-to" / "debezium.md"
UP = "Processing messages"
"""What it says once it follows the database."""
ROLE = "debezium"
_TOPIC = "transforms.outbox.route.topic.replacement"
_OFFSETS = "offsets"
STOP_SECONDS = 10.0
_HEAP_MEBIBYTES = 256
_END_READER = "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = %s"
_DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"


class Debezium(Engine):
    """Carries the outbox of the hub's store in `database` to `brokers`, until the block ends."""

    def __init__(
        self,
        postgres: Postgres,
        database: str,
        brokers: Brokers,
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing runs yet. `database`: its URL; `settings`: properties of both files, over the page's."""
        self._postgres, self._database, self._brokers = postgres, urlsplit(database).path[1:], brokers
        self._settings = dict(settings or {})
        self._home: Path | None = None
        self._process: GuardedProcess | None = None
        self.slot, self.topic = "", ""

    def prepare(self) -> None:
        """Write both files and the password; give the role its rights."""
        plugin = jars.jars_of(jars.DEBEZIUM)
        jars.jars_of(jars.NEWEST)
        self._home = home = Path(tempfile.mkdtemp(prefix="transom-debezium-"))
        password = secrets.token_urlsafe()
        secret = home / "secrets"
        secret.touch(mode=0o600)
        secret.write_text(f"debezium={password}\n", encoding="ascii")
        (home / "plugins").mkdir()
        (home / "plugins" / "debezium").symlink_to(plugin)
        (statements,) = blocks("sql")
        connect, connector = (properties(block) for block in blocks("properties"))
        connect |= {
            "bootstrap.servers": self._brokers.bootstrap,
            "plugin.path": str(home / "plugins"),
            "offset.storage.file.filename": str(home / _OFFSETS),
            "listeners": f"http://127.0.0.1:{free_port()}",
        }
        connect |= {name: value for name, value in self._settings.items() if name in connect}
        connector |= {
            "database.hostname": "127.0.0.1",
            "database.port": str(self._postgres.port),
            "database.dbname": self._database,
            "database.password": f"${{file:{secret}:debezium}}",
        }
        connector |= {name: value for name, value in self._settings.items() if name not in connect}
        self.slot, self.topic = connector["slot.name"], connector[_TOPIC]
        _write(home / "connect.properties", connect)
        _write(home / "connector.properties", connector)
        for statement in statements.replace("…", password).split(";\n"):
            self._postgres.execute(statement, database=self._database)
        self._process = GuardedProcess("Debezium", home / "debezium.log", home=home)

    def start(self, until: str = UP) -> None:
        """Start it where it was, and wait until it says that it follows the database, or `until`."""
        process = self._running()
        process.close()
        java = jars.java_command(jars.NEWEST, _HEAP_MEBIBYTES)
        files = [str(process.log.with_name(name)) for name in ("connect.properties", "connector.properties")]
        process.launch([*java, "org.apache.kafka.connect.cli.ConnectStandalone", *files])
        process.ready(until)

    def stop(self) -> None:
        """An orderly end: it remembers how far it came."""
        self._running().stop(signal.SIGTERM, STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL: it remembers how far it was when it last wrote that down."""
        self._running().kill()

    def forget(self) -> None:
        """Remove what it noted of its place: it goes on where its slot is."""
        self._running().log.with_name(_OFFSETS).unlink()

    def close(self) -> None:
        """End it, and take back what it was given: a slot that nobody reads keeps the server's log for
        ever.
        """
        if self._process is not None:
            self._process.kill()
            self._process.close()
            self._process = None
        if self._home is None:
            return
        shutil.rmtree(self._home, ignore_errors=True)
        self._home = None
        if self._postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", ROLE):
            for statement in (_END_READER, _DROP_SLOT):
                self._postgres.execute(statement, self.slot)
            self._postgres.execute(f"DROP OWNED BY {ROLE}", database=self._database)
            self._postgres.execute(f"DROP ROLE {ROLE}")

    def _running(self) -> GuardedProcess:
        if self._process is None:
            raise EngineError("this Debezium was not started, or was closed")
        return self._process


def _write(file: Path, told: Mapping[str, str]) -> None:
    file.write_text("".join(f"{key}={value}\n" for key, value in told.items()), encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def properties(block: str) -> dict[str, str]:
    """The properties in a block of the page."""
    lines = [line for line in block.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
