"""A real region process with real apps: killed by hand, rolled out, and the region itself killed anywhere."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from benchmarks.plant import Part, Process

from scenario_engines import Engine, each_engine, real_in_soak
from transom.logs.protocol import Log, TopicPartition
from transom.logs.records import from_entry, to_message
from transom.logs.remote import RemoteLog
from transom.model.errors import ForbiddenError, UnauthorizedError
from transom.model.records import Record
from transom.model.resources import JsonObject, Metadata, OwnerReference, Resource, to_json
from transom.model.roads import DESIRED, HEARTBEATS, STATUS
from transom.model.version import Version
from transom.region.drivers.process import stop_everything
from transom.region.topics import TOPICS
from transom.runtime.clock import SystemClock
from transom.runtime.secret_files import hash_secret

CLOCK = SystemClock()
KEY = "RegionalDeployment/acme/shop.eu"
LINK_KEY = "a key for tests"
RUN = """
import asyncio, sys
from pathlib import Path
from transom.processes.region import run_region
asyncio.run(run_region(Path(sys.argv[1])))
"""


@dataclass
class Region:
    """One region of one zone, whose process comes and goes; the test writes what the hub would publish."""

    folder: Path
    log: Log
    process: Process | None = None
    counter: int = 0
    offset: int = 0
    reports: dict[str, Record] = field(default_factory=dict[str, Record])

    def start(self, die_at: str = "") -> None:
        environment = {**os.environ, "TRANSOM_DIE_AT": die_at}
        config, output = self.folder / "region.toml", self.folder / "region.log"
        self.process = Part.launch(RUN, str(config), environment, output)

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 30)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.ended()

    async def address(self) -> str:
        """Where its log server listens, once it does."""
        async with asyncio.timeout(20):
            while True:
                for line in reversed((self.folder / "region.log").read_text().splitlines()):
                    if '"serving"' in line:
                        return f"http://127.0.0.1:{json.loads(line)['port']}"
                await asyncio.sleep(0.02)

    async def want(
        self, version: str = "1", count: int = 1, *, command: list[str] | None = None, **meta: Any
    ) -> None:
        owner = OwnerReference("transom.dev/v1", "Deployment", "shop", "d1", controller=True)
        metadata = Metadata(
            "shop.eu", "acme", uid="u1", generation=self.counter + 1, owner_references=[owner], **meta
        )
        spec: JsonObject = {
            "app": "shop",
            "version": version,
            "command": command or [sys.executable, "-m", "transom.processes.demo_app"],
            "env": {"OF_TEST": str(self.folder)},
            "region": "eu",
            "zones": {"a": count},
            "healthCheck": {"kind": "http", "path": "/healthz", "intervalSeconds": 0.1},
        }
        await self._publish(to_json(Resource("RegionalDeployment", metadata, spec=spec)))

    async def want_nothing(self) -> None:
        await self._publish(b"{}", deleted=True)

    async def _publish(self, value: bytes, *, deleted: bool = False) -> None:
        self.counter += 1
        record = Record(KEY, Version(1, self.counter, "hub"), value, deleted=deleted)
        await self.log.append([to_message(DESIRED, record)])

    async def until(self, true: Callable[["Region"], bool]) -> None:
        """Follow what the region reports until it is as asked for."""
        async with asyncio.timeout(30):
            while not true(self):
                at = {TopicPartition(STATUS, 0): self.offset}
                for entry in await self.log.read(at, wait_seconds=30):
                    record = from_entry(entry)
                    assert record.key not in self.reports or record.version > self.reports[record.key].version
                    self.reports[record.key] = record
                    self.offset = entry.offset + 1

    async def until_ready(self, version: str, count: int) -> None:
        """Until all that was last asked for is reported as healthy."""
        await self.until(
            lambda region: (
                region.status().get("observedGeneration") == region.counter
                and region.condition("Ready")[0] == "True"
                and [i["version"] for i in region.instances() if i["health"] == "Healthy"]
                == [version] * count
                and len(region.instances()) == count
            )
        )

    def status(self) -> dict[str, Any]:
        record = self.reports.get(f"{KEY}@a")
        return {} if record is None or record.deleted else msgspec.json.decode(record.value)

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next((c for c in self.status().get("conditions", []) if c["type"] == kind), {})
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")

    def instances(self) -> list[dict[str, Any]]:
        live = (r for key, r in sorted(self.reports.items()) if key.startswith("Instance/") and not r.deleted)
        return [msgspec.json.decode(record.value) for record in live]

    def apps(self) -> dict[int, str]:
        """The processes of this test's app that are alive: the instance's name by pid."""
        found: dict[int, str] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environ = process.environ()
                if environ.get("OF_TEST") == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = environ["TRANSOM_INSTANCE"]
        return found

    def answers(self) -> list[dict[str, Any]]:
        """What the instances reported as healthy say of themselves."""
        urls = [f"http://127.0.0.1:{i['port']}/" for i in self.instances() if i["health"] == "Healthy"]
        return [json.load(urllib.request.urlopen(url, timeout=5)) for url in urls]  # noqa: S310


async def until_true(true: Callable[[], bool]) -> None:
    """Wait, at most 20 s, for another process's doing."""
    async with asyncio.timeout(20):
        while not true():  # nothing here is told what another process does
            await asyncio.sleep(0.01)


