"""A whole hub whose configuration names a PostgreSQL."""

from pathlib import Path

from hub_parts import put, tenant
from transom.catalog.contexts import shipped_contexts
from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.kinds import shipped
from transom.hub.config import HubConfig
from transom.hub.relay import CHANGES
from transom.hub.service import running_hub
from transom.logs.protocol import TopicPartition
from transom.runtime.clock import SystemClock
from transom.runtime.config import load
from transom.runtime.randomness import Randomness


async def test_a_hub_keeps_what_is_declared_where_its_configuration_says(
    database: str, tmp_path: Path
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f'store = "{database}"\nport = 0\n')
    config = load(file, HubConfig)
    for times in range(2):
        hub = running_hub(
            config, shipped(), shipped_contexts([]), [DeploymentController()], SystemClock(), Randomness()
        )
        async with hub as running:
            assert len(await running.store.all_of("Tenant")) == times
            await running.store.write(put(tenant("acme")))
            entries = await running.log.read({TopicPartition(CHANGES.name, 0): 0}, wait_seconds=30)
            assert [entry.key for entry in entries] == [b"Tenant//acme"]
    assert not (tmp_path / "store.db").exists()
