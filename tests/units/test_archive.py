import pytest
from link_parts import AnswersLost

from hub_parts import CLOCK, deployment, hub_log, open_store, put, remove, zone_status
from transom.catalog.deployment.controller import DeploymentController
from transom.hub.archive import Archive, change_for
from transom.hub.changes import Change, creating
from transom.hub.controllers import ControllerRunner
from transom.logs.protocol import Topic
from transom.logs.records import to_message
from transom.model.errors import ForbiddenError, NotFoundError, UnreachableError
from transom.model.names import Key
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.version import Version
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers

pytestmark = pytest.mark.usefixtures("each_engine")

TOPIC = "status.production-eu"
KEY = Key("Deployment", "acme", "shop")
REGIONAL = Key("RegionalDeployment", "acme", "shop.eu")
INSTANCE = "Instance/acme/shop.a.x7k2q"


class Reports:
    """A hub whose archive reads what a test says that a region reported."""

    def __init__(self, store, log, group):
        self.store, self.log = store, log
        self.archive = group.start("archive", Archive(store, log, "eu", TOPIC).run)

    async def say(self, *records):
        """Append the reports, and wait until the archive has read them all."""
        await self.log.append([to_message(TOPIC, record) for record in records])
        (bounds,) = (await self.log.bounds(TOPIC)).values()
        while await position(self.store, self.log) != {bounds.end}:
            await self.store.changed.above(self.store.changed.value, 0.02)


async def position(store, log):
    """How far the archive has read, by what the store remembers."""
    topic_id = (await log.topics())[TOPIC].topic_id
    return set((await store.positions_of(f"archive/eu/{topic_id}")).values())


def said(counter, status, *, key=f"{REGIONAL}@a", epoch=1, deleted=False):
    return Record(key, Version(epoch, counter, "eu/a"), to_json(status), deleted)


@pytest.fixture
async def reports(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        await log.create([Topic(TOPIC, compact=True)])
        runner = ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1))
        await store.write(put(deployment(regions=["eu"])))
        await runner.look_at([KEY])
        async with workers(CLOCK, Randomness(1)) as group:
            yield Reports(store, log, group)


async def test_a_zone_s_report_becomes_the_status(reports):
    regional = await reports.store.get(REGIONAL)
    await reports.say(said(1, zone_status(regional)))
    status = (await reports.store.get(REGIONAL)).status
    assert status["ready"] == 1
    assert status["zones"]["a"]["reportVersion"] == "1.1.eu/a"


async def test_an_older_report_never_replaces_a_newer(reports):
    regional = await reports.store.get(REGIONAL)
    await reports.say(said(2, zone_status(regional)), said(1, zone_status(regional, ready=False)))
    assert (await reports.store.get(REGIONAL)).status["ready"] == 1
    await reports.say(said(1, zone_status(regional, ready=False), epoch=2))  # the region lost its storage
    assert (await reports.store.get(REGIONAL)).status["ready"] == 0


async def test_a_report_about_an_earlier_resource_of_the_name_is_left_out(reports):
    regional = await reports.store.get(REGIONAL)
    await reports.say(said(1, {**zone_status(regional), "uid": "another"}))
    assert (await reports.store.get(REGIONAL)).status == {}


async def test_a_region_reports_on_its_own_things_alone(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        await store.write(put(deployment(regions=["eu", "us"])))
        await ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1)).look_at([KEY])
        other = await store.get(Key("RegionalDeployment", "acme", "shop.us"))
        of_other = f"{other.key}@a"
        catalog = store.catalog
        refused = [
            change_for(said(9, zone_status(other), key=of_other), "eu", catalog),
            change_for(said(9, {}, key=of_other, deleted=True), "eu", catalog),
            change_for(said(9, {"health": "Healthy"}, key=INSTANCE), "eu", catalog),
            change_for(said(9, {}, key=INSTANCE, deleted=True), "eu", catalog),
        ]
        await store.write(change_for(said(1, {"health": "Starting"}, key=INSTANCE), "us", catalog))
        outcomes = await store.write_all(refused)
        assert [type(outcome) for outcome in outcomes] == [ForbiddenError] * 4
        assert (await store.get(other.key)).status == {}
        assert (await store.get(Key.parse(INSTANCE))).status["health"] == "Starting"
        accepted = await store.write(change_for(said(9, zone_status(other), key=of_other), "us", catalog))
        assert accepted.status["ready"] == 1


