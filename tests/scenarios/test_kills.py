"""A hub, two regions and their gateways, killed again and again at their durable steps while people write.

Afterwards an independent look, at what is stored and at the machine's processes, not through our own code's
answers: no acknowledged write lost, nothing twice in any target, no workload started twice, every API key
answered in every region as it was declared.

`TRANSOM_SOAK_KILLS` and `TRANSOM_SEED` choose how many and which (`make soak`).
"""

import asyncio
import collections
import contextlib
import os
import random
import sqlite3
import sys

import aiohttp
import msgspec
import pytest
from benchmarks.plant import DEPLOYMENT, deployment, manifest

from scenario_engines import each_engine, real_in_soak
from transom.catalog.api_key.kind import API_KEY
from transom.client.hub import ApiError
from transom.logs.protocol import TopicPartition
from transom.logs.records import from_entry
from transom.model.api_keys import hash_of, new_api_key
from transom.model.errors import UnreachableError
from transom.runtime.steps import POINTS

REGIONS = ("eu", "us")
HUB_PARTS = {"relay", "publish", "mirror", "archive", "store", "log", "contexts"}
HUB_POINTS = [point for point in POINTS if point.partition(".")[0] in HUB_PARTS]
REGION_POINTS = [p for p in POINTS if p.partition(".")[0] in {"log", "table", "agent", "driver"}]
CARRY_POINTS = [p for p in POINTS if p.startswith("carry.")]  # tests/real/test_mirror_kills.py
GATEWAY_POINTS = [p for p in POINTS if p.partition(".")[0] in {"log", "table"}]
LISTEN = (
    "import os, socket\n"
    "s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
    "while True: s.accept()"
)
SERVE = [sys.executable, "-c", LISTEN]
REFUSALS = (404, 409)  # deleting what is not there; writing what goes at that moment
_REACHED_SECONDS = 30
SETTINGS = 'log_level = "warning"\nclean_seconds = 3600\n'  # the checker wants to see every entry there was


def test_every_point_is_killed_at_somewhere():
    assert set(HUB_POINTS) | set(REGION_POINTS) | set(CARRY_POINTS) == set(POINTS)


@each_engine
@pytest.mark.timeout(300)
async def test_kills_at_durable_steps_lose_nothing_and_repeat_nothing(engine, tmp_path):
    await _survive(engine, tmp_path, kills=engine.kills, seed=int(os.environ.get("TRANSOM_SEED", "1")))


@pytest.mark.soak
@real_in_soak
async def test_soak_of_kills(engine, tmp_path):
    kills = int(os.environ.get("TRANSOM_SOAK_KILLS", "500"))
    seed = int(os.environ.get("TRANSOM_SEED", "1000"))
    for number in range(0, kills, 25):
        print(f"seed {seed + number}", flush=True)  # noqa: T201  # to go on from here
        await _survive(engine, tmp_path / str(number), min(25, kills - number), seed + number)


class Writer:
    """People at work. Remembers what was acknowledged, and what may or may not have happened."""

    def __init__(self, plant, rng):
        self.plant, self.rng = plant, rng
        self.certain = {}  # name -> version, or None when deleted
        self.doubtful = collections.defaultdict(set)
        self.count = 0
        self.keys = {}  # name -> the key, and the answers that are right for it

    async def write_key(self, hub):
        """Make a key, or revoke one. While it is not acknowledged, both answers are right."""
        good = [name for name, (_, right) in self.keys.items() if right == {200}]
        name = self.rng.choice(good) if good and self.rng.random() < 0.4 else f"key{self.count}"
        key, _ = self.keys.get(name) or (new_api_key(self.rng.choice), None)
        self.keys[name] = key, {200, 401}
        with contextlib.suppress(UnreachableError):
            if name in good:
                await hub.patch(API_KEY, name, {"spec": {"revoked": True}}, "acme")
            else:
                spec = {"hash": hash_of(key.encode()).hex()}
                about = {"name": name, "namespace": "acme"}
                await hub.create(API_KEY, manifest("ApiKey", about, spec), "acme")
            self.keys[name] = key, {401 if name in good else 200}

    async def write(self, hub, name=""):
        """One write, to anything or to `name`. A cut connection leaves it open whether it happened."""
        self.count += 1
        # A few keys come first: how many writes there are is chance.
        if not name and (len(self.keys) < 4 or self.rng.random() < 0.3):
            await self.write_key(hub)
            return
        name = name or self.rng.choice([*(f"null{number}" for number in range(6)), "real"])
        version = None if self.rng.random() < 0.2 and name != "real" else f"v{self.count}"
        real = name == "real"
        manifest = deployment(
            name,
            REGIONS,
            version=version or "gone",
            zones=["real" if real else "null"],
            command=SERVE,
            env={"PLANT": str(self.plant.folder)} if real else {},
            healthCheck={"kind": "tcp", "intervalSeconds": 0.1},
        )
        try:
            if version is None:
                await hub.delete(DEPLOYMENT, name, "acme")
            else:
                after, _ = await hub.apply(DEPLOYMENT, manifest, "acme")
                version = None if after.deleting else version  # changed, and on its way out all the same
        except UnreachableError:
            self.doubtful[name].add(version)
        except ApiError as refused:
            if refused.code not in REFUSALS:
                raise
        else:
            self.certain[name] = version
            self.doubtful[name].clear()


