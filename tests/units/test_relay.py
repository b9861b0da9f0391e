import asyncio

import pytest
from link_parts import AnswersLost

from hub_parts import CLOCK, REGIONS, deployment, hub_log, open_store, put
from transom.catalog.deployment.controller import DeploymentController
from transom.hub.controllers import ControllerRunner
from transom.hub.relay import CHANGES, Relay, check_incarnation
from transom.logs.protocol import TopicPartition
from transom.model.errors import FencedError, UnreachableError
from transom.runtime import tracing
from transom.runtime.duties import Lease
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers

pytestmark = pytest.mark.usefixtures("each_engine")

AT = TopicPartition(CHANGES.name, 0)


async def relayed(log, count):
    """The first `count` entries of the topic, once they are there."""
    entries = []
    while len(entries) < count:
        entries += await log.read({AT: len(entries)}, wait_seconds=30)
    return entries


def revisions(entries):
    return [int(entry.value.split(b'"revision":')[1].split(b",")[0]) for entry in entries]


async def test_the_outbox_reaches_the_log_in_revision_order_each_row_once(tmp_path):
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        log = await hub_log()
        group.start("relay", Relay(store, log).run)
        await asyncio.gather(*(store.write(put(deployment(f"app{n}"))) for n in range(50)))
        entries = await relayed(log, store.changed.value)
        assert revisions(entries) == list(range(1, store.changed.value + 1))
        headers = dict(entries[-1].headers)
        assert headers["ce_type"] == b"transom.dev.Deployment.ADDED"
        assert headers["ce_partitionkey"] == entries[-1].key
        assert tracing.valid(headers["traceparent"].decode())
        assert len({dict(entry.headers)["ce_id"] for entry in entries}) == len(entries)


async def test_what_was_appended_is_not_looked_for_again(tmp_path, monkeypatch):
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        log, looks, outbox = await hub_log(), [], store.outbox

        async def counted(after: int, most: int):
            looks.append(after)
            return await outbox(after, most)

        monkeypatch.setattr(store, "outbox", counted)
        group.start("relay", Relay(store, log).run)
        for number in range(5):
            await store.write(put(deployment(f"app{number}")))
            await relayed(log, store.changed.value)
        assert len(looks) == len(set(looks))


async def test_a_restarted_relay_goes_on_with_the_next_row(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        for round_number in range(3):
            await store.write(put(deployment(f"app{round_number}")))
            async with workers(CLOCK, Randomness(1)) as group:
                group.start("relay", Relay(store, log).run)
                await relayed(log, store.changed.value)
        assert revisions(await log.read({AT: 0})) == list(range(1, store.changed.value + 1))


async def test_whenever_it_dies_after_an_append_each_row_is_there_once(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        for number in range(5):
            await store.write(put(deployment(f"app{number}")))
            with pytest.raises(UnreachableError):
                await Relay(store, AnswersLost(log, "append")).run()
        assert revisions(await log.read({AT: 0})) == list(range(1, store.changed.value + 1))


async def test_a_former_relay_is_refused(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        former = asyncio.create_task(Relay(store, log).run())
        await relayed(log, store.changed.value)
        await log.take_fence("relay")
        await store.write(put(deployment()))
        with pytest.raises(FencedError):
            await former
        assert len(await log.read({AT: 0})) == store.changed.value - 1


async def test_rows_the_log_has_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr("transom.hub.relay._FORGET_EVERY", 10)
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        log = await hub_log()
        group.start("relay", Relay(store, log).run)
        for number in range(30):
            await store.write(put(deployment(f"app{number}")))
        await relayed(log, store.changed.value)
        assert len(await store.outbox(0, 1000)) <= 20


async def test_a_store_of_an_epoch_before_that_of_the_log_begins_one_above_it(tmp_path):
    """As when one older copy is put back twice, however much was written to it since."""
    log = await hub_log()
    async with open_store(tmp_path / "first") as store, workers(CLOCK, Randomness(1)) as group:
        await store.begin_epoch(store.epoch + 1000)
        group.start("relay", Relay(store, log).run)
        await store.write(put(deployment("app")))
        await relayed(log, 1)
        later = store.epoch
    async with open_store(tmp_path / "second") as store:
        assert store.epoch < later
        for number in range(5):
            await store.write(put(deployment(f"app{number}")))
        await check_incarnation(store, log)
        assert store.epoch == later + 1
        await check_incarnation(store, log)
        assert store.epoch == later + 1


async def test_a_former_holder_that_takes_the_fence_late_appends_nothing(tmp_path):
    """It stood still between looking at its lease and taking the fence."""
    async with open_store(tmp_path) as store:
        log = await hub_log()
        lost = Relay(store.under(Lease("relay", "a", 1)), log)
        with pytest.raises(FencedError, match="has taken over 'relay'"):
            await lost.run()
        assert (await log.bounds(CHANGES.name))[0].end == 0


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "given",
    [
        "",
        TRACE[:-3],
        TRACE.upper(),
        f"{TRACE}\n",
        f"01{TRACE[2:]}",
        TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        TRACE.replace("b7ad6b7169203331", "0" * 16),
    ],
)
def test_what_is_no_trace_is_not_passed_on(given):
    assert tracing.valid(TRACE) == TRACE
    assert tracing.valid(given) == ""


async def test_the_trace_of_a_request_goes_with_its_change_and_what_controllers_make_of_it(tmp_path):
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        log = await hub_log()
        runner = ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1))
        group.start("relay", Relay(store, log).run)
        group.start("controller", runner.run)
        await store.write(put(deployment("first")))  # by which it has begun to listen
        await events_of(log, b"first", 1 + len(REGIONS))
        tracing.current.set(TRACE)
        await store.write(put(deployment("second")))
        tracing.current.set("")
        events = await events_of(log, b"second", 1 + len(REGIONS))
        assert {entry.key.split(b"/")[0] for entry in events} == {b"Deployment", b"RegionalDeployment"}
        assert {dict(entry.headers)["traceparent"].decode() for entry in events} == {TRACE}


async def events_of(log, name, count):
    """The events of a deployment and of what is made for it, once there are so many."""
    offset, found = 0, []
    while len(found) < count:
        entries = await log.read({AT: offset}, wait_seconds=30)
        offset = entries[-1].offset + 1
        found += [entry for entry in entries if entry.key.split(b"/")[2].startswith(name)]
    return found
