"""The process driver: health, deaths, adoption, and what it leaves behind."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest

from transom.model.errors import FencedError, members_of
from transom.region.driver import HealthCheck, Launch, Observed, Phase
from transom.region.drivers import process as module
from transom.region.drivers.health import judge
from transom.region.drivers.holder import Holder
from transom.region.drivers.process import ProcessDriver, expand, free_port, stop_everything
from transom.runtime import processes
from transom.runtime.clock import SystemClock
from transom.runtime.processes import RECORD_FILE
from transom.runtime.randomness import Randomness

CLOCK = SystemClock()
OWNER = "RegionalDeployment/acme/shop.eu"
APP = (sys.executable, "-m", "transom.processes.demo_app")
# Serves its working folder, so that a file there decides whether it is healthy.
FILES = (sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "$(PORT)")
STUBBORN = ("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "zone"
    await stop_everything(tmp_path, CLOCK, grace_seconds=0.1)


def opened(folder: Path) -> AbstractAsyncContextManager[ProcessDriver]:
    return ProcessDriver.open(folder, CLOCK, Randomness(1), grace_seconds=20)


def launch(
    command: tuple[str, ...] = APP, check: HealthCheck | None = None, name: str = "shop.a.00001"
) -> Launch:
    return Launch(name, OWNER, "u1", "shop", "1", "f1", command, {}, check or HealthCheck("http", "/healthz"))


async def until(driver: ProcessDriver, phase: str, name: str = "shop.a.00001") -> Observed:
    """The instance once it is in `phase`."""
    async with asyncio.timeout(20):
        while True:
            seen = driver.changed.value
            for instance in driver.observe(OWNER):
                if (instance.name, instance.phase) == (name, phase):
                    return instance
            await driver.changed.above(seen)


async def until_true(true: Callable[[], bool]) -> None:
    """Wait, at most 20 s, for another process's doing."""
    async with asyncio.timeout(20):
        while not true():  # nothing here is told what another process does
            await asyncio.sleep(0.01)


async def test_closing_leaves_everything_running_and_opening_finds_it_healthy(folder: Path) -> None:
    async with opened(folder) as driver:
        driver.start(launch())
        before = await until(driver, "Healthy")
    assert psutil.pid_exists(before.pid)
    assert "process-driver" not in [thread.name for thread in threading.enumerate()]
    async with opened(folder) as driver:
        assert driver.changes() == {OWNER}
        (after,) = driver.observe(OWNER)
        assert (after.pid, after.port, after.phase, after.launch, after.started_at) == (
            before.pid,
            before.port,
            "Healthy",
            before.launch,
            before.started_at,
        )
        os.kill(after.pid, signal.SIGKILL)  # not our child's record, but its death is noticed all the same
        dead = await until(driver, "Dead")
        assert dead.failures == 1


