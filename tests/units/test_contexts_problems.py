"""What people are told of gateways, holds, keys and kinds that are not as they should be."""

import pytest

from hub_contexts_parts import GateContext, catalog, gate, gates, override, works
from transom.catalog.deployment.controller import DeploymentController
from transom.hub.config import ContextsConfig, HubConfig
from transom.hub.contexts.beats import Beats
from transom.hub.contexts.roads import ContextRoads
from transom.hub.contexts.row import BULK
from transom.hub.contexts.service import Contexts, check_subjects
from transom.hub.contexts.signer import hub_signer
from transom.hub.service import running_hub
from transom.hub.store import Store
from transom.logs.memory import MemoryLog
from transom.model.contexts import ContextKinds
from transom.model.errors import InvalidError
from transom.model.roads import GatewayBeat
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.signing import new_signer


def beat(name="eu-1", **more):
    return GatewayBeat("eu", name, "now", **{"ready": True, **more})


def test_what_is_wrong_with_a_gateway_is_said_and_nothing_of_a_well_one():
    clock = ManualClock()
    beats = Beats("eu", clock)
    beats.hear(beat("well"), clock.wall())
    beats.hear(beat("new", ready=False), clock.wall())
    beats.hear(beat("picky", refused_count=3, refused={"a": "old", "b": "x" * 500}), clock.wall())
    beats.hear(beat("ill", workers={"contexts": "retrying"}), clock.wall())
    told = beats.problems()
    assert set(told) == {"gateway new", "gateway picky", "gateway ill"}
    assert told["gateway new"] == "not ready"
    assert told["gateway picky"].startswith("refused 3 records, such as b: xxx")
    assert len(told["gateway picky"]) < 200
    assert told["gateway ill"] == "workers that do not run: contexts"
    clock.advance(40)
    silent = "silent since 2023-11-14T22:13:20Z, forgotten 10 minutes after that"
    assert beats.problems()["gateway well"] == silent


def test_a_silent_gateway_counts_for_no_age_while_another_speaks():
    clock = ManualClock()
    beats = Beats("eu", clock)
    beats.hear(beat("gone", age_seconds=50.0), clock.wall())
    beats.hear(beat("there", age_seconds=1.0), clock.wall())
    assert beats.age_seconds() == 50.0
    clock.advance(20)
    beats.hear(beat("there", age_seconds=2.0), clock.wall())
    assert beats.age_seconds() == 2.0
    assert [each["silent"] for each in beats.described()] == [True, False]
    assert set(beats.problems()) == {"gateway gone"}
    clock.advance(20)
    assert beats.age_seconds() == 90.0, "all are silent: what they know grows old"
    beats.hear(beat("there"), clock.wall())
    assert beats.age_seconds() is None, "it knows nothing yet"


def test_a_gateway_that_is_not_heard_for_long_is_forgotten():
    clock = ManualClock()
    beats = Beats("eu", clock)
    beats.hear(beat("retired"), clock.wall())
    clock.advance(599)
    beats.hear(beat("there"), clock.wall())
    assert [each["gateway"] for each in beats.described()] == ["retired", "there"]
    clock.advance(1)
    assert [each["gateway"] for each in beats.described()] == ["there"]
    assert beats.hear(beat("retired"), clock.wall() - 700) is False, "read from the log once more"
    assert [each["gateway"] for each in beats.described()] == ["there"]


async def test_a_signing_key_is_made_once_and_never_anew(tmp_path):
    path = tmp_path / "signing.key"
    store = await Store.open(tmp_path / "new.db", catalog(), ManualClock(), Randomness(7))
    made = await hub_signer(store, path)
    assert (await hub_signer(store, path)).key_id == made.key_id
    await store.close()
    async with works(tmp_path) as hub:
        assert (await hub_signer(hub.store, path)).key_id == made.key_id
        path.unlink()
        with pytest.raises(InvalidError, match="is missing, and regions trust it"):
            await hub_signer(hub.store, path)
        assert not path.exists()


async def opened(hub, **config):
    kinds = ContextKinds([GateContext()])
    contexts = await Contexts.open(hub.store, kinds, ContextsConfig(**config), new_signer(), hub.clock)
    while await contexts.builder.do_some():
        pass
    return contexts


async def test_every_region_says_what_is_held(tmp_path):
    async with works(tmp_path) as hub:
        await hub.put(*gates(50))
        await hub.build()
        hub.clock.advance(60)
        await hub.remove(*(each.key for each in gates(50)))
        await hub.build()
        contexts = await opened(hub)
        line = contexts.region("eu").holds("eu")
        assert line == "share.gate.acme (50 rows); see 'transom contexts holds'"
        assert (await contexts.diff("eu"))["held"] == 50
        await contexts.close()


