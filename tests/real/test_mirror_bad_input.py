"""Verbs of a mirror that are told something wrong, or whose clusters are away: one clear error, an exit code
that is not 0, and nothing changed.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

import mirror_loads as loads
from cli_here import Run, impatient, refused, runner
from cli_parts import transom
from engines.kafka import Brokers
from engines.process import free_port
from mirror_reading import bounds, quietly
from mirror_sides import side_of
from mirror_world import PATIENCE_SECONDS, World
from transom.processes.mirror_orders import mirror_orders

RECORDS = 30


@pytest.fixture
async def world(brokers: Brokers, far_brokers: Brokers, tmp_path: Path) -> AsyncIterator[World]:
    """A mirror of `orders`, which has one partition."""
    async with side_of(brokers), side_of(far_brokers):
        made = World(brokers, far_brokers, tmp_path, name="orders", include=["orders"])
        await asyncio.to_thread(
            loads.plain, brokers.bootstrap, "orders", random.Random(1), count=RECORDS, partitions=1
        )
        yield made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


async def mirrored(world: World) -> None:
    async with world.running():
        await world.caught_up("orders")


def held(world: World) -> dict[str, dict[int, tuple[int, int]]]:
    """All that stands in the target: each topic's partitions, with where they begin and end. Blocks."""
    topics = AdminClient(quietly(world.target.bootstrap)).list_topics(timeout=20).topics
    ours = [name for name in topics if not name.startswith("__")]
    return {name: bounds(world.target.bootstrap, name) for name in ours}


def config_of(world: World, folder: Path, *changes: tuple[str, str]) -> str:
    """The mirror's configuration, with something in it replaced."""
    text = world.config.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    folder.mkdir(exist_ok=True)
    path = folder / f"changed-{len(list(folder.iterdir()))}.toml"
    path.write_text(text)
    return str(path)


