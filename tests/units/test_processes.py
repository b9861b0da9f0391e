"""Local processes are started once, found again, and ended whole."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from transom.model.errors import ConflictError, ExistsError, InvalidError
from transom.model.resources import to_json
from transom.runtime import processes
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.processes import (
    NONCE,
    RECORD_FILE,
    LocalProcess,
    ProcessRecord,
    bound_output,
    folder_held,
    last_output,
    minimal_environment,
    recall,
)

CLOCK = SystemClock()
SLEEP = ["sleep", "60"]
# Ready when the line is there; then it sleeps.
IGNORES_SIGTERM = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
CLOSES_EVERYTHING = "import os, time; os.write(1, b'ready\\n'); os.closerange(0, 256); time.sleep(60)"

Launch = Callable[..., LocalProcess]


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    started: list[LocalProcess] = []

    def start(command: list[str], name: str = "one") -> LocalProcess:
        process = LocalProcess.launch(
            tmp_path / name, command, environment=minimal_environment({}), about={"port": 1}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        await process.ended(CLOCK)


async def until(true: Callable[[], bool]) -> None:
    """Wait, at most 20 s, for another process's doing."""
    async with asyncio.timeout(20):
        while not true():  # nothing here is told what another process does
            await asyncio.sleep(0.01)


def forget_pid(folder: Path) -> None:
    """As if the starter had been killed before it recorded the pid."""
    record = recall(folder)
    assert record is not None
    (folder / RECORD_FILE).write_bytes(to_json(msgspec.structs.replace(record, pid=0, started=0.0)))


