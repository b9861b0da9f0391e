"""What strangers throw at a gateway leaves nothing in its memory, and good requests are served meanwhile.

The first rounds warm up what may grow once (caches, the allocator's pools); after them nothing may.
"""

import asyncio
import contextlib
import sys

import psutil
from benchmarks.plant import CATALOG, deployment, manifest

from scenario_engines import real_in_soak
from transom.catalog.api_key.kind import API_KEY
from transom.model.api_keys import hash_of, new_api_key
from transom.runtime.randomness import choose_secret

DYING = """
import os, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
while True:
    client, _ = server.accept()
    with client:
        if b"/dies" in client.recv(65536):
            client.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 100000\\r\\n\\r\\nhalf")
        else:
            client.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nok")
"""
ROUNDS_BEFORE, ROUNDS, AT_ONCE = 8, 8, 150
GROWTH_BYTES_MAX = 6 * 1024 * 1024


def attacks(key, number):
    """Requests that no gateway should suffer from; each round brings other ones."""
    host = b"Host: gw\r\n"
    good = b"X-Api-Key: " + key + b"\r\n"
    return {
        "garbage key": b"GET /decide HTTP/1.1\r\n%bX-Api-Key: tsm_%d\r\n\r\n" % (host, number),
        "unknown key": b"GET /decide HTTP/1.1\r\n%bX-Api-Key: %b\r\n\r\n"
        % (host, new_api_key(choose_secret).encode()),
        "flood of headers": b"GET /decide HTTP/1.1\r\n%b%b"
        % (host, b"".join(b"X-%d-%d: y\r\n" % (number, each) for each in range(5000))),
        "endless header": b"GET /decide HTTP/1.1\r\n%bX-Long: %b" % (host, b"y" * 200_000),
        "slow": b"GET /decide HTTP/1.1\r\nX-Slow: ",
        "two lengths": b"POST /apps/shop/ HTTP/1.1\r\n%b%bContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"
        % (host, good),
        "too large": b"POST /apps/shop/ HTTP/1.1\r\n%b%bContent-Length: 999999999999\r\n\r\n" % (host, good),
        "half a chunk": b"POST /apps/shop/ HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\nffff\r\n%b"
        % (host, good, b"z" * 5000),
        "dying backend": b"GET /apps/shop/dies HTTP/1.1\r\n%b%b\r\n" % (host, good),
        "other app": b"GET /apps/app-%d/ HTTP/1.1\r\n%b%b\r\n" % (number, host, good),
    }


async def thrown(port, data):
    """Send `data` and read what comes, for a moment; then leave without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(data)
        async with asyncio.timeout(0.1):
            await writer.drain()
            await reader.read(100_000)
    writer.transport.abort()


async def served(port, key):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /apps/shop/ HTTP/1.1\r\nHost: gw\r\nX-Api-Key: %b\r\nConnection: close\r\n\r\n" % key)
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"ok")


@real_in_soak
async def test_nothing_stays_of_what_strangers_send(engine, fresh_starts, tmp_path):
    plant = engine.plant(tmp_path, ["eu"], {"a": "process"}, gateways="")
    key = new_api_key(choose_secret).encode()
    async with plant.running() as hub:
        app = deployment("shop", ["eu"], command=[sys.executable, "-c", DYING], env={"PLANT": str(tmp_path)})
        await hub.apply(CATALOG["Deployment"], app, "acme")
        about = {"name": "good", "namespace": "acme"}
        await hub.apply(API_KEY, manifest("ApiKey", about, {"hash": hash_of(key).hex()}), "acme")
        gateway = plant.gateways["eu"]
        async with asyncio.timeout(60):
            while not await served(gateway.port, key):
                await asyncio.sleep(0.05)
        process = psutil.Process(gateway.process.pid)
        before = (0, 0)
        for number in range(ROUNDS_BEFORE + ROUNDS):
            if number == ROUNDS_BEFORE:
                before = (process.memory_info().rss, process.num_fds())
            for each in range(AT_ONCE // 10):
                throwing = attacks(key, number * 1000 + each).values()
                await asyncio.gather(*(thrown(gateway.port, data) for data in throwing))
            assert await served(gateway.port, key)
        async with asyncio.timeout(30):
            while process.num_fds() > before[1] + 5:
                await asyncio.sleep(0.05)
        assert process.memory_info().rss - before[0] < GROWTH_BYTES_MAX
