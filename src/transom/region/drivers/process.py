"""Real local processes: started once, health-checked, found again after this process was killed.

Each instance has a folder (`runtime.processes`): its record, its output, its working folder. One task an
instance starts or adopts it, watches it and ends it, so no two things ever happen to one instance at once.
Leaving the context ends the tasks and leaves the processes running.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from transom.model.errors import ConflictError, FencedError, InvalidError, StorageFullError
from transom.region.driver import Launch, Observed, Phase
from transom.region.drivers.health import judge, probe
from transom.region.drivers.holder import Holder
from transom.runtime.clock import Clock, timestamp
from transom.runtime.processes import (
    RECORD_FILE,
    LocalProcess,
    bound_output,
    last_output,
    minimal_environment,
    recall,
)
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level
from transom.runtime.telemetry import get_logger
from transom.runtime.threads import SerialThread

log_event = get_logger(__name__)

HOST = "127.0.0.1"
GRACE_SECONDS = 10.0
SETTLED_SECONDS = 60.0
"""An instance that ran at least this long begins its failures anew."""

_STARTING_INTERVAL_SECONDS = 0.1
_PROBES_AT_ONCE = 128
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class About(msgspec.Struct, frozen=True):
    """What the driver keeps in a process's record, to know it again."""

    launch: Launch
    port: int
    started_at: str


@dataclass
class _Instance:
    launch: Launch
    folder: Path
    since: float
    phase: Phase = "Starting"
    port: int = 0
    pid: int = 0
    started_at: str = ""
    failures: int = 0
    restarts: int = 0
    served: bool = False
    output: str = ""
    began: float = 0.0
    forget: bool = False
    asked_to_end: asyncio.Event = field(default_factory=asyncio.Event)

    def observed(self) -> Observed:
        return Observed(
            self.launch,
            self.phase,
            HOST,
            self.port,
            self.pid,
            self.started_at,
            self.since,
            self.failures,
            self.restarts,
            self.served,
            self.output,
        )