async def test_what_died_while_nobody_looked_is_found_dead_with_its_last_words(folder: Path) -> None:
    async with opened(folder) as driver:
        driver.start(launch(("sh", "-c", "echo I am here; sleep 60"), HealthCheck("tcp")))
        async with asyncio.timeout(20):
            while not (pid := driver.observe(OWNER)[0].pid):
                await driver.changed.above(driver.changed.value)
        await until_true(lambda: "here" in (folder / "shop.a.00001/output.log").read_text())
    os.kill(pid, signal.SIGKILL)
    await until_true(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    async with opened(folder) as driver:
        (dead,) = driver.observe(OWNER)
        assert dead.phase == "Dead"
        assert "I am here" in dead.output
        driver.start(dead.launch)
        assert driver.observe(OWNER)[0].phase == "Starting"


async def test_a_stop_that_was_under_way_is_finished_by_the_next(folder: Path) -> None:
    async with opened(folder) as driver:
        driver.start(launch(STUBBORN, HealthCheck("tcp")))
        driver.stop("shop.a.00001")
        await until_true(lambda: b'"stopping":true' in record_of(folder))
    async with ProcessDriver.open(folder, CLOCK, Randomness(1), grace_seconds=0.1) as driver:
        assert driver.observe(OWNER)[0].phase == "Stopping"
        while driver.observe(OWNER):
            await driver.changed.above(driver.changed.value)
    assert names_in(folder) == []


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def record_of(folder: Path) -> bytes:
    path = folder / "shop.a.00001" / RECORD_FILE
    return path.read_bytes() if path.exists() else b""


async def test_health_follows_the_checks(folder: Path) -> None:
    check = HealthCheck("http", "/up", interval_seconds=0.1, unhealthy_after=2)
    async with opened(folder) as driver:
        driver.start(launch(FILES, check))
        flag = folder / "shop.a.00001/work/up"
        await until_true((folder / "shop.a.00001/work").exists)
        flag.touch()
        await until(driver, "Healthy")
        flag.unlink()
        ailing = await until(driver, "Unhealthy")
        assert "GET /up" in ailing.output
        assert "answered 404" in ailing.output
        flag.touch()
        well = await until(driver, "Healthy")
        assert (well.output, well.restarts, well.pid) == ("", 0, ailing.pid)


@pytest.mark.parametrize(
    ("before", "failures", "seconds", "after"),
    [
        ("Healthy", 2, 99, "Healthy"),  # one failed check, or two, is not yet ill health
        ("Healthy", 3, 0, "Unhealthy"),
        ("Starting", 99, 29, "Starting"),
        ("Starting", 1, 30, "Unhealthy"),
        ("Starting", 0, 99, "Healthy"),
        ("Unhealthy", 1, 99, "Unhealthy"),
        ("Unhealthy", 0, 0, "Healthy"),
        ("Stopping", 0, 0, "Stopping"),
    ],
)
def test_what_follows_from_a_check(before: Phase, failures: int, seconds: float, after: Phase) -> None:
    assert judge(before, HealthCheck(unhealthy_after=3, start_seconds=30), failures, seconds) == after


async def test_starting_may_take_only_so_long(folder: Path) -> None:
    async with opened(folder) as driver:
        driver.start(
            launch(("sh", "-c", "echo still warming up; sleep 60"), HealthCheck("tcp", start_seconds=0.3))
        )
        ailing = await until(driver, "Unhealthy")
        assert "connecting to port" in ailing.output
        assert "still warming up" in ailing.output


async def test_an_app_that_cannot_start_says_why(folder: Path) -> None:
    async with opened(folder) as driver:
        driver.start(launch(("sh", "-c", "echo no such table: users >&2; exit 3")))
        dead = await until(driver, "Dead")
        assert dead.output == "ended with exit code 3\nno such table: users"
        assert (dead.served, dead.failures) == (False, 1)
        driver.start(dead.launch)
        await until(driver, "Starting")
        assert (await until(driver, "Dead")).failures == 2
        driver.start(launch(("no-such-program",), name="shop.a.00002"))
        dead = await until(driver, "Dead", "shop.a.00002")
        assert "cannot start" in dead.output
        assert "no-such-program" in dead.output


async def test_a_full_disk_is_a_reason_not_to_start_and_no_reason_to_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _text: str) -> None:
        raise OSError(28, "No space left on device")

    async with opened(folder) as driver:
        driver.start(launch(name="shop.a.00002"))
        await until(driver, "Healthy", "shop.a.00002")
        with monkeypatch.context() as patched:
            patched.setattr(processes, "write_private", full)
            driver.start(launch())
            dead = await until(driver, "Dead")
            assert "No space left on device" in dead.output
            driver.stop("shop.a.00002")  # stopping needs no room
            async with asyncio.timeout(20):
                while len(driver.observe(OWNER)) > 1:
                    await driver.changed.above(driver.changed.value)
        driver.start(dead.launch)
        await until(driver, "Healthy")