async def test_a_process_is_remembered_and_found(launch: Launch) -> None:
    process = launch(SLEEP)
    found = await LocalProcess.find(process.folder, CLOCK)
    assert found is not None
    assert found.record == process.record
    assert found.record.about == {"port": 1}
    assert (process.folder / RECORD_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", [{"nonce": "another"}, {"started": 1.0}, {"pid": os.getpid()}])
async def test_pid_start_time_and_nonce_must_all_match(launch: Launch, change: dict[str, object]) -> None:
    process = launch(SLEEP)
    stranger = LocalProcess(process.folder, msgspec.structs.replace(process.record, **change))
    assert process.is_alive()
    assert not stranger.is_alive()


async def test_nothing_is_found_where_nothing_was_started(tmp_path: Path) -> None:
    assert await LocalProcess.find(tmp_path / "none", CLOCK) is None


@pytest.mark.parametrize("command", [SLEEP, [sys.executable, "-c", CLOSES_EVERYTHING]])
async def test_a_process_whose_pid_was_not_recorded_is_adopted(launch: Launch, command: list[str]) -> None:
    process = launch(command)
    if command != SLEEP:
        await until(lambda: not process.is_locked())
    forget_pid(process.folder)
    found = await LocalProcess.find(process.folder, CLOCK)
    assert found is not None
    assert found.record == process.record == recall(process.folder)


async def test_a_process_that_is_just_being_spawned_is_waited_for(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / RECORD_FILE).write_bytes(to_json(ProcessRecord("the-nonce")))
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the child has it between fork and exec
        finding = asyncio.create_task(LocalProcess.find(tmp_path, clock))
        await until(lambda: clock.sleeping == 1)
        environment = {NONCE: "the-nonce", "PATH": os.environ["PATH"]}
        child = subprocess.Popen(SLEEP, env=environment, start_new_session=True)  # noqa: ASYNC220  # a few ms
        try:
            # Popen returns a moment before the system shows what the child was given.
            await until(lambda: psutil.Process(child.pid).environ().get(NONCE) == "the-nonce")
            clock.advance(1)
            found = await finding
            assert found is not None
            assert found.record.pid == child.pid
        finally:
            child.kill()
            child.wait()


async def test_an_intent_without_a_process_is_nothing(launch: Launch, tmp_path: Path) -> None:
    process = launch(SLEEP)
    process.kill()
    await process.ended(CLOCK)
    forget_pid(process.folder)
    assert await LocalProcess.find(process.folder, CLOCK) is None


async def test_a_process_that_overwrote_its_environment_is_known_by_its_lock(launch: Launch) -> None:
    process = launch(["env", "-i", "sleep", "60"])
    await until(lambda: psutil.Process(process.record.pid).environ() == {})
    assert process.is_alive()


async def test_it_is_never_started_twice(launch: Launch) -> None:
    process = launch(SLEEP)
    with pytest.raises(ConflictError, match="still alive"):
        launch(SLEEP)
    assert recall(process.folder) == process.record


async def test_a_program_that_does_not_exist_is_an_error_and_leaves_nothing(
    launch: Launch, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        launch(["no-such-program"])
    assert await LocalProcess.find(tmp_path / "one", CLOCK) is None
    launch(SLEEP)


async def test_when_the_pid_cannot_be_recorded_nothing_is_left_running(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []
    write = processes.write_private

    def fails_second(path: Path, text: str) -> None:
        writes.append(text)
        if len(writes) > 1:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(processes, "write_private", fails_second)
    with pytest.raises(OSError, match="No space left"):
        launch(SLEEP)
    record = recall(tmp_path / "one")
    assert record is not None
    assert [p.pid for p in psutil.process_iter(["environ"]) if carries(p, record.nonce)] == []


def carries(process: psutil.Process, nonce: str) -> bool:
    return (process.info["environ"] or {}).get(NONCE) == nonce  # type: ignore[attr-defined]


async def test_a_zombie_is_dead_and_is_reaped_with_its_exit_code(launch: Launch) -> None:
    process = launch(["sh", "-c", "exit 3"])
    pid = process.record.pid
    await until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert not process.is_alive()
    assert await process.ended(CLOCK) == 3
    assert not psutil.pid_exists(pid)


async def test_a_zombie_is_dead_even_if_its_child_lives(launch: Launch) -> None:
    process = launch(["sh", "-c", "sleep 60 & exit 3"])
    await until(lambda: psutil.Process(process.record.pid).status() == psutil.STATUS_ZOMBIE)
    assert process.is_locked()
    assert not process.is_alive()
    with pytest.raises(ConflictError):  # not before the child is gone too
        launch(["sleep", "60"])


async def test_death_is_noticed(launch: Launch) -> None:
    process = launch(SLEEP)
    ended = asyncio.create_task(process.ended(CLOCK))
    os.kill(process.record.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        assert await ended == -signal.SIGKILL


async def test_stopping_is_gentle_first(launch: Launch) -> None:
    process = launch(["sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"])
    await until(lambda: "ready" in last_output(process.folder))
    await process.stop(CLOCK, grace_seconds=20)
    assert last_output(process.folder).splitlines()[-1] == "bye"
    assert not process.is_alive()


async def test_what_ignores_sigterm_is_killed_after_the_grace_with_its_children(launch: Launch) -> None:
    process = launch(["sh", "-c", f"sleep 61 & setsid sleep 61 & {IGNORES_SIGTERM}"])
    await until(lambda: "ready" in last_output(process.folder))
    family = [process.record.pid, *(c.pid for c in psutil.Process(process.record.pid).children())]
    assert len(family) > 2
    await process.stop(CLOCK, grace_seconds=0.1)
    await until(lambda: not any(psutil.pid_exists(pid) and running(pid) for pid in family))
    assert not process.is_locked()


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_child_gets_what_was_declared_and_nothing_of_ours(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSOM_TEST_SECRET", "hidden")
    process = launch(SLEEP)
    names = set(psutil.Process(process.record.pid).environ())
    assert names <= {"PATH", "HOME", "LANG", "TMPDIR", NONCE}


def test_output_is_bounded_and_its_end_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "OUTPUT_BYTES_MAX", 1000)
    monkeypatch.setattr(processes, "_OUTPUT_BYTES_KEPT", 100)
    output = tmp_path / "output.log"
    with output.open("ab") as writer:  # as the process has it
        writer.write(b"x" * 990 + b"the end\n" + b"1234")
        writer.flush()
        bound_output(tmp_path)
        assert output.stat().st_size == 100
        writer.write(b"5")
    assert last_output(tmp_path).endswith("the end\n12345")


def test_the_last_output_is_at_most_ten_lines_and_two_kibibytes(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(b"".join(b"line %d\n" % n for n in range(100)))
    assert last_output(tmp_path).splitlines() == [f"line {n}" for n in range(90, 100)]
    (tmp_path / "output.log").write_bytes(b"\xff" * 9000)
    assert len(last_output(tmp_path).encode()) <= 2048


def test_a_folder_is_held_by_one_process_and_the_other_is_told_which(tmp_path: Path) -> None:
    with (
        folder_held(tmp_path),
        pytest.raises(ExistsError, match=f"process {os.getpid()}"),
        folder_held(tmp_path),
    ):
        pass
    with folder_held(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named_with_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "x"):
        with (
            pytest.raises(InvalidError, match=f"configuration of eu is invalid: data: folder {folder} "),
            folder_held(folder, "configuration of eu"),
        ):
            pass


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_bytes(b"{}")
    with pytest.raises(InvalidError, match=RECORD_FILE):
        recall(tmp_path)
    (tmp_path / RECORD_FILE).write_bytes(to_json(ProcessRecord("n")))
    assert recall(tmp_path) == ProcessRecord("n")
