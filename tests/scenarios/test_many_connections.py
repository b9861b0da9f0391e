"""Ten thousand connections that say nothing, or begin and do not go on, take nothing from those who work."""

import asyncio
import contextlib
import resource
import socket

import psutil
import pytest
from benchmarks.plant import Plant

from transom.catalog.tenant.kind import TENANT
from transom.model.resources import API_VERSION
from transom.runtime.accepting import HttpLimits

CONNECTIONS = 10_000
BEGINNINGS = (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n", b"\x00")
"""Nothing, half a hello, half a request in plain HTTP, and what is neither."""


@pytest.fixture
def sockets():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2 * CONNECTIONS:
        pytest.skip(f"needs {2 * CONNECTIONS} open files; `ulimit -Hn` gives {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * CONNECTIONS, hard))
    with contextlib.ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def hold(port, sockets):
    """Connections that are open and not closed from this side."""
    loop = asyncio.get_running_loop()
    for number in range(CONNECTIONS):
        connection = sockets.enter_context(socket.socket())
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        # Who is cut off already has not kept anybody out.
        with contextlib.suppress(OSError):
            await loop.sock_sendall(connection, BEGINNINGS[number % len(BEGINNINGS)])


def tenant(name):
    return {"apiVersion": API_VERSION, "kind": "Tenant", "metadata": {"name": name}, "spec": {}}


async def told(events, name):
    async for event in events:
        if event.object.metadata.name == name:
            return


async def test_they_keep_nobody_out_who_works(tmp_path, sockets):
    plant = Plant(tmp_path, [], {})
    async with plant.running() as hub:
        process = psutil.Process(plant.hub.process.pid)
        events = hub.watch(TENANT)
        await hub.create(TENANT, tenant("before"))
        await told(events, "before")
        await hold(plant.hub.port, sockets)
        assert process.num_fds() < HttpLimits().connections + 200

        # The same client and its watch go on, and others come.
        await hub.create(TENANT, tenant("amid"))
        await told(events, "amid")
        for _ in range(20):
            async with plant.client() as another:
                assert (await another.get(TENANT, "amid")).metadata.name == "amid"
        assert process.pid == plant.hub.process.pid
        assert process.is_running()
