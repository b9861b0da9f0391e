"""A gateway serves on what its own disk holds: hub gone, log gone, restarted at will, its table damaged.

The gateways are processes; the region's log is a file that the test, in the place of a hub, appends to.
Embedded only, for what is done to that file; `real/test_plant` takes a Kafka away from a gateway.
"""

import asyncio
import contextlib
import itertools
import signal
from pathlib import Path

import aiohttp
import msgspec
import pytest
from benchmarks.plant import Part
from tests.context_parts import a_key, canaries, key_name, key_record, route_record

from engines.process import free_ports
from transom.logs.protocol import TopicPartition
from transom.logs.records import from_entry, to_message
from transom.logs.server import log_server
from transom.logs.sqlite import SqliteLog
from transom.model.records import Record
from transom.model.roads import CANARY_BULK, CONTEXTS, CONTEXTS_BULK, GATEWAYS, GatewayBeat, context_table
from transom.region.topics import GATEWAY_RIGHTS, TOPICS
from transom.runtime.clock import SystemClock
from transom.runtime.http import serve
from transom.runtime.secret_files import ensure_secret, hash_secret
from transom.runtime.signing import new_signer
from transom.tables.digests import digest_of
from transom.tables.seals import seal
from transom.tables.sweeps import DIGESTS, Request, read_answer, request_message

REGION = "eu"
GATEWAY = "from transom.processes.gateway import run_gateway as run"
SIGNER = new_signer()

GOOD, REVOKED, UNKNOWN, OTHER = a_key(), a_key(), a_key(), a_key()
ROWS = [
    key_record(GOOD, 1),
    key_record(REVOKED, 2, revoked=True),
    key_record(OTHER, 3, tenant="globex"),
    route_record("acme", "shop", 4),
]
ANSWERS = {GOOD: 200, REVOKED: 401, UNKNOWN: 401, OTHER: 404, b"": 401, b"tsm_garbage": 401}
CANNOT_TELL = {GOOD: 503, REVOKED: 503, UNKNOWN: 503, OTHER: 503, b"": 401, b"tsm_garbage": 401}


