"""The soak gate: when what goes in bulk may go everywhere, as a pure machine."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.hub.contexts.gates import Gates, Rules, Sight, looked
from transom.model.resources import to_json
from transom.model.roads import GatewayBeat

RULES = Rules(60.0)


def beat(region="eu", bulk=0, name="", **more):
    return GatewayBeat(
        region, name or f"{region}-1", "now", **{"ready": True, "epoch": 1, **more}, bulk_revision=bulk
    )


def sight(newest=100, now=0.0, *, heard=None, **more):
    known = {
        "writing": False,
        "waiting": 5,
        "regions": frozenset({"ap", "eu", "us"}),
        "frozen": frozenset(),
        "heard": heard if heard is not None else {"eu": [beat(bulk=newest)]},
        "epoch": 1,
        "known": {"eu": ["eu-1", "eu-2"]},
        "allowed": 0,
        "allowed_upto": 0,
    }
    return Sight(newest=newest, now=now, **{**known, **more})


def opened(upto):
    """The gates when all up to there may go everywhere; gateways were heard in one region."""
    return Gates(upto, None, ("eu",))


def soaking(region="eu", **more):
    """A soak of 100 in the region, at time 0."""
    gates = looked(Gates(50), sight(heard={region: [beat(region, 50)]}, **more), RULES)
    assert gates.soak.region == region
    return gates


def test_others_wait_until_one_has_served_well_with_it():
    gates = soaking()
    assert (gates.upto("eu"), gates.upto("us")) == (None, 50)
    gates = looked(gates, sight(now=100.0, heard={"eu": [beat(bulk=99)]}), RULES)
    assert "not read it yet" in gates.soak.trouble
    gates = looked(gates, sight(now=110.0), RULES)
    gates = looked(gates, sight(now=169.9), RULES)
    assert gates.upto("us") == 50
    gates = looked(gates, sight(now=170.0), RULES)
    assert gates == opened(100)
    assert gates.upto("us") == gates.upto("eu") == 100


def test_nothing_in_bulk_is_no_soak():
    assert looked(Gates(100), sight(100), RULES) == opened(100)


def test_with_one_region_there_is_nobody_to_spare():
    assert looked(Gates(50), sight(regions=frozenset({"eu"})), RULES) == opened(100)


@pytest.mark.parametrize(
    "trouble",
    [
        beat(bulk=100, ready=False),
        beat(bulk=100, errors=1),
        beat(bulk=100, workers={"contexts": "retrying"}),
        beat(bulk=100, epoch=2),
        None,
    ],
)
def test_trouble_begins_the_time_again(trouble):
    gates = looked(soaking(), sight(now=10.0), RULES)
    gates = looked(gates, sight(now=60.0, heard={"eu": [trouble] if trouble else []}), RULES)
    assert gates.soak.since is None
    assert gates.soak.trouble
    errors = trouble.errors if trouble else 0
    well = {"eu": [beat(bulk=100, errors=errors)]}
    gates = looked(gates, sight(now=71.0, heard=well), RULES)
    gates = looked(gates, sight(now=130.9, heard=well), RULES)
    assert gates.upto("us") == 50
    assert looked(gates, sight(now=131.0, heard=well), RULES) == opened(100)


def test_a_gateway_that_fell_silent_is_waited_for():
    two = {"eu": [beat(), beat(name="eu-2")]}
    gates = looked(Gates(50), sight(heard=two), RULES)
    alone = {"eu": [beat(bulk=100)]}
    for now in (1.0, 100.0, 1000.0):
        gates = looked(gates, sight(now=now, heard=alone), RULES)
    assert gates.upto("us") == 50
    assert "eu-2" in gates.soak.trouble


def test_a_refused_record_closes_the_gate_until_somebody_allows_it():
    gates = looked(soaking(), sight(now=10.0), RULES)
    bad = {"eu": [beat(bulk=100, refused_count=1, refused={"api_key/1": "no name"})]}
    gates = looked(gates, sight(now=20.0, heard=bad), RULES)
    assert "api_key/1: no name" in gates.soak.failed
    for now in (90.0, 900.0):  # neither time, nor a gateway that was started anew, nor more rows open it
        gates = looked(gates, sight(200, now, heard={"eu": [beat(bulk=200)]}), RULES)
    assert gates.upto("us") == 50
    assert looked(gates, sight(200, 1000.0, waiting=5, allowed=4, allowed_upto=200), RULES).upto("us") == 50
    assert looked(gates, sight(200, 1000.0, waiting=5, allowed=5, allowed_upto=200), RULES) == opened(200)


def test_what_was_refused_before_is_no_sign_of_this():
    old = {"eu": [beat(bulk=100, refused_count=7)]}
    gates = looked(Gates(50), sight(heard=old), RULES)
    assert looked(gates, sight(now=60.0, heard=old), RULES) == opened(100)


def test_what_is_still_being_written_soaks_as_one():
    gates = looked(soaking(), sight(now=1.0), RULES)
    gates = looked(gates, sight(150, 30.0, writing=True), RULES)
    assert gates.soak.target == 150
    assert gates.soak.since == 30.0
    # What comes later on its own does not put it off for ever: it soaks next.
    gates = looked(gates, sight(180, 80.0), RULES)
    assert gates.soak.target == 150
    gates = looked(gates, sight(180, 90.0), RULES)
    assert gates == opened(150)
    assert looked(gates, sight(180, 91.0), RULES).soak.target == 180


def test_the_region_is_the_one_asked_for_where_somebody_is_heard_and_nothing_frozen():
    heard = {name: [beat(name)] for name in ("ap", "eu", "us")}
    asked = Rules(60.0, "us")
    assert looked(Gates(), sight(heard=heard), asked).soak.region == "us"
    assert looked(Gates(), sight(heard=heard), Rules(60.0)).soak.region == "ap"
    assert looked(Gates(), sight(heard=heard, frozen=frozenset({"us"})), asked).soak.region == "ap"
    assert looked(Gates(), sight(heard={"eu": heard["eu"]}), asked).soak.region == "eu"


def test_where_no_gateway_ever_was_only_time_passes():
    nobody = {"heard": {}, "known": {}}
    gates = looked(Gates(50), sight(**nobody), RULES)
    assert "no gateway was ever heard" in gates.soak.trouble
    gates = looked(gates, sight(now=59.0, **nobody), RULES)
    assert (gates.upto("eu"), gates.upto("us")) == (50, 50)
    assert looked(gates, sight(now=60.0, **nobody), RULES) == Gates(100)


def test_the_silence_of_gateways_there_were_opens_nothing():
    gates = looked(Gates(100), sight(heard={"eu": [beat()]}), RULES)
    nobody = {"heard": {}, "known": {}}  # all were silent for so long that they are forgotten
    for now in (0.0, 60.0, 10_000.0):
        gates = looked(gates, sight(200, now, **nobody), RULES)
        gates = msgspec.json.decode(to_json(gates.kept()), type=Gates)  # a restart forgets nothing
    gates = looked(gates, sight(200, 10_001.0, **nobody), RULES)
    assert (gates.upto("us"), gates.soak.since) == (100, None)
    assert "there were some in eu" in gates.soak.trouble
    # Somebody may say that it is all right, or the region may be given up; or they come back.
    assert looked(gates, sight(200, 1e5, allowed=5, allowed_upto=200, **nobody), RULES).approved == 200
    given_up = {**nobody, "regions": frozenset({"ap", "us"})}
    gone = looked(looked(gates, sight(200, 1e5, **given_up), RULES), sight(200, 1e5 + 60, **given_up), RULES)
    assert gone == Gates(200)
    back = looked(gates, sight(200, 1e5, heard={"eu": [beat(bulk=200)]}), RULES)
    assert looked(back, sight(200, 1e5 + 60, heard={"eu": [beat(bulk=200)]}), RULES).approved == 200


def test_as_soon_as_somebody_is_heard_the_soak_is_a_real_one():
    gates = looked(Gates(50), sight(heard={}, known={}), RULES)
    gates = looked(gates, sight(now=59.0, known={}, heard={"us": [beat("us", 50)]}), RULES)
    assert gates.soak.region == "us"
    assert looked(gates, sight(now=61.0, heard={"us": [beat("us", 50)]}), RULES).upto("eu") == 50


def test_a_region_frozen_in_the_middle_is_not_passed_over():
    gates = looked(soaking(), sight(now=10.0), RULES)
    frozen = sight(now=500.0, frozen=frozenset({"eu"}), heard={"eu": [beat(bulk=100)], "us": [beat("us")]})
    gates = looked(gates, frozen, RULES)
    assert gates.soak.region == "eu"
    assert "frozen" in gates.soak.trouble
    assert gates.upto("us") == 50


def test_a_region_that_is_gone_is_replaced():
    gates = soaking()
    heard = {"us": [beat("us")]}
    gates = looked(gates, sight(now=1.0, regions=frozenset({"ap", "us"}), heard=heard), RULES)
    assert gates.soak.region == "us"


def test_a_restart_opens_nothing():
    gates = looked(soaking(), sight(now=10.0), RULES)
    kept = msgspec.json.decode(to_json(gates.kept()), type=Gates)
    assert kept.upto("us") == 50
    # The clock of the next process counts from somewhere else.
    kept = looked(kept, sight(now=100_000.0), RULES)
    assert kept.upto("us") == 50
    kept = looked(kept, sight(now=100_059.0), RULES)
    assert kept.upto("us") == 50
    bad = {"eu": [beat(bulk=100, refused_count=1)]}
    failed = looked(kept, sight(now=100_060.0, heard=bad), RULES).kept()
    assert looked(failed, sight(now=200_000.0), RULES).upto("us") == 50


beats = st.builds(
    beat,
    bulk=st.sampled_from([0, 100, 200]),
    name=st.sampled_from(["eu-1", "eu-2"]),
    ready=st.booleans(),
    errors=st.integers(0, 2),
    refused_count=st.integers(0, 2),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 40), st.lists(beats, max_size=2), st.booleans()), max_size=30))
def test_whatever_is_heard_nothing_opens_without_its_time_of_good_service(looks):
    gates, now, newest = Gates(50), 0.0, 100
    well_since = None
    gates = looked(gates, sight(heard={"eu": [beat()]}), RULES)
    for seconds, said, more in looks:
        now += seconds
        newest += 50 * more
        heard = {each.gateway: each for each in said}
        before = gates
        gates = looked(gates, sight(newest, now, heard={"eu": list(heard.values())}), RULES)
        if before.soak is None:
            well_since = None
            continue
        served = bool(heard) and all(
            each.ready and each.bulk_revision >= before.soak.target for each in heard.values()
        )
        well_since = (now if well_since is None else well_since) if served else None
        if gates.approved > before.approved:
            assert well_since is not None
            assert now - well_since >= 60
            well_since = None


def test_a_gateway_that_was_forgotten_is_waited_for_no_more():
    two = {"eu": [beat(), beat(name="eu-2")]}
    gates = looked(Gates(50), sight(heard=two), RULES)
    for now in (1.0, 61.0):
        gates = looked(gates, sight(now=now, known={"eu": ["eu-1"]}), RULES)
    assert gates == opened(100)


def test_what_comes_after_what_was_allowed_soaks_as_ever():
    gates = looked(soaking(), sight(150, 1.0, waiting=5, allowed=5, allowed_upto=120), RULES)
    assert gates.upto("us") == 120
    assert gates.soak.target == 150
    assert looked(gates, sight(150, 2.0, waiting=0, allowed=5, allowed_upto=120), RULES).upto("us") == 120
