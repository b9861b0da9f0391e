"""docs/how-to/mirror.md, "Move from MirrorMaker 2": a consumer of an old copy finds its place in the new one.

The page's own commands are carried out one after another, with Kafka's own tools.
"""

import asyncio
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from cli_here import Run, runner
from engines import jars
from engines.kafka import Brokers
from mirror_reading import quietly
from mirror_secure import PAGE
from mirror_sides import Side, side_of
from mirror_world import World
from transom.runtime.clock import SystemClock

COUNT, READ = 30, 12
"""How many records there are, and how many the consumer of the old copy has read."""
CLASSES = {
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-get-offsets.sh": "org.apache.kafka.tools.GetOffsetShell",
}


def commands() -> list[list[str]]:
    """Those that the page gives for one partition, as words."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "kafka-get-offsets.sh" in block)
    return [shlex.split(line) for line in block.splitlines()]


def with_option(words: list[str], name: str, value: str) -> list[str]:
    """A command with another value after an option that it has."""
    at = words.index(name)
    return [*words[: at + 1], value, *words[at + 2 :]]


async def produce(side: Side, topic: str, begin_ms: int, *, every: int) -> None:
    """The same records in transactions of `every`: what ends them has offsets, too, and no later times."""
    await side.make(topic)

    def send() -> None:
        producer = Producer(quietly(side.brokers.bootstrap) | {"transactional.id": topic})
        producer.init_transactions(20)
        for begin in range(0, COUNT, every):
            producer.begin_transaction()
            for number in range(begin, min(begin + every, COUNT)):
                producer.produce(topic, b"%d" % number, timestamp=begin_ms + 1000 * number)
            producer.commit_transaction(20)

    await asyncio.to_thread(send)


@pytest.fixture
def tool(brokers: Brokers, far_brokers: Brokers) -> Callable[[list[str]], str]:
    """Runs one of Kafka's tools; returns what it prints."""
    places = {"$EU": brokers.bootstrap, "$US": far_brokers.bootstrap}

    def run(words: list[str]) -> str:
        java = jars.java_command(jars.NEWEST, 128)
        told = [places.get(word, word) for word in words[1:]]
        done = subprocess.run(
            [*java, CLASSES[words[0]], *told], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


async def test_a_consumer_of_an_old_copy_goes_on_in_the_new_one(
    brokers: Brokers,
    far_brokers: Brokers,
    tmp_path: Path,
    tool: Callable[[list[str]], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run: Run = runner(monkeypatch, capsys)
    place, time, at_source, translated, put = commands()
    world = World(
        brokers,
        far_brokers,
        tmp_path,
        include=["orders"],
        topics="names = 'suffix'\nenvironment = 'production'",
    )
    async with side_of(brokers) as source, side_of(far_brokers) as target:
        begin_ms = int(SystemClock().wall() * 1000) + 60_000
        await produce(source, "orders", begin_ms, every=7)
        await produce(target, "eu.orders", begin_ms, every=5)
        assert await target.reads("reports", "eu.orders", READ) == [b"%d" % n for n in range(READ)]
        async with world.running():
            await world.caught_up("orders")
            told = await asyncio.to_thread(tool, place)
            found = re.search(r"^reports +eu\.orders +0 +(\d+)", told, re.MULTILINE)
            assert found, told
            told = await asyncio.to_thread(tool, with_option(time, "--offset", found[1]))
            found = re.search(r"CreateTime:(\d+)", told)
            assert found, told
            told = await asyncio.to_thread(tool, with_option(at_source, "--time", found[1]))
            offset = told.strip().rpartition(":")[2]
            ran = await run(*translated[1:-1], offset, "-c", str(world.config))
            await asyncio.to_thread(tool, with_option(put, "--to-offset", ran.out.split()[-1]))
            next_read = await target.reads("reports", "orders.production-eu", COUNT - READ)
            assert next_read == [b"%d" % n for n in range(READ, COUNT)]