class ProcessDriver:
    """See `region.driver.Driver`. Made by `open`."""

    def __init__(
        self,
        folder: Path,
        *,
        group: asyncio.TaskGroup,
        session: aiohttp.ClientSession,
        clock: Clock,
        randomness: Randomness,
        grace_seconds: float,
    ) -> None:
        self.changed = Level()
        self._folder = folder
        self._holder = Holder(folder)
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()
        self._session = session
        self._clock = clock
        self._randomness = randomness
        self._grace_seconds = grace_seconds
        self._thread = SerialThread("process-driver")
        self._probes = asyncio.Semaphore(_PROBES_AT_ONCE)
        self._instances: dict[str, _Instance] = {}
        self._names_of: dict[str, set[str]] = {}
        self._changes: set[str] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, folder: Path, clock: Clock, randomness: Randomness, *, grace_seconds: float = GRACE_SECONDS
    ) -> AsyncGenerator["ProcessDriver"]:
        """A driver whose instances live in `folder`; those that run there are adopted first.

        The folder is its own from then on: another that has it open, in a process that stood still, does
        nothing there any more and ends with `FencedError`.
        """
        # A connection of its own for each check: whether it accepts is a part of the question.
        connector = aiohttp.TCPConnector(force_close=True, limit=_PROBES_AT_ONCE)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            driver = cls(
                folder,
                group=group,
                session=session,
                clock=clock,
                randomness=randomness,
                grace_seconds=grace_seconds,
            )
            try:
                await driver._thread.run(driver._holder.take)
                async with asyncio.TaskGroup() as adopting:  # one that hangs costs its timeout once
                    for path in await driver._thread.run(_folders_in, folder):
                        adopting.create_task(driver._adopt(path))
                yield driver
            finally:
                for task in driver._tasks:
                    task.cancel()
                await driver._thread.close()

    def changes(self) -> frozenset[str]:
        """See `Driver.changes`."""
        taken, self._changes = frozenset(self._changes), set()
        return taken

    def observe(self, owner: str) -> Sequence[Observed]:
        """See `Driver.observe`."""
        return [self._instances[name].observed() for name in sorted(self._names_of.get(owner, ()))]

    def start(self, launch: Launch) -> None:
        """See `Driver.start`."""
        instance = self._instances.get(launch.name)
        if instance is None:
            instance = self._add(launch)
        elif instance.phase != "Dead":
            return
        else:
            instance.restarts += 1
        instance.asked_to_end.clear()
        self._enter(instance, "Starting")
        self._run(instance, None)

    def stop(self, name: str) -> None:
        """See `Driver.stop`."""
        instance = self._instances.get(name)
        if instance is None or instance.forget:
            return
        dead = instance.phase == "Dead"
        instance.forget = True
        self._enter(instance, "Stopping")
        instance.asked_to_end.set()
        if dead:
            self._spawn_task(self._remove(instance), name)

    def end(self, name: str) -> None:
        """See `Driver.end`."""
        instance = self._instances.get(name)
        if instance is not None and instance.phase != "Dead":
            instance.asked_to_end.set()

    def _add(self, launch: Launch) -> _Instance:
        instance = _Instance(launch, self._folder / launch.name, self._clock.monotonic())
        self._instances[launch.name] = instance
        self._names_of.setdefault(launch.owner, set()).add(launch.name)
        return instance

    def _enter(self, instance: _Instance, phase: Phase) -> None:
        instance.phase = phase
        instance.since = self._clock.monotonic()
        self._changes.add(instance.launch.owner)
        self.changed.rise()

    def _spawn_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self, instance: _Instance, process: LocalProcess | None) -> None:
        self._spawn_task(self._live(instance, process), instance.launch.name)

    async def _adopt(self, folder: Path) -> None:
        try:
            record = await self._thread.run(recall, folder)
            about = None if record is None else msgspec.convert(record.about, About)
        except (InvalidError, msgspec.ValidationError) as error:
            log_event.warning("unreadable instance left alone", folder=str(folder), error=str(error))
            return
        process = await LocalProcess.find(folder, self._clock)
        if record is not None and process is None:
            await asyncio.to_thread(LocalProcess(folder, record).kill)  # children it left behind
        if record is None or about is None or (process is None and record.stopping):
            # Nothing was intended here yet, or it was being forgotten.
            await self._thread.run(LocalProcess.discard, folder)
            return
        instance = self._add(about.launch)
        instance.port, instance.started_at = about.port, about.started_at
        instance.began = self._clock.monotonic()
        if process is None:
            self._died(instance, None)
            return
        instance.pid = process.record.pid
        if record.stopping:
            instance.forget = True
            instance.asked_to_end.set()
            self._enter(instance, "Stopping")
        else:
            # Whoever restarts transom must not see a healthy app go through "Starting" again.
            async with self._probes:
                healthy = not await probe(self._session, about.launch.check, HOST, about.port)
            instance.served = healthy
            self._enter(instance, "Healthy" if healthy else "Starting")
        log_event.info("adopted", instance=about.launch.name, pid=instance.pid)
        self._run(instance, process)

    async def _live(self, instance: _Instance, process: LocalProcess | None) -> None:
        code: int | None = None
        why = ""
        try:
            if process is None:
                process = await self._thread.run(self._launch, instance)
            instance.pid = process.record.pid
            instance.began = self._clock.monotonic()
            self._enter(instance, instance.phase)
            code = await self._watch(instance, process)
            await asyncio.to_thread(process.kill)  # children it left behind
        except (OSError, ConflictError, StorageFullError) as error:
            why = f"cannot start: {error}"
        if instance.forget:
            await self._remove(instance)
        else:
            self._died(instance, code, why)

    def _launch(self, instance: _Instance) -> LocalProcess:
        self._holder.check()
        launch = instance.launch
        taken = {other.port for other in self._instances.values() if other is not instance}
        instance.port = free_port(instance.port, taken)
        instance.started_at = timestamp(self._clock)
        environment = minimal_environment({**launch.env, "PORT": str(instance.port)})
        work = instance.folder / "work"
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = LocalProcess.launch(
            instance.folder,
            [expand(argument, environment) for argument in launch.command],
            environment=environment,
            about=msgspec.to_builtins(About(launch, instance.port, instance.started_at)),
            cwd=work,
        )
        try:
            self._holder.check()
        except FencedError:
            # It stood still since it looked: whoever has the folder does not know of this one.
            process.kill()
            LocalProcess.discard(instance.folder)
            raise
        return process

    async def _watch(self, instance: _Instance, process: LocalProcess) -> int | None:
        async with asyncio.TaskGroup() as group:
            checks = group.create_task(self._check(instance))
            ending = group.create_task(self._end_when_asked(instance, process))
            code = await process.ended(self._clock)
            checks.cancel()
            if not instance.asked_to_end.is_set():
                ending.cancel()
        return code

    async def _end_when_asked(self, instance: _Instance, process: LocalProcess) -> None:
        await instance.asked_to_end.wait()
        await self._thread.run(self._holder.check)
        await process.stop(self._clock, self._grace_seconds)

    async def _check(self, instance: _Instance) -> None:
        check = instance.launch.check
        failures = 0
        while True:
            async with self._probes:
                why = await probe(self._session, check, HOST, instance.port)
            failures = failures + 1 if why else 0
            self._judge(instance, why, failures)
            with contextlib.suppress(OSError):  # a disk without room must not keep it from being watched
                bound_output(instance.folder)
            pause = check.interval_seconds
            if instance.phase == "Starting":
                pause = min(pause, _STARTING_INTERVAL_SECONDS)
            await self._clock.sleep(self._randomness.jitter(pause))

    def _judge(self, instance: _Instance, why: str, failures: int) -> None:
        in_phase_seconds = self._clock.monotonic() - instance.since
        phase = judge(instance.phase, instance.launch.check, failures, in_phase_seconds)
        if phase == instance.phase:
            return
        instance.served = instance.served or phase == "Healthy"
        instance.output = f"{why}\n{last_output(instance.folder)}".strip() if why else ""
        self._enter(instance, phase)

    def _died(self, instance: _Instance, code: int | None, why: str = "") -> None:
        ran_well = instance.served and self._clock.monotonic() - instance.began >= SETTLED_SECONDS
        instance.failures = 1 if ran_well else instance.failures + 1
        instance.pid = 0
        how = "" if code is None else f" with signal {-code}" if code < 0 else f" with exit code {code}"
        instance.output = why or f"ended{how}\n{last_output(instance.folder)}".strip()
        log_event.warning("died", instance=instance.launch.name, exit_code=code, failures=instance.failures)
        self._enter(instance, "Dead")

    def _discard(self, folder: Path) -> None:
        self._holder.check()
        LocalProcess.discard(folder)

    async def _remove(self, instance: _Instance) -> None:
        await self._thread.run(self._discard, instance.folder)
        names = self._names_of[instance.launch.owner]
        names.discard(instance.launch.name)
        if not names:
            del self._names_of[instance.launch.owner]
        del self._instances[instance.launch.name]
        self._changes.add(instance.launch.owner)
        self.changed.rise()


