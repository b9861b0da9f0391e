"""Tests cannot run `compose.yaml`; a real broker is told what it says, and images are those of our jars."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from client_parts import append, new_topic, read

from engines.kafka import Brokers
from engines.process import free_port

ROOT = Path(__file__).parents[2]
PREFIX = "KAFKA_"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]


def kafka_in(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if name.startswith("kafka-")}


def test_its_images_are_the_versions_that_are_tested(services: dict[str, Any]) -> None:
    versions = re.findall(
        r"<kafka\.version>(\S+)<", (ROOT / "engines" / "pom.xml").read_text(encoding="utf-8")
    )
    assert {service["image"] for service in kafka_in(services).values()} == {f"apache/kafka:{versions[0]}"}
    assert len(kafka_in(services)) == 4
    assert services["postgres"]["image"] == "postgres:18"


def test_every_part_is_reached_on_this_machine_at_a_port_of_its_own(services: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "how-to" / "engines.md").read_text(encoding="utf-8")
    outside: list[str] = []
    for name, service in services.items():
        ((host, port, inside),) = [published.split(":") for published in service["ports"]]
        assert host == "127.0.0.1"
        outside.append(port)
        assert port in page
        if name.startswith("kafka-"):
            told = service["environment"]
            assert f"CLIENTS://127.0.0.1:{port}," in told["KAFKA_ADVERTISED_LISTENERS"]
            assert f"CLIENTS://:{inside}," in told["KAFKA_LISTENERS"]
    assert len(set(outside)) == len(services)


async def test_a_real_broker_takes_what_it_says(services: dict[str, Any], shared_brokers: Brokers) -> None:
    told = services["kafka-eu"]["environment"]
    ports = {number: free_port() for number in ("9000", "9001", "9092", "9192")}
    ports["9192"] = ports["9092"]  # what Docker forwards
    settings = {
        name.removeprefix(PREFIX).lower().replace("_", "."): re.sub(
            r":(9\d{3})\b", lambda hit: f":{ports[hit[1]]}", str(value)
        )
        for name, value in told.items()
        if name != "KAFKA_LOG_DIRS"
    }
    settings["listeners"] = settings["listeners"].replace("CLIENTS://:", "CLIENTS://127.0.0.1:")
    async with Brokers(settings=settings) as brokers:
        road = f"127.0.0.1:{ports['9092']}"
        await new_topic(road, "composed")
        await append(road, "composed", b"1")
        assert await read(road, "composed") == [b"1"]
        unknown = [line for line in brokers.processes[0].written().splitlines() if "unknown config" in line]
        assert unknown == []