class Town:
    """A region's log and the gateways that read it."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession) -> None:
        self.folder, self.http = folder, http
        self.log_path = folder / "region" / "log.db"
        self.log: SqliteLog | None = None
        self.gateways: list[Part] = []

    async def open_log(self) -> SqliteLog:
        self.log = await SqliteLog.open(self.log_path, SystemClock())
        await self.log.create(TOPICS)
        return self.log

    async def lose_log(self) -> None:
        """Take the log away, as it is, to nowhere."""
        await self.log.close()
        self.log_path.parent.rename(self.folder / f"lost-{free_ports(1)}")

    async def say(self, *records: Record, topic: str = CONTEXTS, region: str = REGION) -> None:
        """Append as the hub does: one batch, sealed for this region."""
        headers = seal(records, region, SIGNER)
        await self.log.append([to_message(topic, *pair) for pair in zip(records, headers, strict=True)])

    async def say_canaries(self, revision: int) -> None:
        fast, bulk = canaries(revision, SystemClock().wall(), count=revision)
        assert bulk.key == CANARY_BULK
        await self.say(bulk, topic=CONTEXTS_BULK)
        await self.say(fast)

    def gateway(self, name: str = "one", log: str = "", settings: str = "") -> Part:
        part = Part(f"gateway {name}", self.folder / name, free_ports(1), GATEWAY)
        part.folder.mkdir(parents=True)
        lines = [
            f'region = "{REGION}"\nname = "{name}"\ndata = "data"\nport = {part.port}',
            f'log = "{log or self.log_path}"\ntrusted_signers = ["{SIGNER.public_text}"]\n{settings}',
        ]
        (part.folder / "config.toml").write_text("\n".join(lines))
        self.gateways.append(part)
        return part

    async def ask(self, part: Part, path: str, key: bytes = b"") -> tuple[int, dict]:
        headers = {"authorization": f"Bearer {key.decode()}"} if key else {}
        async with self.http.get(f"http://127.0.0.1:{part.port}{path}", headers=headers) as answer:
            return answer.status, msgspec.json.decode(await answer.read() or b"{}")

    async def answers(self, part: Part) -> dict[bytes, int]:
        return {key: (await self.ask(part, "/decide/apps/shop/", key))[0] for key in ANSWERS}

    async def started(self, part: Part) -> dict:
        """Start it; what `/readyz` says as soon as it answers at all."""
        part.start()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    return (await self.ask(part, "/readyz"))[1]
                assert part.running, part.output()
                await asyncio.sleep(0.02)  # another process's socket

    async def reached(self, part: Part, revision: int, *, ready: bool = True) -> dict:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    _, said = await self.ask(part, "/readyz")
                    if said["revision"] >= revision and said["ready"] is ready:
                        return said
                await asyncio.sleep(0.02)  # another process's knowledge


@pytest.fixture
async def town(tmp_path):
    async with aiohttp.ClientSession() as http:
        held = Town(tmp_path, http)
        await held.open_log()
        try:
            yield held
        finally:
            for part in held.gateways:
                part.kill()
            await held.log.close()


async def filled(town: Town) -> None:
    await town.say(*ROWS, topic=CONTEXTS_BULK)
    await town.say_canaries(4)


async def test_hub_and_log_gone_each_request_is_answered_as_before_across_restarts_in_any_order(town) -> None:
    one, two = town.gateway("one"), town.gateway("two")
    await filled(town)
    for part in (one, two):
        await town.started(part)
        await town.reached(part, 4)
        assert await town.answers(part) == ANSWERS
    await town.lose_log()
    for parts in ((one,), (two, one), (one, two), (two,)):
        for part in parts:
            part.kill()
        for part in reversed(parts):
            said = await town.started(part)
            assert said["ready"], "its own disk is enough, at once"
            assert said["workers"]["region log"]["state"] != "stopped"
        for part in (one, two):
            assert await town.answers(part) == ANSWERS
    # The region's log is made anew, and the hub says everything again, and that a key is revoked.
    await town.open_log()
    await town.say(key_record(GOOD, 7, revoked=True), *ROWS[1:])
    await town.say_canaries(7)
    for part in (one, two):
        await town.reached(part, 7)
        assert await town.answers(part) == ANSWERS | {GOOD: 401}


@pytest.mark.parametrize("point", ["table.applying", "table.applied"])
async def test_killed_while_a_revocation_is_applied_it_is_refused_after_the_restart(town, point) -> None:
    part = town.gateway()
    await filled(town)
    await town.started(part)
    await town.reached(part, 4)
    part.kill()
    part.start(die_at=point)
    await town.say(key_record(GOOD, 6, revoked=True), canaries(6, SystemClock().wall(), count=6)[0])
    await asyncio.to_thread(part.process.wait, 30)
    assert part.process.returncode == -signal.SIGKILL
    await town.started(part)
    await town.reached(part, 6)
    assert await town.answers(part) == ANSWERS | {GOOD: 401}


async def test_a_log_that_is_replaced_under_a_running_gateway_is_read_anew(town) -> None:
    part = town.gateway()
    await filled(town)
    await town.started(part)
    await town.reached(part, 4)
    await town.lose_log()
    await town.open_log()
    # More than the gateway had read of the old one: by offsets alone it would skip the revocation.
    fillers = [key_record(a_key(), 8) for _ in range(20)]
    await town.say(key_record(GOOD, 7, revoked=True), *fillers)
    await town.say_canaries(8)
    await town.reached(part, 8)
    assert await town.answers(part) == ANSWERS | {GOOD: 401}


async def test_a_gateway_starts_before_the_region_has_a_log(town) -> None:
    await town.lose_log()
    part = town.gateway()
    said = await town.started(part)
    assert not said["ready"]
    assert await town.answers(part) == CANNOT_TELL
    assert not town.log_path.exists(), "the log is the region's to make"
    await town.open_log()
    await filled(town)
    await town.reached(part, 4)
    assert await town.answers(part) == ANSWERS


async def test_an_empty_or_unfinished_table_never_says_401(town) -> None:
    part = town.gateway()
    said = await town.started(part)
    assert not said["ready"]
    assert said["wrong"]
    assert await town.answers(part) == CANNOT_TELL
    await town.say(*ROWS, topic=CONTEXTS_BULK)
    fast, _ = canaries(4, SystemClock().wall())
    await town.say(fast)
    await town.reached(part, 4, ready=False)
    known = {GOOD: 200, REVOKED: 401, UNKNOWN: 503, OTHER: 503}
    unfinished = await town.answers(part)
    assert unfinished[REVOKED] == 401
    assert unfinished[UNKNOWN] == unfinished[OTHER] == 503
    async with asyncio.timeout(30):
        while await town.answers(part) != CANNOT_TELL | known:
            await asyncio.sleep(0.02)  # the other lane is another position
    await town.say_canaries(5)
    await town.reached(part, 5)
    assert await town.answers(part) == ANSWERS


async def test_filled_under_load_it_gives_right_answers_or_503_and_no_others(town) -> None:
    keys = [a_key() for _ in range(3000)]
    rows = [key_record(key, number, revoked=number % 3 == 0) for number, key in enumerate(keys)]
    right = {key: 401 if number % 3 == 0 else 200 for number, key in enumerate(keys)} | {UNKNOWN: 401}
    await town.say(route_record("acme", "shop", 1), topic=CONTEXTS_BULK)
    for at in range(0, len(rows), 500):
        await town.say(*rows[at : at + 500], topic=CONTEXTS_BULK)
    part = town.gateway()
    wrong, cannot_tell, answered, filled_up = [], [], [], asyncio.Event()

    async def client(mine: list[bytes]) -> None:
        for key in itertools.cycle(mine):
            if filled_up.is_set():
                return
            try:
                status, _ = await town.ask(part, "/decide/apps/shop/", key)
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)  # it is not there yet
                continue
            answered.append(status)
            if status == 503:
                cannot_tell.append(key)
            elif status != right[key]:
                wrong.append((key, status))

    async with asyncio.TaskGroup() as clients:
        for number in range(16):
            clients.create_task(client([*keys[number::16], UNKNOWN]))
        await town.started(part)
        async with asyncio.timeout(30):
            while 200 not in answered or not cannot_tell:  # without canaries nobody can tell of UNKNOWN
                await asyncio.sleep(0.01)  # another process's table
        await town.say_canaries(9000)
        await town.reached(part, 9000)
        filled_up.set()
    assert wrong == []
    assert {key: (await town.ask(part, "/decide/apps/shop/", key))[0] for key in [*keys[:50], UNKNOWN]} == {
        key: right[key] for key in [*keys[:50], UNKNOWN]
    }


DAMAGE = {
    "no table at all": lambda data: b"this is no database" * 500,
    "cut off": lambda data: data[: len(data) // 2],
    "pages of noise": lambda data: data[:4096] + b"\xa5" * (len(data) - 4096),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_table_that_cannot_be_read_makes_503_and_is_left_as_it_is(town, damage) -> None:
    part = town.gateway()
    await filled(town)
    await town.say(*(key_record(a_key(), 4) for _ in range(200)), topic=CONTEXTS_BULK)
    await town.say_canaries(5)
    await town.started(part)
    await town.reached(part, 5)
    part.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(part.process.wait, 20)
    file = part.folder / "data" / "contexts.db"
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    for leftover in file.parent.glob("contexts.db-*"):
        leftover.unlink()
    said = await town.started(part)
    assert not said["ready"]
    assert await town.answers(part) == CANNOT_TELL
    assert said["wrong"]
    assert "contexts.db" in part.output()
    assert "contexts.db" not in str(said), "anybody may ask"
    assert file.read_bytes() == damaged
    part.kill()
    file.rename(file.with_suffix(".damaged"))
    await town.started(part)
    await town.reached(part, 5)
    assert await town.answers(part) == ANSWERS


async def test_what_is_not_signed_for_this_region_is_refused_alone_and_told_of(town) -> None:
    part = town.gateway(settings="heartbeat_seconds = 0.2")
    await filled(town)
    await town.started(part)
    await town.reached(part, 4)
    forged, foreign = a_key(), a_key()
    await town.log.append([to_message(CONTEXTS, key_record(forged, 9))])
    await town.say(key_record(foreign, 9), region="us")
    await town.say(key_record(GOOD, 5, revoked=True, tenant="acme"), region="us")
    await town.say_canaries(9)
    await town.reached(part, 9)
    assert await town.answers(part) == ANSWERS
    for key in (forged, foreign):
        assert (await town.ask(part, "/decide/", key))[0] == 503, "neither known nor known to be missing"
    beat = await last_beat(town, lambda beat: beat.revision >= 9)
    assert set(beat.refused) == {key_name(forged), key_name(foreign), key_name(GOOD)}
    assert (beat.refused_count, beat.ready, beat.rows) == (3, True, len(ROWS))


async def last_beat(town: Town, wanted) -> GatewayBeat:
    offset = 0
    async with asyncio.timeout(30):
        while True:
            for entry in await town.log.read({TopicPartition(GATEWAYS, 0): offset}, wait_seconds=30):
                offset = entry.offset + 1
                beat = msgspec.json.decode(from_entry(entry).value, type=GatewayBeat)
                if wanted(beat):
                    return beat


async def test_sweeps_are_answered_under_the_gateways_own_name(town) -> None:
    parts = [town.gateway("one"), town.gateway("two")]
    await filled(town)
    for part in parts:
        await town.started(part)
        await town.reached(part, 4)
        # Answered from now on: a beat is appended after the answerer has begun.
    await last_beat(town, lambda beat: beat.gateway == "two" and beat.ready)
    answer, sent = None, 0
    async with asyncio.timeout(30):
        while answer is None:
            sent += 1
            await town.log.append([request_message(Request(f"r{sent}", context_table("two"), {}))])
            entries = await town.log.read({TopicPartition(DIGESTS.name, 0): 0}, wait_seconds=2)
            answer = next((read_answer(entry) for entry in entries), None)
    assert answer.digests == digest_of(ROWS)


async def test_a_gateway_on_another_machine_reads_through_the_logs_server(town) -> None:
    key_file = town.folder / "gateway.key"
    key = ensure_secret(key_file)
    app = log_server(town.log, {"gateway": hash_secret(key)}, {"gateway": GATEWAY_RIGHTS})
    port = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(app, "127.0.0.1", 0, ready=port.set_result))
    address = f"http://127.0.0.1:{await port}"
    part = town.gateway(log=address, settings=f'log_key_file = "{key_file}"')
    await filled(town)
    await town.started(part)
    await town.reached(part, 4)
    assert (await last_beat(town, lambda beat: beat.ready)).gateway == "one"
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    part.kill()
    assert (await town.started(part))["ready"]
    assert await town.answers(part) == ANSWERS
