"""`transom drill` waits for what may come, and for nothing else; and says what it waited for in vain."""

import asyncio
import contextlib
import signal

import aiohttp
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from transom.cli.processes import drill_command
from transom.hub.config import HubConfig
from transom.model.errors import ConflictError, ExpiredError, InvalidError
from transom.processes import drill
from transom.processes.drill import Drill, DrillReport, HopelessError, Load, _all_served
from transom.processes.up_files import Setup
from transom.runtime.http import serve


@contextlib.asynccontextmanager
async def answering(statuses):
    """A load on what answers with one status after another; it was asked once for each."""

    async def answer(_request):
        return JSONResponse({"error": "why"}, next(left))

    left = iter(statuses)
    port = asyncio.get_running_loop().create_future()
    app = Starlette(routes=[Route("/", answer)])
    serving = asyncio.create_task(serve(app, "127.0.0.1", 0, ready=port.set_result))
    async with aiohttp.ClientSession() as http:
        load = Load("eu", f"http://127.0.0.1:{await port}/", {})
        for _ in statuses:
            await load._ask(http)
        yield load
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


@pytest.mark.parametrize("status", [403, 404, 429])
async def test_what_no_waiting_mends_ends_it_with_the_answer(status, tmp_path):
    a_drill = Drill(a_setup(tmp_path), [], None, print)
    async with answering([401, status]) as load:
        with pytest.raises(HopelessError, match=f'gateway eu: {status} {{"error":"why"}}'):
            await a_drill._until("it", lambda: _all_served([load]), str)


@pytest.mark.parametrize("statuses", [[401], [503], [404, 503]])
async def test_what_may_come_is_waited_for(statuses):
    async with answering(statuses) as load:
        assert not await _all_served([load])
        assert load.last.startswith(str(statuses[-1]))
    async with answering([*statuses, 200]) as load:
        assert await _all_served([load])


async def test_what_was_waited_for_in_vain_is_told_with_the_last_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "_PATIENCE_SECONDS", 0.01)

    async def never():
        raise ExpiredError("the hub is away")

    with pytest.raises(InvalidError, match="in vain; last answers: gateway eu: 503"):
        await Drill(a_setup(tmp_path), [], None, print)._until("it", never, lambda: "gateway eu: 503")


async def test_no_answer_is_told_too():
    async with aiohttp.ClientSession() as http:
        load = Load("eu", "http://127.0.0.1:1/", {})
        await load._ask(http)
    assert (load.hopeless, load.failed) == (False, 1)
    assert load.last.startswith("no answer (")


class APart:
    """The hub as a drill sees it; `load` is old while it is away."""

    def __init__(self, load):
        self.name, self.load, self.number, self.tried = "hub", load, 7, False

    def pid(self):
        return self.number

    async def reap(self):
        pass

    def start(self):
        if not self.tried:
            self.tried = True
            raise ConflictError("it is still alive")
        self.number, self.load.age_seconds = 8, 0.0


class AHub:
    reachable = False

    async def regions(self):
        return [{"region": "eu", "reachable": self.reachable}]


@pytest.mark.parametrize("cut_at", ["killing", "noticed", "starting"])
async def test_a_drill_that_is_cut_short_brings_back_what_it_took_and_reports(tmp_path, monkeypatch, cut_at):
    load, hub = Load("eu", "http://127.0.0.1:1/", {}, served=True, age_seconds=0.0), AHub()
    part = APart(load)

    def kill(pid, number):
        assert (pid, number) == (7, signal.SIGKILL)
        part.number, load.age_seconds = 0, 0.0 if cut_at == "killing" else 60.0

    def tell(text):
        said.append(text)
        if text.startswith(cut_at):
            asyncio.get_running_loop().call_soon(task.cancel)
        if text.startswith("cut short"):
            hub.reachable = True

    said = []
    monkeypatch.setattr(drill.os, "kill", kill)
    away_seconds = 0.0 if cut_at == "starting" else 1000.0
    a_drill = Drill(a_setup(tmp_path), [part], None, tell)
    task = asyncio.create_task(a_drill._take_away(hub, [load], away_seconds))
    async with asyncio.timeout(20):
        report = await task
    assert (report.cut_short, part.number) == (True, 8)
    assert (report.noticed_after_seconds is None) == (cut_at == "killing")
    assert [text.split(" ")[0] for text in said if not text.startswith("cut")] == [
        "killing",
        *(["noticed"] if cut_at != "killing" else []),
        "starting",
        "recovered",
    ]


async def test_what_was_cut_short_is_exit_code_130_with_the_report(tmp_path, monkeypatch):
    async def cut(*_given, **_more):
        return DrillReport("the hub", 3.0, None, 1.5, {"eu": 9}, {"eu": 0}, 0, cut_short=True)

    monkeypatch.setattr(drill, "run_drill", cut)
    arguments = ["hub", "--dir", str(tmp_path)]
    ran = await asyncio.to_thread(CliRunner().invoke, drill_command, arguments)
    assert ran.exit_code == 130
    assert ran.stdout.splitlines()[-1] == (
        "the hub was away for 3.0 s; not noticed by then, recovered 1.5 s after its start"
    )


def a_setup(folder):
    return Setup(folder, HubConfig(), {}, {})