@pytest.mark.parametrize("bulk_rows", [100, 10])  # by a look at what is new, or by a job
async def test_a_region_that_a_hold_does_not_concern_is_not_bothered_with_it(tmp_path, bulk_rows):
    async with works(tmp_path, regions=("eu", "sa", "us"), bulk_rows=bulk_rows) as hub:
        many = [*gates(20, regions=["eu"]), gate("moving", regions=["sa"])]
        await hub.put(*many, gate("old", key="k", regions=["us"]))
        await hub.build()
        hub.clock.advance(60)
        await hub.remove(*(each.key for each in many))
        await hub.build()
        contexts = await opened(hub)

        def told():
            return [bool(contexts.region(name).holds(name)) for name in ("eu", "sa", "us")]

        assert told() == [True, True, False]
        await hub.put(gate("new", key="k", regions=["us"]))
        while await contexts.builder.do_some():
            pass
        assert contexts.region("us").holds("us").startswith("duplicate.gate.acme (1 rows)")
        assert "duplicate" not in contexts.region("eu").holds("eu")
        await contexts.close()


async def test_an_override_of_the_soak_is_for_what_waits_when_it_is_seen(tmp_path):
    async with works(tmp_path) as hub:
        contexts = await opened(hub, bulk_rows=0, max_share=1.0, soak_seconds=3600.0)
        assert contexts.gates.approved == 0

        async def written(value):
            await hub.put(*gates(3, value=value))
            while await contexts.builder.do_some():
                pass
            rows = [row._replace(lane=BULK) for row in (await hub.rows()).values()]
            await contexts.contexts.write(rows, upto=contexts.builder.progress, unseen=())
            await contexts.look_at_gates()
            return contexts.contexts.changed[BULK].value

        first = await written("a")
        assert contexts.gates.approved == 0
        await hub.put(override("soak", 3))
        while await contexts.builder.do_some():
            pass
        await contexts.look_at_gates()
        assert contexts.gates.approved == first
        assert await written("b") > first
        assert contexts.gates.approved == first
        assert contexts.gates.soak is not None
        await contexts.close()


def test_a_kind_of_contexts_must_be_made_of_resources_there_are():
    class Strange(GateContext):
        subject = "Gatte"

    check_subjects(catalog(), ContextKinds([GateContext()]))
    with pytest.raises(InvalidError, match="Gatte"):
        check_subjects(catalog(), ContextKinds([Strange()]))


async def test_a_hub_does_not_start_with_a_kind_of_contexts_made_of_nothing(tmp_path):
    class Strange(GateContext):
        subject = "Gatte"

    config = HubConfig(data=tmp_path, port=0, link_keys=tmp_path, signing_key=tmp_path / "signing.key")
    kinds, clock = ContextKinds([Strange()]), SystemClock()
    controllers = [DeploymentController()]
    with pytest.raises(InvalidError, match="Gatte"):
        async with running_hub(config, catalog(), kinds, controllers, clock, Randomness(7)):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_everything_that_is_wrong_on_the_roads_of_contexts_is_told_together(tmp_path):
    async with works(tmp_path) as hub:
        contexts = await opened(hub)
        region = contexts.region("eu")
        log = MemoryLog(hub.clock)
        roads = ContextRoads(region, log, log, "gateways.production-eu", hub.clock, Randomness(7), 600.0)
        assert roads.problems() == {}
        region.freeze.set(True)
        region.holds = lambda name: f"{name}: share.gate (12 rows)"
        region.hear(beat("ill", ready=False), hub.clock.wall())
        roads.bulk.state.sweep_problem = "nobody answers"
        assert roads.problems() == {
            "context sweep": "nobody answers",
            "contexts": "frozen; 'transom contexts resume eu' ends it",
            "contexts held": "eu: share.gate (12 rows)",
            "gateway ill": "not ready",
        }
        roads.bulk.state.strangers = ["gate/acme/g"]
        assert "gate/acme/g among them" in roads.problems()["context sweep"]
        await contexts.close()


async def test_a_soak_region_that_is_not_there_is_said_once(tmp_path, monkeypatch):
    said = []
    async with works(tmp_path) as hub:
        for name in ("eu", "nowhere"):
            contexts = await opened(hub, soak_region=name)
            monkeypatch.setattr(
                "transom.hub.contexts.service.log_event.warning", lambda text, **_: said.append(text)
            )
            await contexts.look_at_gates()
            await contexts.look_at_gates()
            assert len(said) == (name == "nowhere")
            await contexts.close()
