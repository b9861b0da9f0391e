"""What every driver promises (`region.driver.Driver`)."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from transom.region.driver import Driver, HealthCheck, Launch, Observed
from transom.region.drivers.null import NullDriver
from transom.region.drivers.process import ProcessDriver, stop_everything
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

CLOCK = SystemClock()
OWNER = "RegionalDeployment/acme/shop.eu"
APP = (sys.executable, "-m", "transom.processes.demo_app")


@pytest.fixture(params=["process", "null"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    opened: contextlib.AbstractAsyncContextManager[Driver] = (
        NullDriver.open(CLOCK)
        if request.param == "null"
        else ProcessDriver.open(tmp_path, CLOCK, Randomness(1), grace_seconds=5)
    )
    async with opened as driver:
        yield driver
    await stop_everything(tmp_path, CLOCK, grace_seconds=5)


def launch(name: str = "shop.a.00001", owner: str = OWNER) -> Launch:
    check = HealthCheck("http", "/healthz")
    return Launch(name, owner, "u1", "shop", "1", "f1", APP, {"TRANSOM_ZONE": "a"}, check)


async def until(driver: Driver, true: Callable[[list[Observed]], bool], owner: str = OWNER) -> list[Observed]:
    """What is observed of `owner` once it is as asked for."""
    async with asyncio.timeout(20):
        while True:
            seen = driver.changed.value
            observed = list(driver.observe(owner))
            if true(observed):
                return observed
            await driver.changed.above(seen)


def phases(*expected: str) -> Callable[[list[Observed]], bool]:
    return lambda observed: [instance.phase for instance in observed] == list(expected)


async def test_what_is_started_becomes_healthy_and_is_observed_as_it_was_asked_for(driver: Driver) -> None:
    driver.start(launch())
    assert len(driver.observe(OWNER)) == 1  # at once: nobody may order it twice
    (instance,) = await until(driver, phases("Healthy"))
    assert instance.launch == launch()
    assert instance.host == "127.0.0.1"
    assert instance.started_at.endswith("Z")
    assert (instance.failures, instance.restarts, instance.served, instance.output) == (0, 0, True, "")


async def test_starting_what_runs_changes_nothing(driver: Driver) -> None:
    driver.start(launch())
    driver.start(launch())
    (before,) = await until(driver, phases("Healthy"))
    driver.start(launch())
    assert driver.observe(OWNER) == [before]


async def test_what_is_stopped_is_gone(driver: Driver) -> None:
    for name in ("shop.a.00002", "shop.a.00001"):
        driver.start(launch(name))
    first, second = await until(driver, phases("Healthy", "Healthy"))
    assert (first.name, second.name) == ("shop.a.00001", "shop.a.00002")
    driver.stop("shop.a.00001")
    assert await until(driver, lambda observed: len(observed) == 1) == [second]
    driver.stop("shop.a.00001")
    driver.stop("shop.a.never")
    assert driver.observe(OWNER) == [second]


async def test_what_is_ended_is_dead_and_can_be_started_again_or_stopped(driver: Driver) -> None:
    driver.start(launch())
    (before,) = await until(driver, phases("Healthy"))
    driver.end(before.name)
    (dead,) = await until(driver, phases("Dead"))
    assert (dead.failures, dead.restarts, dead.pid) == (1, 0, 0)
    driver.end(before.name)
    driver.start(dead.launch)
    (again,) = await until(driver, phases("Healthy"))
    assert (again.failures, again.restarts) == (1, 1)
    assert again.port == before.port  # its address stays
    driver.end(before.name)
    await until(driver, phases("Dead"))
    driver.stop(before.name)
    await until(driver, phases())


async def test_it_tells_whose_instances_changed_and_only_theirs(driver: Driver) -> None:
    other = "RegionalDeployment/acme/other.eu"
    driver.start(launch())
    driver.start(launch("other.a.00001", other))
    await until(driver, phases("Healthy"))
    await until(driver, phases("Healthy"), other)
    assert driver.changes() == {OWNER, other}
    assert driver.changes() == frozenset()
    driver.stop("other.a.00001")
    await until(driver, phases(), other)
    assert driver.changes() == {other}
    assert driver.observe("RegionalDeployment/acme/unknown") == []