async def _survive(engine, folder, kills, seed):
    rng = random.Random(seed)
    plant = engine.plant(folder, REGIONS, {"null": "null", "real": "process"}, SETTINGS, gateways="")
    async with plant.running() as hub:
        writer = Writer(plant, random.Random(seed))
        await writer.write(hub, "real")
        for part, point in _deaths(engine.points, plant, rng, kills):
            await _kill_once(plant, part, f"{point}:{rng.randint(1, 3)}", writer, hub)
        for name in ("null0", "real"):  # whatever happened, there is something to look at
            await _until_applied(hub, writer, name)
        await _settled(plant, hub)
        await _check(engine, plant, hub, writer)


def _deaths(passed, plant, rng, kills):
    """Who dies where: every point once before any comes again, each in a part that passes it."""
    points = []
    for _ in range(kills):
        points = points or rng.sample(passed, len(passed))
        point = points.pop()
        hubs = [plant.hub] if point in HUB_POINTS else []
        regions = list(plant.regions.values()) if point in REGION_POINTS else []
        gateways = list(plant.gateways.values()) if point in GATEWAY_POINTS else []
        yield rng.choice(hubs + regions + gateways), point


async def _until_applied(hub, writer, name):
    """Apply `name` once more; one that is still being deleted must be gone first."""
    version = f"last-{name}"
    spec = {"zones": ["real" if name == "real" else "null"], "command": SERVE, "version": version}
    if name == "real":
        spec |= {
            "env": {"PLANT": str(writer.plant.folder)},
            "healthCheck": {"kind": "tcp", "intervalSeconds": 0.1},
        }
    while True:
        try:
            await hub.apply(DEPLOYMENT, deployment(name, REGIONS, **spec), "acme")
        except ApiError as refused:
            if refused.code not in REFUSALS:
                raise
            continue
        held = await hub.find(DEPLOYMENT, name, "acme")
        if held is not None and not held.deleting:
            writer.certain[name] = version
            writer.doubtful[name].clear()
            return


async def _kill_once(plant, part, die_at, writer, hub):
    """Kill `part` where it happens to be, then at the step, to which what people write must bring it."""
    part.kill()
    part.start(die_at)
    try:
        async with asyncio.timeout(_REACHED_SECONDS):
            while part.running:
                with contextlib.suppress(RuntimeError):
                    await part.ready()
                # Only what really runs is started and stopped.
                await writer.write(hub, "real" if die_at.startswith("driver.") else "")
                await _ended(part)
    except TimeoutError:
        raise AssertionError(f"{part.name} never came to {die_at}") from None
    part.start()
    await part.ready()


async def _ended(part):
    """Give what was written a moment to bring `part` to its end."""
    for _ in range(10):
        if not part.running:
            return
        await asyncio.sleep(0.01)


async def _settled(plant, hub):
    """Wait until every Deployment is ready, or gone, and every road is empty."""
    async with asyncio.timeout(60):
        while True:
            held = (await hub.list_all(DEPLOYMENT, "acme")).items
            ready = all((c := d.condition("Ready")) and c.status == "True" and not d.deleting for d in held)
            roads = await hub.regions()
            if ready and all(road["down_lag"] == 0 and road["up_lag"] == 0 for road in roads):
                return
            await asyncio.sleep(0.1)


async def _check(engine, plant, hub, writer):
    held = {d.metadata.name: d for d in (await hub.list_all(DEPLOYMENT, "acme")).items}
    for name, version in writer.certain.items():
        found = held[name].spec["version"] if name in held else None
        assert found == version or found in writer.doubtful[name], (
            name,
            found,
            version,
            writer.doubtful[name],
        )
    revisions = _history(engine, plant)
    async with engine.log(plant.hub.folder / "data", "hub") as at_hub:
        changes = await _entries(at_hub, "changes")
        assert [msgspec.json.decode(entry.value)["revision"] for entry in changes] == revisions
        for name, part in plant.regions.items():
            async with engine.log(part.folder / "data", name) as in_region:
                await _check_region(at_hub, in_region, name)
                await _check_contexts(engine, plant, in_region, name, held)
            await _check_answers(plant.gateways[name].port, writer.keys)
            _check_table(engine, plant, part, name)
    _check_workloads(plant, held)


