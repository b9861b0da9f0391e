"""Hub and regions whose engines are away when they start wait, say for what, and begin; mistakes end them."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.plant import Part, Plant

from engines.kafka import Brokers
from engines.postgres import Postgres
from kafka_logs import empty
from transom.processes.up_files import Engines
from transom.runtime.secret_files import write_private

REGION = "eu"
WAITING = "waiting for what is away"


def plant_on(brokers: Brokers, database: str, folder: Path) -> Plant:
    log = f"kafka://{brokers.bootstrap}"
    return Plant(folder, [REGION], {"a": "null"}, engines=Engines(database, {"hub": log, REGION: log}))


async def says(part: Part, *words: str) -> None:
    """Wait until a line of what it prints holds all of these."""
    while not any(all(word in line for word in words) for line in part.output().splitlines()):
        assert part.running, part.output()
        await asyncio.sleep(0.05)


@pytest.mark.soak
async def test_machines_may_start_in_any_order(
    brokers: Brokers, postgres: Postgres, database: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(brokers.kill)
    await asyncio.to_thread(postgres.kill)
    plant = plant_on(brokers, database, tmp_path)
    region = plant.regions[REGION]
    try:
        plant.hub.start()
        region.start()
        async with asyncio.timeout(60):
            await says(plant.hub, WAITING, f"{postgres.port}", "refused")
            await says(region, WAITING, f"{brokers.bootstrap}: connection refused")
        # Told to stop meanwhile, it is gone at once: at a request to nobody it would hang for seconds.
        region.signal(signal.SIGTERM)
        assert region.process is not None
        assert await asyncio.to_thread(region.process.wait, 5) == -signal.SIGTERM
        region.start()
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(brokers.start)
        await plant.hub.ready()
        await region.ready()
        assert plant.hub.output().count(WAITING) < 5, "once a minute is enough"
    finally:
        for part in plant.parts:
            part.kill()
        await asyncio.to_thread(brokers.mend)
        await empty(brokers)


def ended(*words: str) -> subprocess.CompletedProcess[str]:
    """What `transom` says of a mistake; its patience with one would be longer than ours."""
    command = [sys.executable, "-m", "transom", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            'store = "postgresql://hub@nosuch.invalid/hub"\nstore_trust = "TRUST"',
            "correct the server's name in store",
        ),
        ('store = "postgresql://nobody@POSTGRES/hub"', "no password supplied"),
        ('log = "kafka+tls://nosuch.invalid:9092"', "nosuch.invalid:9092: its host name is not known"),
        ('log = "kafka://hub@SASL"\nlog_key_file = "key"', "refuses user 'hub' with SCRAM-SHA-512"),
        ('log = "kafka+tls://hub@SASL_SSL"\nlog_key_file = "key"', "certificate verify failed"),
    ],
)
def test_a_mistake_ends_a_hub_with_one_error(
    secure_brokers: Brokers, postgres: Postgres, tmp_path: Path, lines: str, said: str
) -> None:
    secure = secure_brokers.secure
    assert secure is not None
    write_private(tmp_path / "key", "not-it")
    for word, meant in (
        ("TRUST", str(secure.trust)),
        ("POSTGRES", f"127.0.0.1:{postgres.port}"),
        ("SASL_SSL", secure.bootstrap("SASL_SSL")),
        ("SASL", secure.bootstrap("SASL_PLAINTEXT")),
    ):
        lines = lines.replace(f'"{word}"', f'"{meant}"').replace(f"@{word}", f"@{meant}")
    file = tmp_path / "hub.toml"
    file.write_text(f"port = 0\n{lines}\n")
    done = ended("hub", "-c", str(file))
    assert done.returncode not in (0, -signal.SIGKILL)
    assert said in done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert WAITING not in done.stderr
    assert "not-it" not in done.stderr