async def test_reports_that_cannot_be_read_are_left_out_alone(reports):
    regional = await reports.store.get(REGIONAL)
    await reports.say(
        Record(f"{REGIONAL}@a", Version(1, 1, "eu/a"), b"not json"),
        Record("Tenant//acme", Version(1, 1, "eu/a"), b"{}"),
        Record("nonsense", Version(1, 1, "eu/a"), b"{}"),
        Record("Gadget/acme/x", Version(1, 1, "eu/a"), b"{}"),
        said(2, zone_status(regional)),
    )
    assert (await reports.store.get(REGIONAL)).status["ready"] == 1


async def test_the_last_zone_to_end_lets_a_deleted_one_go(reports):
    await reports.store.write(remove(KEY))
    runner = ControllerRunner(DeploymentController(), reports.store, reports.log, CLOCK, Randomness(1))
    await runner.look_at([KEY])
    regional = await reports.store.get(REGIONAL)
    assert regional.deleting
    await reports.say(said(1, zone_status(regional)))
    assert (await reports.store.get(REGIONAL)).deleting
    await reports.say(said(2, zone_status(regional, terminated=True)))
    with pytest.raises(NotFoundError):
        await reports.store.get(REGIONAL)


async def test_instances_come_change_go_and_stay_gone(reports):
    one = said(1, {"health": "Starting"}, key=INSTANCE)
    await reports.say(one)
    assert (await reports.store.get(Key.parse(INSTANCE))).status["health"] == "Starting"
    await reports.say(said(2, {"health": "Healthy"}, key=INSTANCE))
    assert (await reports.store.get(Key.parse(INSTANCE))).status["health"] == "Healthy"
    await reports.say(said(3, {}, key=INSTANCE, deleted=True))
    await reports.say(one)  # read again, as a rewound mirror would
    with pytest.raises(NotFoundError):
        await reports.store.get(Key.parse(INSTANCE))


async def test_whenever_it_dies_after_a_write_the_report_and_the_position_are_there(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        await log.create([Topic(TOPIC, compact=True)])
        for number in range(1, 4):
            await log.append([to_message(TOPIC, said(number, {"health": str(number)}, key=INSTANCE))])
            with pytest.raises(UnreachableError):
                await Archive(AnswersLost(store, "write_all"), log, "eu", TOPIC).run()
            assert (await store.get(Key.parse(INSTANCE))).status["health"] == str(number)
            assert await position(store, log) == {number}


async def test_reading_the_same_reports_again_changes_nothing(reports):
    regional = await reports.store.get(REGIONAL)
    record = said(1, zone_status(regional))
    await reports.say(record)
    revision = reports.store.changed.value
    await reports.say(record, record)
    assert reports.store.changed.value == revision


async def test_people_cannot_make_what_regions_originate(reports):
    made = creating((await reports.store.get(KEY)).with_metadata(name="x"))
    outcome = await reports.store.write_all(
        [Change(Key("Instance", "acme", "x"), made, put(deployment()).actor)]
    )
    assert isinstance(outcome[0], Exception)


async def test_a_topic_that_was_lost_and_mirrored_again_is_read_from_its_start(tmp_path):
    async with open_store(tmp_path) as store:
        await store.write(put(deployment(regions=["eu"])))
        before = None
        for incarnation in range(2):
            log = await hub_log()
            await log.create([Topic(TOPIC, compact=True)])
            await ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1)).look_at([KEY])
            regional = await store.get(REGIONAL)
            async with workers(CLOCK, Randomness(1)) as group:
                ready = incarnation == 0
                news = said(incarnation + 1, zone_status(regional, ready=ready))
                await Reports(store, log, group).say(*([news] if before is None else [news, before]))
            before = news
        assert (await store.get(REGIONAL)).status["ready"] == 0