@pytest.fixture
async def region(engine: Engine, tmp_path: Path) -> AsyncIterator[Region]:
    (tmp_path / "region.toml").write_text(
        f'name = "eu"\nport = 0\ndata = "data"\nlink_key_hash = "{hash_secret(LINK_KEY)}"\n'
        + engine.log_line("eu")
    )
    (tmp_path / "data").mkdir()
    async with engine.log(tmp_path / "data", "eu") as log:
        await log.create(TOPICS)
        region = Region(tmp_path, log)
        yield region
        if region.process is not None:
            await region.kill()
    await stop_everything(tmp_path / "data", CLOCK, grace_seconds=5)
    await until_true(lambda: not region.apps())


@each_engine
async def test_apps_come_back_and_outlive_their_region(region: Region) -> None:
    region.start()
    await region.want(count=2)
    await region.until_ready("1", 2)
    (first, name), (second, _) = region.apps().items()
    assert sorted(answer["pid"] for answer in region.answers()) == sorted([first, second])
    assert {answer["region"] for answer in region.answers()} == {"eu"}

    os.kill(first, signal.SIGKILL)
    await region.until(lambda r: r.status()["ready"] == 1)
    await region.until_ready("1", 2)
    again = region.apps()
    assert first not in again
    assert again[second] != name
    assert sorted(again.values()) == sorted(region.apps().values())

    await region.kill()
    os.kill(second, signal.SIGKILL)  # one dies while nobody is there to see it
    await until_true(lambda: second not in region.apps())
    (survivor,) = region.apps()
    reports = region.offset
    region.start()
    await region.until(lambda r: r.offset > reports)
    await region.until_ready("1", 2)
    assert survivor in region.apps()

    process = region.process
    assert process is not None
    before = region.apps()
    process.send_signal(signal.SIGTERM)
    assert await region.ended() == 0
    assert region.apps() == before
    region.start()
    await region.want(count=2)  # the same again, newer: a report shows that it was seen
    await region.until_ready("1", 2)
    assert region.apps() == before


@real_in_soak
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", ["driver.intended", "driver.spawned", "driver.recorded", "agent.reported"])
async def test_killed_while_starting_nothing_runs_twice_and_nothing_is_lost(
    region: Region, point: str, nth: int
) -> None:
    region.start(die_at=f"{point}:{nth}")
    await region.want(count=2)
    assert await region.ended() == -signal.SIGKILL
    alive = region.apps()
    region.start()
    await region.until_ready("1", 2)
    assert alive.items() <= region.apps().items()
    assert len(set(region.apps().values())) == len(region.apps()) == 2


