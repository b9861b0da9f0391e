"""Apache Kafka brokers on free ports of this machine, in KRaft mode, small and quick to start.

    with Brokers(3) as brokers:
        client = AIOKafkaProducer(bootstrap_servers=brokers.bootstrap)
        brokers.kill(1)
        brokers.start(1)

The first `controllers` brokers are controllers too. Every broker has a second listener that is advertised at
the port of a proxy (`proxy.py`), so that any test can put one in the middle; with `secure=` come listeners
with passwords and TLS (`kafka_secure.py`). `kafka_config.py` says what a broker is told.
"""

import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engines import jars
from engines.kafka_config import Ports, meta_properties, new_id, properties
from engines.kafka_rights import Right, allow
from engines.kafka_secure import Secure
from engines.process import Engine, EngineError, GuardedProcess, free_port

UP = "Kafka Server started"
"""What a broker logs once the others know it and it answers everybody."""

STOP_SECONDS = 10.0
"""An orderly end takes half a second; a broker without a controller waits for one, and is killed."""


class Brokers(Engine):
    """A cluster of its own. Every method blocks until what it says is so; `async with` does not block the
    loop.
    """

    def __init__(
        self,
        count: int = 1,
        *,
        controllers: int = 1,
        version: str = jars.NEWEST,
        folder: Path | None = None,
        secure: Secure | None = None,
        settings: Mapping[str, str | int] | None = None,
        heap_mebibytes: int = 256,
        archive_classes: Path | None = None,
    ) -> None:
        """Nothing runs yet. `folder`: where logs and data go (else a temporary one, removed at the end);
        `settings`: properties of every broker, over those of `kafka_config.py`.
        """
        self.count, self.version, self.secure = count, version, secure
        self._controllers, self._settings, self._folder = controllers, dict(settings or {}), folder
        self._heap, self._archive = heap_mebibytes, archive_classes
        self.ports: list[Ports] = []
        self.processes: list[GuardedProcess] = []
        self._home = Path()

    @property
    def bootstrap(self) -> str:
        """Every broker's address, as clients take it."""
        return ",".join(self.address(number) for number in range(self.count))

    def address(self, number: int) -> str:
        """Where broker `number` (from 0; its `node.id` is one more) is listening."""
        return f"127.0.0.1:{self.ports[number].plain}"

    def data(self, number: int) -> Path:
        """The folder with a broker's partitions."""
        return self._home / f"broker-{number}" / "data"

    def start(self, number: int | None = None) -> None:
        """Start one broker, or all that do not run, and wait until they answer."""
        chosen = range(self.count) if number is None else [number]
        started = [one for one in chosen if number is not None or not self.processes[one].is_running()]
        for one in started:
            config = self._home / f"broker-{one}" / "server.properties"
            self.processes[one].close()
            self.processes[one].launch([*self._java(archive=True), "kafka.Kafka", str(config)])
        for one in started:
            self.processes[one].ready(UP)

    def stop(self, number: int | None = None) -> None:
        """An orderly end: leaders move away first, and what was appended is on disk."""
        ending = [process for process in self._chosen(number) if process.is_running()]
        for process in ending:
            process.thaw()
            process.send(signal.SIGTERM)
        for process in ending:
            # Together: the last of several controllers waits for a quorum that does not come back.
            process.stop(signal.SIGTERM, STOP_SECONDS)

    def kill(self, number: int | None = None) -> None:
        """SIGKILL."""
        for process in self._chosen(number):
            process.kill()

    def freeze(self, number: int | None = None) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        for process in self._chosen(number):
            process.freeze()

    def thaw(self, number: int | None = None) -> None:
        """SIGCONT."""
        for process in self._chosen(number):
            process.thaw()

    def allow(self, user: str, *rights: Right) -> None:
        """Give a user of `secure` these rights; with the answer they are in force on the controller, on
        brokers soon.
        """
        allow(self.ports[0].plain, user, rights)

    def mend(self) -> None:
        """Let everything that a test froze, stopped or killed run again."""
        self.thaw()
        self.start()

    def replace_disks(self) -> None:
        """Start on new, empty disks what was there: the same addresses, another cluster."""
        self.kill()
        for number in range(self.count):
            shutil.rmtree(self.data(number))
        self._format()
        self.start()

    def close(self) -> None:
        """End every broker, quickly, and remove a temporary folder."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.close()
        self.processes = []
        if self._folder is None and self._home != Path():
            shutil.rmtree(self._home, ignore_errors=True)

    def _chosen(self, number: int | None) -> list[GuardedProcess]:
        return self.processes if number is None else [self.processes[number]]

    def _java(self, *, archive: bool = False) -> list[str]:
        return jars.java_command(self.version, self._heap, archive_at_exit=self._archive if archive else None)

    def prepare(self) -> None:
        """Write every broker's folder: configuration, identity, and the features of a new cluster."""
        jars.jars_of(self.version)
        self._home = self._folder or Path(tempfile.mkdtemp(prefix="transom-kafka-"))
        self.ports = [
            Ports(plain=free_port(), controller=free_port(), proxied=free_port(), proxy=free_port())
            for _ in range(self.count)
        ]
        if self.secure is not None:
            self.secure.prepare(self._home, self.count)
        for number in range(self.count):
            folder = self._home / f"broker-{number}"
            folder.mkdir(parents=True)
            config = folder / "server.properties"
            written = properties(
                number,
                self.ports,
                controllers=self._controllers,
                data=self.data(number),
                secure=self.secure,
                settings=self._settings,
            )
            config.write_text("".join(f"{key}={value}\n" for key, value in written.items()), encoding="utf-8")
            self.processes.append(
                GuardedProcess(f"Kafka broker {number}", folder / "broker.log", home=self._guarded())
            )
        self._format()

    def _guarded(self) -> Path:
        """What a guard removes when we are gone: a temporary folder, or nothing (a folder that never is)."""
        return self._home if self._folder is None else self._home / ".nothing"

    def _format(self) -> None:
        """Make the first broker's folder as Kafka's own tool does; the others get the same but for their
        names.
        """
        cluster = new_id()
        config = self._home / "broker-0" / "server.properties"
        words = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(config)]
        users = self.secure.scram_arguments() if self.secure is not None else []
        tool = GuardedProcess("Kafka's storage tool", config.with_name("format.log"), home=self._guarded())
        tool.launch([*self._java(), *words, *users])
        code = tool.wait()
        tool.close()
        if code:
            raise tool.failed("failed")
        if not (self.data(0) / "meta.properties").exists():
            raise EngineError(f"Kafka's storage tool wrote no {self.data(0)}")
        for number in range(1, self.count):
            self.data(number).mkdir()
            shutil.copy(self.data(0) / "bootstrap.checkpoint", self.data(number))
            identity = meta_properties(cluster, number)
            (self.data(number) / "meta.properties").write_text(identity, encoding="ascii")
