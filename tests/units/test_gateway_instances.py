"""Where a gateway forwards to: the healthy instances, from its own disk when the log is gone."""

import pytest
from tests.context_parts import entry_of

from transom.logs.protocol import Entry
from transom.model.errors import InvalidError
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.roads import STATUS
from transom.model.version import Version
from transom.region.gateway.decision import Endpoint
from transom.region.gateway.instances import InstanceTable, read_instance
from transom.tables.memory import MemoryTable
from transom.tables.sqlite import SqliteTable


def instance(
    name: str, revision: int, *, tenant: str = "acme", deleted: bool = False, **status: object
) -> Record:
    about = {"app": "shop", "health": "Healthy", "host": "127.0.0.1", "port": 9000, "region": "eu"} | status
    version = Version(1, revision, "eu/a")
    return Record(f"Instance/{tenant}/{name}", version, b"{}" if deleted else to_json(about), deleted)


async def test_only_healthy_instances_of_the_tenants_own_app_are_known_in_a_stable_order() -> None:
    table = await InstanceTable.open(MemoryTable())
    others = [
        instance("shop-u", 1, health="Unhealthy"),
        instance("shop-s", 1, health="Starting"),
        instance("shop-p", 1, port=0),
        instance("shop-h", 1, host=""),
        instance("shop-x", 1, tenant="globex", port=9100),
        instance("till-a", 1, app="till", port=9200),
    ]
    await table.apply([instance("shop-b", 1, port=9001), instance("shop-a", 1), *others], {})
    assert table.healthy("acme", "shop") == (
        Endpoint("shop-a", "127.0.0.1", 9000),
        Endpoint("shop-b", "127.0.0.1", 9001),
    )
    assert table.healthy("globex", "shop") == (Endpoint("shop-x", "127.0.0.1", 9100),)
    assert table.healthy("acme", "till") == (Endpoint("till-a", "127.0.0.1", 9200),)
    assert table.healthy("globex", "till") == ()


async def test_an_instance_is_followed_through_its_life() -> None:
    table = await InstanceTable.open(MemoryTable())
    await table.apply([instance("shop-a", 1, health="Starting"), instance("shop-b", 1, port=9001)], {})
    assert [each.instance for each in table.healthy("acme", "shop")] == ["shop-b"]
    await table.apply([instance("shop-a", 2)], {})
    assert len(table.healthy("acme", "shop")) == 2
    await table.apply([instance("shop-a", 3, port=9005)], {})
    assert [each.port for each in table.healthy("acme", "shop")] == [9005, 9001]
    await table.apply([instance("shop-a", 2)], {})  # an old report that is read again
    assert [each.port for each in table.healthy("acme", "shop")] == [9005, 9001]
    await table.apply([instance("shop-a", 4, deleted=True), instance("shop-b", 2, health="Unhealthy")], {})
    assert table.healthy("acme", "shop") == ()


async def test_instances_are_known_from_disk_at_once(tmp_path) -> None:
    first = await InstanceTable.open(await SqliteTable.open(tmp_path / "instances.db"))
    await first.apply([instance("shop-a", 1), instance("shop-b", 1, health="Unhealthy")], {})
    await first.close()
    second = await InstanceTable.open(await SqliteTable.open(tmp_path / "instances.db"))
    assert [each.instance for each in second.healthy("acme", "shop")] == ["shop-a"]
    await second.close()


async def test_an_instance_that_cannot_be_read_is_sent_nothing_and_harms_no_other() -> None:
    table = await InstanceTable.open(MemoryTable())
    await table.apply([instance("shop-a", 1), instance("shop-b", 1, port=9001)], {})
    broken = [
        Record("Instance/acme/shop-a", Version(1, 2, "eu/a"), b"{"),
        instance("shop-c", 2, port="not a number"),
    ]
    await table.apply(broken, {})
    assert [each.instance for each in table.healthy("acme", "shop")] == ["shop-b"]


async def test_a_commit_that_was_not_heard_of_is_noticed_with_the_next() -> None:
    class Unheard(MemoryTable):
        fails = False

        async def apply(self, records, positions):
            changed = await super().apply(records, positions)
            if self.fails:
                self.fails = False
                raise OSError("the answer got lost")
            return changed

    inner = Unheard()
    table = await InstanceTable.open(inner)
    inner.fails = True
    with pytest.raises(OSError, match="lost"):
        await table.apply([instance("shop-a", 1)], {})
    await table.apply([instance("shop-a", 1)], {})
    assert [each.instance for each in table.healthy("acme", "shop")] == ["shop-a"]


def test_of_all_reports_only_instances_are_kept() -> None:
    record = instance("shop-a", 1)
    assert read_instance(entry_of(record, topic=STATUS)) == record
    other = Record("RegionalDeployment/acme/shop@eu/a", Version(1, 1, "eu/a"), b"{}")
    assert read_instance(entry_of(other, topic=STATUS)) is None
    with pytest.raises(InvalidError):
        read_instance(Entry(STATUS, 0, 0, 0, b"Instance/acme/shop-a", b"{}"))