def _folders_in(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return sorted(path for path in folder.iterdir() if path.is_dir())


def expand(argument: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` stands for a variable, `$$(NAME)` for itself; unknown names stay, as in Kubernetes."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else environment.get(name, match.group(0))

    return _REFERENCE.sub(value, argument)


def free_port(preferred: int, taken: set[int]) -> int:
    """A port nobody listens on: `preferred` if it can be had, so that a restarted app keeps its address."""
    for port in (preferred, *(0 for _ in range(len(taken) + 1))):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((HOST, port))
            except OSError:
                continue
            found = attempt.getsockname()[1]
        if found not in taken:
            return found
    raise OSError(f"no free port on {HOST}")


async def stop_everything(folder: Path, clock: Clock, grace_seconds: float = GRACE_SECONDS) -> int:
    """End and forget every process that was started anywhere below `folder`; returns how many ran.

    Only when no driver has the folder open.
    """

    async def stop(path: Path) -> bool:
        process = await LocalProcess.find(path, clock)
        if process is not None:
            await process.stop(clock, grace_seconds)
        await asyncio.to_thread(LocalProcess.discard, path)
        return process is not None

    paths = await asyncio.to_thread(lambda: sorted(folder.rglob(RECORD_FILE)))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stop(path.parent)) for path in paths]
    return sum(task.result() for task in tasks)