async def test_failures_begin_anew_after_a_run_that_went_well(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(folder) as driver:
        driver.start(launch())
        for failures, settled_seconds in ((1, 60.0), (2, 60.0), (1, 0.0)):
            monkeypatch.setattr(module, "SETTLED_SECONDS", settled_seconds)
            os.kill((await until(driver, "Healthy")).pid, signal.SIGKILL)
            dead = await until(driver, "Dead")
            assert dead.failures == failures
            driver.start(dead.launch)


async def test_a_slow_stop_keeps_nothing_else_waiting(folder: Path) -> None:
    async with opened(folder) as driver:
        driver.start(launch(STUBBORN, HealthCheck("tcp")))
        driver.stop("shop.a.00001")
        driver.start(launch(name="shop.a.00002"))
        await until(driver, "Healthy", "shop.a.00002")
        assert [i.phase for i in driver.observe(OWNER)] == ["Stopping", "Healthy"]


async def test_what_it_cannot_read_it_leaves_alone(folder: Path) -> None:
    (folder / "strange").mkdir(parents=True)
    (folder / "strange" / RECORD_FILE).write_text('{"nonce": "n", "about": {"of": "a newer release"}}')
    (folder / "a-file").touch()
    async with opened(folder) as driver:
        assert driver.changes() == frozenset()
    assert (folder / "strange" / RECORD_FILE).exists()


@pytest.mark.parametrize("order", ["start", "stop"])
async def test_a_driver_whose_folder_was_taken_over_does_nothing_there(
    folder: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still, and does now what it was told before."""
    async with opened(folder) as first:
        first.start(launch())
        pid = (await until(first, "Healthy")).pid
    started: list[object] = []
    monkeypatch.setattr(processes.LocalProcess, "launch", lambda *given, **_: started.append(given))

    async def act() -> None:
        async with opened(folder) as former:
            await until(former, "Healthy")
            async with opened(folder):
                if order == "start":
                    former.start(launch(name="shop.a.00002"))
                else:
                    former.stop("shop.a.00001")
                await asyncio.get_running_loop().create_future()

    await ends_fenced(act)
    assert psutil.pid_exists(pid)
    assert names_in(folder) == ["shop.a.00001"]
    assert not started


async def test_what_it_started_too_late_is_ended_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still between looking whose the folder is, and starting something in it."""
    started: list[processes.LocalProcess] = []
    real = processes.LocalProcess.launch.__func__

    def late(cls, where: Path, *args: object, **more: object) -> processes.LocalProcess:
        Holder(folder).take()
        started.append(real(cls, where, *args, **more))
        return started[-1]

    async def act() -> None:
        async with opened(folder) as driver:
            driver.start(launch())
            await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(processes.LocalProcess, "launch", classmethod(late))
    await ends_fenced(act)
    await until_true(lambda: not started[0].is_alive())
    assert names_in(folder) == []


async def ends_fenced(act: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(20):
        with pytest.raises(ExceptionGroup) as ended:
            await act()
    assert any(isinstance(error, FencedError) for error in members_of(ended.value))


async def test_everything_is_stopped_when_asked(folder: Path) -> None:
    async with opened(folder) as driver:
        driver.start(launch())
        pid = (await until(driver, "Healthy")).pid
    assert await stop_everything(folder.parent, CLOCK) == 1
    assert not psutil.pid_exists(pid)
    assert names_in(folder) == []
    assert await stop_everything(folder / "never", CLOCK) == 0


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("--port=$(PORT)", "--port=4000"),
        ("$(PORT)$(PORT)", "40004000"),
        ("$$(PORT)", "$(PORT)"),
        ("$(UNKNOWN) $PORT $", "$(UNKNOWN) $PORT $"),
    ],
)
def test_variables_in_arguments_are_replaced(argument: str, expanded: str) -> None:
    assert expand(argument, {"PORT": "4000"}) == expanded


def test_a_port_is_kept_if_it_is_free_and_never_shared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        busy = listener.getsockname()[1]
        other = free_port(busy, set())
        assert other != busy
    assert free_port(other, set()) == other
    assert free_port(other, {other}) != other