def _history(engine, plant):
    """The revisions of the history in the store; what is missing are rows of contexts."""
    revisions = [row[0] for row in engine.rows(plant, "SELECT revision FROM history ORDER BY revision")]
    ((counter,),) = engine.rows(plant, "SELECT revision FROM counter")
    ((first,),) = engine.rows(plant, "SELECT min(added) FROM contexts")
    contexts = {row[0] for row in engine.rows(plant, "SELECT revision FROM contexts")}
    assert set(revisions).isdisjoint(contexts)
    assert revisions[: first - 1] == list(range(1, first))
    assert set(revisions) | contexts <= set(range(1, counter + 1))
    return revisions


async def _check_region(at_hub, in_region, name):
    desired = [from_entry(entry) for entry in await _entries(in_region, "desired")]
    told = [(record.key, record.version) for record in desired]
    assert len(set(told)) == len(told), "a record was published twice"
    for topic in ("status", "heartbeats"):
        original = await _entries(in_region, topic)
        copy = await _entries(at_hub, f"{topic}.production-{name}")
        # Heartbeats go on: what is not mirrored yet may be missing at the end, and only there.
        original = original[: len(copy)] if topic == "heartbeats" else original
        assert [_content(entry) for entry in copy] == [_content(entry) for entry in original]


async def _check_contexts(engine, plant, in_region, name, held):
    """What the region's log says of contexts is what the store has, once the last of it has come."""
    going = "SELECT key, revision FROM contexts WHERE NOT deleted AND "
    there = "(regions = '*' OR regions LIKE ? OR leaving LIKE ?)"
    wanted = set(engine.rows(plant, going + there, *(f"%,{name},%",) * 2))
    assert {key for key, _ in wanted if key.startswith("route/")} == {f"route/acme/{each}" for each in held}
    async with asyncio.timeout(30):
        while True:
            newest = {}
            for topic in ("contexts", "contexts-bulk"):
                for record in [from_entry(entry) for entry in await _entries(in_region, topic)]:
                    if record.key not in newest or newest[record.key].version < record.version:
                        newest[record.key] = record
            told = {
                (record.key, record.version.counter)
                for record in newest.values()
                if not record.deleted and not record.key.startswith("~")
            }
            if told == wanted:
                return
            await asyncio.sleep(0.1)


async def _check_answers(port, keys):
    """What a gateway answers to every key there ever was, as soon as it knows as much as the hub."""
    assert len(keys) > 3
    async with aiohttp.ClientSession() as http:

        async def wrong():
            found = {}
            for name, (key, right) in keys.items():
                async with http.get(f"http://127.0.0.1:{port}/decide", headers={"X-Api-Key": key}) as answer:
                    if answer.status not in right:
                        found[name] = answer.status
            return found

        try:
            async with asyncio.timeout(30):
                while await wrong():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            assert not await wrong()


def _check_table(engine, plant, part, name):
    described = "SELECT key, described_revision FROM resources WHERE region = ? AND NOT deleted"
    wanted = set(engine.rows(plant, described, name))
    with contextlib.closing(sqlite3.connect(part.folder / "data" / "desired.db")) as db:
        assert (
            set(db.execute("SELECT key, counter FROM rows WHERE NOT deleted AND key NOT GLOB '~*'")) == wanted
        )


def _check_workloads(plant, held):
    """The machine runs exactly what is declared: by its own process table."""
    running = collections.Counter()
    for process in plant.workloads():
        environment = process.environ()
        if process.ppid() == 0 or "TRANSOM_INSTANCE" not in environment:
            continue
        running[environment["TRANSOM_REGION"]] += 1
        assert environment["TRANSOM_VERSION"] == held["real"].spec["version"]
    assert running == collections.Counter(REGIONS), running
    instances = [p.environ()["TRANSOM_INSTANCE"] for p in plant.workloads()]
    assert len(set(instances)) == len(instances)


def _content(entry):
    return entry.partition, entry.key, entry.value, entry.headers, entry.timestamp_ms


async def _entries(log, topic):
    entries, at = [], TopicPartition(topic, 0)
    offset = (await log.bounds(topic))[0].start
    while found := await log.read({at: offset}):
        entries += found
        offset = found[-1].offset + 1
    return entries
