"""The real parts themselves: what is killed keeps its data, and nothing outlives whoever started it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from client_parts import append, new_topic, read

from disk_parts import disk_of, grow
from engines import jars
from engines.kafka import Brokers
from engines.postgres import Postgres
from engines.process import EngineError, GuardedProcess, MissingEngineError, free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("cluster", ["brokers", pytest.param("broker39", marks=pytest.mark.soak)])
async def test_a_killed_broker_keeps_its_data(cluster: str, request: pytest.FixtureRequest) -> None:
    brokers: Brokers = request.getfixturevalue(cluster)
    topic = f"kept-{cluster}"
    await new_topic(brokers.bootstrap, topic)
    await append(brokers.bootstrap, topic, b"before")
    brokers.kill(0)
    brokers.start(0)
    await append(brokers.bootstrap, topic, b"after")
    assert await read(brokers.bootstrap, topic) == [b"before", b"after"]


async def test_what_three_brokers_hold_is_there_without_one(brokers3: Brokers) -> None:
    await new_topic(brokers3.bootstrap, "copied", copies=3)
    await append(brokers3.bootstrap, "copied", b"before")
    brokers3.kill(2)
    await append(brokers3.bootstrap, "copied", b"meanwhile")
    assert await read(brokers3.bootstrap, "copied") == [b"before", b"meanwhile"]


async def test_a_frozen_broker_answers_nobody_and_goes_on_when_thawed(brokers: Brokers) -> None:
    await new_topic(brokers.bootstrap, "frozen")
    brokers.freeze()
    appending = asyncio.create_task(append(brokers.bootstrap, "frozen", b"1"))
    status = psutil.Process(brokers.processes[0].pid).status()
    assert status == psutil.STATUS_STOPPED
    brokers.thaw()
    await appending


async def test_a_broker_whose_disk_is_full_goes_on_when_there_is_room(
    shared_brokers: Brokers, tmp_path: Path
) -> None:
    with disk_of(16, tmp_path / "disk") as disk, Brokers(folder=disk) as brokers:
        await new_topic(brokers.bootstrap, "full")
        values = [bytes([number]) * 900_000 for number in range(20)]
        gone = asyncio.create_task(asyncio.to_thread(brokers.processes[0].wait))
        appending = asyncio.create_task(append(brokers.bootstrap, "full", *values))
        await gone
        assert not appending.done()
        grow(disk, 64)
        brokers.start(0)
        await appending
        assert await read(brokers.bootstrap, "full") == values


def test_a_killed_server_keeps_its_data(postgres: Postgres, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    postgres.kill()
    postgres.start()
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]
    postgres.restart()
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


STARTERS = {
    "kafka": "from engines.kafka import Brokers as Part; part = Part()",
    "postgres": "from engines.postgres import Postgres as Part; part = Part()",
}


@pytest.fixture(params=STARTERS)
def starter(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a real part."""
    request.getfixturevalue({"kafka": "shared_brokers", "postgres": "shared_postgres"}[request.param])
    code = f"{STARTERS[request.param]}; part.__enter__(); print(part._home, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_nothing_outlives_its_starter(starter: subprocess.Popen[str], end: signal.Signals | None) -> None:
    assert starter.stdout is not None
    assert starter.stdin is not None
    home = Path(starter.stdout.readline().strip())
    held = psutil.Process(starter.pid).children(recursive=True)
    ports = [
        connection.laddr.port
        for process in held
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(held) > 1
    assert ports
    assert home.is_dir()
    if end is None:
        starter.stdin.close()  # it ends with an error, and by no orderly way
    else:
        starter.send_signal(end)
    _, left = psutil.wait_procs(held, timeout=30)
    assert left == []
    assert not home.exists()
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def test_a_killed_guard_takes_its_part_along(tmp_path: Path) -> None:
    part = GuardedProcess("sleep", tmp_path / "log", home=tmp_path / "nothing")
    part.launch(["sleep", "600"])
    process = psutil.Process(part.pid)
    guard = process.parent()
    assert guard is not None
    guard.kill()
    process.wait(30)
    part.close()


def test_a_start_that_fails_shows_what_the_broker_wrote(shared_brokers: Brokers) -> None:
    with (
        pytest.raises(EngineError, match="Kafka broker 0 ended while it started") as raised,
        Brokers(settings={"metric.reporters": "no.such.Reporter"}),
    ):
        pass
    assert "no.such.Reporter" in str(raised.value)


def test_a_server_that_fails_shows_what_it_wrote(shared_postgres: Postgres) -> None:
    with (
        pytest.raises(EngineError, match="PostgreSQL ended while it started") as raised,
        Postgres(settings={"shared_buffers": "many"}),
    ):
        pass
    assert "invalid value for parameter" in str(raised.value)


def test_a_port_is_free_for_servers() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_without_java_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingEngineError, match="Java is missing; on Debian: apt install"), Brokers():
        pass


@pytest.mark.parametrize("required", ["", "1"])
def test_make_kafka_goes_on_without_java_unless_engines_are_required(
    required: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(jars, "JARS", jars.HERE / "none")
    monkeypatch.setenv("TRANSOM_REQUIRE_ENGINES", required)
    assert jars.main() == (1 if required else 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("NO REAL KAFKA HERE: Java is missing; on Debian: apt install")


def test_without_jars_it_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for program in ("java", "mvn"):  # they are there, and not asked for anything
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(jars, "JARS", jars.HERE / "none")
    with pytest.raises(MissingEngineError, match=r"is not in engines/none/4.\d; run: make kafka"), Brokers():
        pass


def test_the_server_never_runs_as_root(shared_postgres: Postgres) -> None:
    assert shared_postgres.process is not None
    owner = psutil.Process(shared_postgres.process.pid).uids().effective
    assert owner > 0
    assert owner == os.geteuid() or os.geteuid() == 0


def test_who_is_not_root_starts_a_server_too(shared_postgres: Postgres) -> None:
    code = """if True:
        import os
        from engines.postgres import Postgres
        with Postgres() as postgres:
            postgres.kill()
            postgres.start()
            print(os.geteuid(), *postgres.execute("SELECT 1"))
    """
    # Root becomes somebody else in a namespace of its own, where it still may read what is root's.
    other = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
    if other and subprocess.run([*other, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: PostgreSQL as another user needs the right to make user namespaces")
    start = [*other, sys.executable, "-c", code]
    done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, check=False)
    user, _, row = done.stdout.strip().partition(" ")
    assert (int(user) > 0, row) == (True, "(1,)"), done.stderr
