"""When a row may leave a region: pure."""

import pytest

from transom.hub.contexts.moves import finished
from transom.hub.contexts.row import BULK, FAST, Row
from transom.model.roads import GatewayBeat

DECLARED = frozenset({"ap", "eu", "us"})


def row(regions=",us,", lane=FAST, former=""):
    return Row(
        "gate/a/g", "gate", "a", "Gate/a/g", 1, 50, 1, lane, regions, ",eu,", former, False, False, b"1"
    )


def beat(region="us", fast=50, bulk=0, name="one", epoch=1, **more):
    standing = {"epoch": epoch, "revision": fast, "bulk_revision": bulk, **more}
    return GatewayBeat(region, name, "now", ready=True, **standing)


@pytest.mark.parametrize(
    ("lane", "regions", "heard", "done"),
    [
        (FAST, ",us,", {"us": [beat()]}, True),
        (FAST, ",us,", {"us": [beat(fast=49, bulk=99)]}, False),
        (BULK, ",us,", {"us": [beat(fast=99, bulk=49)]}, False),
        (BULK, ",us,", {"us": [beat(fast=0, bulk=50)]}, True),
        (FAST, ",us,", {"us": [beat(), beat(name="two", fast=1)]}, False),
        (FAST, ",us,", {"us": [beat(epoch=2)]}, False),
        (FAST, ",us,", {"us": [beat(refused={"gate/a/g": "no"})]}, False),
        (FAST, ",us,", {"us": []}, False),
        (FAST, ",us,", {"eu": [beat("eu")]}, False),
        (FAST, ",ap,us,", {"us": [beat()]}, False),
        (FAST, ",ap,us,", {"us": [beat()], "ap": [beat("ap")]}, True),
    ],
)
def test_every_gateway_of_every_region_must_have_it(lane, regions, heard, done):
    assert bool(finished([row(regions, lane)], heard, DECLARED, 1)) is done


def test_who_is_left_is_told_and_who_was_told_before_too():
    (moved,) = finished([row(former=",ap,")], {"us": [beat()]}, DECLARED, 1)
    assert (moved.regions, moved.leaving, moved.former, moved.value) == (",us,", "", ",ap,eu,", b"1")
    assert moved.revision == 0  # it is written anew