@real_in_soak
@pytest.mark.parametrize("point", ["driver.stopping", "driver.stopped", "agent.remembered:3"])
async def test_killed_while_stopping_the_stop_is_finished_and_the_others_stay(
    region: Region, point: str
) -> None:
    region.start(die_at=point)
    await region.want(count=3)
    if "agent" not in point:
        await region.until_ready("1", 3)
    await region.want(count=1)
    assert await region.ended() == -signal.SIGKILL
    alive = region.apps()  # those that were told to end may end only now
    region.start()
    await region.until_ready("1", 1)
    assert len(region.apps()) == 1
    assert region.apps().items() <= alive.items()


@each_engine
async def test_a_new_version_rolls_a_bad_one_halts_and_a_deletion_ends_it_all(region: Region) -> None:
    region.start()
    await region.want("1", count=2)
    await region.until_ready("1", 2)
    await region.want("2", count=2)
    await region.until_ready("2", 2)
    serving = region.apps()
    assert len(serving) == 2

    broken = ["sh", "-c", "echo no such table: users >&2; exit 3"]
    await region.want("3", count=2, command=broken)
    await region.until(lambda r: r.condition("Progressing")[1] == "RolloutHalted")
    assert "no such table: users" in region.condition("Ready")[2]
    assert (region.status()["ready"], region.status()["updated"]) == (2, 1)
    assert serving.items() <= region.apps().items()

    await region.want("2", count=2)
    await region.until_ready("2", 2)
    assert region.apps() == serving

    await region.want("2", count=2, deletion_timestamp="2026-01-01T00:00:00Z")
    await region.until(lambda r: r.status().get("terminated") is True)
    assert (region.apps(), region.instances()) == ({}, [])
    await region.want_nothing()
    await region.until(lambda r: r.reports[f"{KEY}@a"].deleted)


@real_in_soak
async def test_an_app_that_cannot_start_shows_its_last_output(region: Region) -> None:
    region.start()
    await region.want(command=["no-such-program"])
    await region.until(lambda r: r.condition("Ready")[1] == "CannotStart")
    assert "no-such-program" in region.condition("Ready")[2]
    await region.want("2", command=["sh", "-c", "echo cannot bind to port $PORT; exit 1"])
    await region.until(lambda r: "cannot bind to port" in r.condition("Ready")[2])
    await region.want("3")
    await region.until_ready("3", 1)


@real_in_soak
async def test_a_data_folder_belongs_to_one_process(region: Region) -> None:
    region.start()
    await region.address()
    assert region.process is not None
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", RUN, str(region.folder / "region.toml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode != 0
    assert f"in use by process {region.process.pid}" in second.stderr


@pytest.mark.parametrize("engine", ["embedded"], indirect=True)  # Kafka is its own server
async def test_its_server_lets_the_link_in_and_shows_its_health_to_all(region: Region) -> None:
    region.start()
    address = await region.address()
    health = json.load(await asyncio.to_thread(urllib.request.urlopen, f"{address}/healthz"))
    assert health["region"] == "eu"
    assert {"agent a", "desired table", "heartbeat", "log cleaning", "sweep answers"} <= health[
        "workers"
    ].keys()
    assert {worker["state"] for worker in health["workers"].values()} == {"running"}
    metrics = (await asyncio.to_thread(urllib.request.urlopen, f"{address}/metrics")).read()
    assert b"transom_agent_actions_total" in metrics

    link = RemoteLog(address, LINK_KEY)
    beats = await link.read({TopicPartition(HEARTBEATS, 0): 0}, wait_seconds=20)
    beat = msgspec.json.decode(from_entry(beats[0]).value)
    assert (beat["region"], beat["desired"], beat["version"], beat["workers"]) == ("eu", {}, "", {})
    assert [record.key for record in map(from_entry, beats)] == ["eu"] * len(beats)
    with pytest.raises(ForbiddenError):
        await link.append([to_message(STATUS, from_entry(beats[0]))])
    await link.close()
    stranger = RemoteLog(address, "another key")
    with pytest.raises(UnauthorizedError):
        await stranger.bounds(HEARTBEATS)
    await stranger.close()
