"""`transom drill` waits for what may come, and for nothing else; and says what it waited for in vain."""

import asyncio
import contextlib

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from transom.hub.config import HubConfig
from transom.model.errors import ExpiredError, InvalidError
from transom.processes import drill
from transom.processes.drill import Drill, HopelessError, Load, _all_served
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


def a_setup(folder):
    return Setup(folder, HubConfig(), {}, {})