async def test_a_target_that_is_away_is_an_error_of_every_verb(
    world: World, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    port = free_port()
    config = config_of(world, tmp_path, (world.target.bootstrap, f"127.0.0.1:{port}"))
    for verb in (
        ("mirror", "status"),
        ("mirror", "pause", "orders"),
        ("mirror", "resume", "orders"),
        ("mirror", "skip", "orders/0", "5"),
        ("mirror", "rewind", "billing"),
        ("offsets", "translate", "orders/0", "5"),
        ("mirror", "--dry-run"),
    ):
        told = await run(*verb, "-c", config)
        away = f"127.0.0.1:{port}: connection refused"
        refused(told, 3, f"error: Kafka at 127.0.0.1:{port} cannot", f"no broker answers: {away}\n")
        assert f"waiting for the target of mirror 'orders', Kafka at 127.0.0.1:{port}: " in told.err


async def test_a_source_that_is_away_is_an_error_of_what_needs_it(
    world: World, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mirrored(world)
    port = free_port()
    config = config_of(world, tmp_path, (world.source.bootstrap, f"127.0.0.1:{port}"))
    before = await asyncio.to_thread(held, world)
    for verb in (
        ("mirror", "--dry-run"),
        ("mirror", "skip", "orders/0", "5"),
        ("mirror", "rewind", "billing"),
    ):
        with monkeypatch.context() as now:
            impatient(now)
            told = await run(*verb, "-c", config)
        refused(told, 3, f"127.0.0.1:{port}: connection refused\n")
    assert await asyncio.to_thread(held, world) == before
    for verb, said in (
        (("mirror", "status"), "no process of this mirror runs"),
        (("mirror", "pause", "orders"), "orders is paused"),
        (("mirror", "resume", "orders"), "orders goes on"),
        (("offsets", "translate", "orders/0", "5"), "eu.orders/0 "),
    ):
        told = await run(*verb, "-c", config)
        assert (told.code, told.err) == (0, "")
        assert told.out.startswith(said)


async def test_what_there_is_not_is_an_error_and_changes_nothing(
    world: World, tmp_path: Path, run: Run
) -> None:
    config = str(world.config)
    refused(
        await run("mirror", "status", "-c", config),
        1,
        f"mirror 'orders' has never run into Kafka at {world.target.bootstrap}",
    )
    await mirrored(world)
    renamed = config_of(world, tmp_path, ("name = 'orders'", "name = 'invoices'"))
    before = await asyncio.to_thread(held, world)
    end = before["eu.orders"][0][1]
    for file, verb, code, said in (
        (config, ("mirror", "pause", "payments"), 1, "mirror 'orders' does not mirror 'payments'"),
        (config, ("mirror", "pause", "eu.orders"), 1, "is the copy of 'orders': name that"),
        (config, ("offsets", "translate", "eu.orders/0", "5", "--back"), 1, "is the copy of 'orders': name"),
        (config, ("mirror", "resume", "payments"), 1, "mirror 'orders' does not mirror 'payments'"),
        (config, ("mirror", "skip", "payments/0", "5"), 1, "'orders' does not mirror payments/0"),
        (config, ("mirror", "skip", "orders/7", "5"), 1, "'orders' does not mirror orders/7"),
        (config, ("mirror", "skip", "orders/0", str(RECORDS + 1)), 1, f"nothing is behind {RECORDS} yet"),
        (config, ("mirror", "skip", "orders/0", str(1 << 63)), 2, "is not in the range"),
        (config, ("mirror", "rewind", "billing"), 1, "group 'billing' has committed nothing at the source"),
        (config, ("offsets", "translate", "payments/0", "5"), 1, "does not mirror payments/0"),
        (config, ("offsets", "translate", "orders/7", "5"), 1, "does not mirror orders/7"),
        (config, ("offsets", "translate", "orders/0", str(RECORDS + 1)), 1, "is not mirrored yet"),
        (config, ("offsets", "translate", "orders/0", str(end + 1), "--back"), 1, "is not mirrored yet"),
        (config, ("offsets", "translate", "orders/0", str(1 << 63)), 2, "is not in the range"),
        (renamed, ("mirror", "status"), 1, "mirror 'invoices' has never run"),
        (renamed, ("mirror", "pause", "orders"), 1, "mirror 'invoices' does not mirror 'orders'"),
        (renamed, ("mirror", "skip", "orders/0", "5"), 1, "mirror 'invoices' does not mirror orders/0"),
        (renamed, ("mirror", "rewind", "billing"), 1, "mirror 'invoices' has never run"),
        (renamed, ("offsets", "translate", "orders/0", "5"), 1, "'invoices' does not mirror orders/0"),
    ):
        refused(await run(*verb, "-c", file), code, said)
    assert await asyncio.to_thread(held, world) == before


async def test_patterns_that_mirror_nothing_or_a_mirrors_own_output_are_told_before_anything_is_made(
    world: World, tmp_path: Path, run: Run
) -> None:
    nothing = config_of(world, tmp_path, ("['orders']", "['order']"))
    told = await run("mirror", "--dry-run", "-c", nothing)
    said = "mirror nothing: no topic of the source that its user may see matches topics.include\n"
    assert (told.code, told.out) == (0, said)
    itself = (f"'kafka://{world.source.bootstrap}'", f"'kafka://{world.target.bootstrap}'")
    async with side_of(world.target) as side:
        await side.make("orders")
        for changes, said in (
            (
                [itself, ("['orders']", "['.*']")],
                "topics.include  matches this mirror's own output, 'eu.orders'",
            ),
            (
                [itself, ("['orders']", "['orders']\nnames = 'identity'")],
                "topics.names  source and target are one",
            ),
        ):
            config = config_of(world, tmp_path, *changes)
            refused(await run("mirror", "--dry-run", "-c", config), 2, said)
            refused(await transom("mirror", "-c", config, cwd=tmp_path), 2, said)
        assert list(await asyncio.to_thread(held, world)) == ["orders"]


async def test_a_dry_run_refuses_what_a_start_refuses(world: World, tmp_path: Path, run: Run) -> None:
    config = config_of(world, tmp_path, ("['orders']", "['orders']\n[groups]\ninclude = ['(']"))
    for verb in ((), ("--dry-run",)):
        refused(await transom("mirror", *verb, "-c", config, cwd=tmp_path), 2, "groups.include[0]  '('")
    async with side_of(world.target) as side:
        await side.make("eu.orders")
        await side.fill("eu.orders", [b"strange"])
        told = await run("mirror", "--dry-run", "-c", str(world.config))
        assert told.out.startswith("do not mirror 'orders' to 'eu.orders': ")


async def test_a_second_mirror_of_the_same_name_does_not_take_the_work_of_the_first(
    world: World, tmp_path: Path, run: Run
) -> None:
    other = config_of(world, tmp_path, ("name = 'eu'", "name = 'ap'"), ("listen", "#"))
    async with world.running():
        await world.caught_up("orders")
        said = "runs that mirrors 'orders' to 'eu.orders', not to 'ap.orders'; give this mirror another name"
        refused(await run("mirror", "--dry-run", "-c", other), 2, said)
        refused(await transom("mirror", "-c", other, cwd=tmp_path), 2, said)
        assert "ap.orders" not in await asyncio.to_thread(held, world)
        elsewhere = config_of(world, tmp_path, (world.source.bootstrap, world.target.bootstrap))
        said = "runs that mirrors another cluster than this source; give this mirror another name"
        refused(await run("mirror", "--dry-run", "-c", elsewhere), 2, said)


async def test_status_says_how_to_go_on_with_what_has_stopped(world: World, run: Run) -> None:
    await mirrored(world)
    async with side_of(world.source) as side:  # which removes the topic
        await side.make("orders")
        async with world.running():
            await world.told(lambda parts: any(each.state == "stopped" for each in parts))
            told = await run("mirror", "status", "-c", str(world.config))
    assert "; to go on: transom mirror skip orders/0 OFFSET\n" in told.out


async def test_a_mirror_whose_target_is_away_says_so_and_waits(world: World, tmp_path: Path) -> None:
    port = free_port()
    alone = World(
        world.source, world.target, tmp_path, name="alone", ways=(world.source.bootstrap, f"127.0.0.1:{port}")
    )
    (part,) = alone.parts
    part.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "waiting for what is away" not in part.output():
                await asyncio.sleep(0.1)
        assert f"127.0.0.1:{port}: connection refused" in part.output()
        assert part.running
        part.signal(signal.SIGTERM)
        assert part.process is not None
        assert await asyncio.to_thread(part.process.wait, 20) == -signal.SIGTERM
    finally:
        part.kill()


async def test_a_mirror_whose_source_is_away_runs_and_tells_it(world: World, tmp_path: Path) -> None:
    """KAFKA-12798: there it does not even come up."""
    port = free_port()
    alone = World(
        world.source, world.target, tmp_path, name="alone", ways=(f"127.0.0.1:{port}", world.target.bootstrap)
    )
    async with alone.running(), mirror_orders(alone.config) as orders, asyncio.timeout(PATIENCE_SECONDS):
        troubles: tuple[str, ...] = ()
        while not any(f"127.0.0.1:{port}: connection refused" in told for told in troubles):
            await asyncio.sleep(0.1)
            troubles = (await orders.status())[0].troubles
