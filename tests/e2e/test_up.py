"""`transom up`, whole: real processes on free ports, killed and started again as the printed lines say."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import sqlite3

import aiohttp
import psutil

from cli_parts import TRANSOM, environment, transom
from transom.runtime.processes import RECORD_FILE, LocalProcess, recall
from up_parts import Up, by_hand, eventually, kill

REGIONS = ("eu", "us", "ap")
PARTS = ("hub", *(f"{verb} {region}" for verb in ("region", "gateway") for region in REGIONS))


def workloads(folder, region=""):
    """The pids of what runs in a region (in all of them), as the records say."""
    records = (folder / ".transom" / "regions" / region).rglob(RECORD_FILE)
    processes = [LocalProcess(record.parent, recall(record.parent)) for record in records]
    return {process.record.pid for process in processes if process.is_alive()}


async def shown_pids(folder):
    """The pids of all healthy instances where the hub shows them; nothing when one does not answer."""
    listed = (await transom("get", "instances", "-o", "json", cwd=folder)).json["items"]
    pids = set()
    async with aiohttp.ClientSession() as http:
        for instance in listed:
            status = instance["status"]
            try:
                async with http.get(f"http://{status['host']}:{status['port']}/") as response:
                    about = await response.json()
            except aiohttp.ClientError:
                return set()
            assert about["instance"] == instance["metadata"]["name"]
            assert about["region"] == status["region"]
            if status["health"] == "Healthy":
                pids.add(about["pid"])
    return pids


async def check_gateways(stack, up, folder):
    """Without a hub: every gateway serves; one is killed and started again by the printed line."""
    assert await asyncio.gather(*(through_gateway(up, folder, region) for region in REGIONS)) == [200] * 3
    kill(up.pid_of("gateway us"))
    line = (await up.until_said(r"gateway us \(pid \d+\) has ended.*\n  (.*) &\n"))[1]
    await stack.enter_async_context(by_hand(folder, line))
    await up.until_said(r"gateway us is back \(pid (\d+)\)")
    assert await through_gateway(up, folder, "us") == 200
    assert await through_gateway(up, folder, "us", key="tsm_not-a-key") == 401


async def through_gateway(up, folder, region, key=None):
    """The status of a request through a region's gateway, with the demo's key or another."""
    address = re.findall(rf"^gateway {region} +(http\S+) ", up.said, re.MULTILINE)[-1]
    headers = {"X-Api-Key": key or (folder / ".transom" / "demo.key").read_text().strip()}
    async with aiohttp.ClientSession() as http, http.get(f"{address}/apps/hello/", headers=headers) as answer:
        return answer.status


async def test_the_demo_survives_what_people_do_to_it(folder, port):
    async with contextlib.AsyncExitStack() as stack:
        up = await stack.enter_async_context(Up.started(folder, "--port", str(port), "--demo"))
        await up.until_said(r"hello is ready[\s\S]*Ctrl-C here ends")
        for number, part in enumerate(PARTS):
            scheme = "https" if part == "hub" else "http"
            assert re.search(rf"{part} +{scheme}://127.0.0.1:{port + number} ", up.said)
        assert await shown_pids(folder) == workloads(folder)
        assert [len(workloads(folder, region)) for region in REGIONS] == [2, 2, 2]

        # An instance killed by hand comes back.
        victim = min(workloads(folder, "us"))
        kill(victim)
        await eventually(lambda: len(workloads(folder, "us") - {victim}) == 2)

        # The hub killed: the regions start again what is killed, and need nobody for it.
        kill(up.pid_of("hub"))
        ended = await up.until_said(r"hub \(pid \d+\) has ended; start it again with:\n  (.*) &\n")
        victim = min(workloads(folder, "eu"))
        kill(victim)
        await eventually(lambda: len(workloads(folder, "eu") - {victim}) == 2)

        # The gateways, too: also one that was killed and started again meanwhile.
        await check_gateways(stack, up, folder)

        # A region killed, and started again by the printed line, takes over what it ran.
        before = workloads(folder, "ap")
        kill(up.pid_of("region ap"))
        region_line = (await up.until_said(r"region ap \(pid \d+\) has ended.*\n  (.*) &\n"))[1]
        await stack.enter_async_context(by_hand(folder, region_line))
        region_pid = int((await up.until_said(r"region ap is back \(pid (\d+)\)"))[1])
        assert workloads(folder, "ap") == before

        # The hub back: what it shows becomes what is.
        await stack.enter_async_context(by_hand(folder, ended[1]))
        hub_pid = int((await up.until_said(r"hub is back \(pid (\d+)\)"))[1])
        running = workloads(folder)
        assert len(running) == 6

        async def caught_up():
            return await shown_pids(folder) == running

        await eventually(caught_up)

        # One `up` a folder; killed, its parts go on, and the next one takes them over.
        second = await transom("up", cwd=folder)
        assert second.code == 1
        assert f"in use by process {up.process.pid}" in second.err
        kill(up.process.pid)
        await up.process.wait()
        again = await stack.enter_async_context(Up.started(folder))
        await again.until_said("Ctrl-C ends all of it")
        assert (again.pid_of("hub"), again.pid_of("region ap")) == (hub_pid, region_pid)
        assert again.pid_of("region eu") == up.pid_of("region eu")
        assert workloads(folder) == running
        parts = {again.pid_of(part) for part in PARTS}
        check_no_secret_shows(folder, parts, up.said + again.said)

        assert await again.interrupted() == 0, again.said
        assert "6 running instances" in again.said
        for pid in parts | running:
            await eventually(lambda pid=pid: not is_running(pid))

    # And once more, on what the first time left.
    async with Up.started(folder, "--demo") as up:
        await up.until_said(r"hello is ready[\s\S]*Ctrl-C here ends")
        running = workloads(folder)
        assert len(running) == 6
        assert await up.interrupted() == 0
        assert not workloads(folder)
        assert not any(is_running(pid) for pid in running)


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_no_secret_shows(folder, pids, said):
    """Keys are in files of mode 0600 alone: on no command line, in no environment, output or record.

    But for the demo's own key, which `up` prints.
    """
    keys = list(folder.rglob("*.key"))
    home = folder / ".transom"
    assert {home / "hub" / "admin.key", home / "hub" / "signing.key", home / "demo.key"} < set(keys)
    assert len(keys) == 3 + len(REGIONS)
    processes = [psutil.Process(pid) for pid in pids]
    open_texts = [
        *(" ".join(process.cmdline()) for process in processes),
        *(str(process.environ()) for process in processes),
        *(path.read_text() for path in folder.rglob("*.toml")),
        *(path.read_text() for path in folder.rglob("output.log")),
        *(path.read_text() for path in folder.rglob("access.log")),
        *(path.read_text() for path in folder.rglob(RECORD_FILE)),
    ]
    for key in keys:
        assert key.stat().st_mode & 0o777 == 0o600
        secret = key.read_text().strip()
        assert len(secret) > 32
        texts = open_texts if key.name == "demo.key" else [said, *open_texts]
        assert not any(secret in text for text in texts)


async def test_a_port_in_use_is_named_and_nothing_is_started(folder, port):
    with socket.create_server(("127.0.0.1", port + 2)):
        refused = await transom("up", "--port", str(port), cwd=folder)
    assert refused.code == 2
    assert f"port {port + 2} is in use" in refused.err
    assert not list(folder.rglob(RECORD_FILE))
    assert not list(folder.rglob("*.toml")), "another port may still be chosen for this folder"


async def test_a_single_part_whose_port_is_in_use_ends(folder, port):
    part = f'port = {port}\ndata = "data"\n'
    (folder / "hub.toml").write_text(part)
    (folder / "region.toml").write_text(f'name = "eu"\nlink_key_hash = "{"0" * 64}"\n{part}')
    with socket.create_server(("127.0.0.1", port)):
        for verb in (("hub", "-c", "hub.toml"), ("region", "eu", "-c", "region.toml")):
            ran = await transom(*verb, cwd=folder)
            assert ran.code == 2, ran
            assert f"port {port} is in use" in ran.err


async def test_a_folder_of_a_newer_release_is_left_untouched(folder):
    home = folder / ".transom"
    home.mkdir()
    (home / "transom.json").write_text('{"format": 99, "release": "99.0"}')
    refused = await transom("up", cwd=folder)
    assert refused.code == 2
    assert "release 99.0" in refused.err
    assert [path.name for path in home.rglob("*")] == ["transom.json"]


async def test_a_part_that_cannot_start_says_why_and_takes_the_others_along(folder, port):
    async with Up.started(folder, "--port", str(port), "--regions", "eu") as up:
        await up.until_said("Ctrl-C ends all of it")
        assert await up.interrupted() == 0
    store = folder / ".transom" / "hub" / "store.db"
    with contextlib.closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = 'of-tomorrow'")
    refused = await transom("up", cwd=folder)
    assert refused.code == 2
    assert "of-tomorrow" in refused.err
    records = [recall(record.parent) for record in folder.rglob(RECORD_FILE)]
    assert len(records) == 3
    assert not any(is_running(record.pid) for record in records)


async def test_a_broken_configuration_file_and_another_port(folder, port):
    async with Up.started(folder, "--port", str(port), "--regions", "eu") as up:
        await up.until_said("Ctrl-C ends all of it")
        assert await up.interrupted() == 0
    other = await transom("up", "--port", str(port + 1), cwd=folder)
    assert other.code == 2
    assert f"hub.toml says {port}" in other.err
    break_configuration(folder / ".transom" / "regions" / "eu" / "region.toml")
    broken = await transom("up", cwd=folder)
    assert broken.code == 2
    assert "enviroment" in broken.err
    assert "heartbeat_seconds" in broken.err


def break_configuration(file):
    file.write_text("heartbeat_seconds = 0\n" + file.read_text().replace("environment", "enviroment"))


async def test_up_tells_the_hub_of_a_region_once(folder, port):
    async with Up.started(folder, "--port", str(port), "--regions", "eu") as up:
        await up.until_said("Ctrl-C ends all of it")
        assert await up.interrupted() == 0
    async with Up.started(folder, "--regions", "eu,us") as up:
        await up.until_said("Ctrl-C ends all of it")
        listed = json.loads((await transom("get", "regions", "-o", "json", cwd=folder)).out)
        assert {item["metadata"]["name"]: item["metadata"]["generation"] for item in listed["items"]} == {
            "eu": 1,
            "us": 1,
        }
        assert await up.interrupted() == 0


async def test_drills_cost_no_request_elsewhere(folder, port):
    async with Up.started(folder, "--port", str(port), "--regions", "eu,us", "--demo") as up:
        await up.until_said(r"hello is ready[\s\S]*Ctrl-C here ends")
        wrong = await transom("drill", "region", "nowhere", cwd=folder)
        assert wrong.code == 2
        assert "there is eu, us" in wrong.err
        for what in (["hub"], ["region", "us"]):
            ran = await transom("drill", *what, "--away", "1", "-o", "json", cwd=folder)
            assert ran.code == 0, ran
            report = ran.json
            assert report["failed_elsewhere"] == 0
            assert report["failed"]["eu"] == 0
            assert (report["failed"]["us"] > 0) == (what == ["region", "us"])
            assert min(report["requests"].values()) > 0
            assert report["noticed_after_seconds"] > 0
        cut = await asyncio.create_subprocess_exec(
            TRANSOM,
            *("drill", "hub", "--away", "60", "-o", "json"),
            cwd=folder,
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert cut.stderr is not None
        while b"killing" not in await cut.stderr.readline():
            pass
        cut.send_signal(signal.SIGINT)
        out, told = await cut.communicate()
        assert (cut.returncode, b"cut short" in told) == (130, True), told
        report = json.loads(out)
        assert (report["cut_short"], report["noticed_after_seconds"]) == (True, None)
        assert report["away_seconds"] < 60
        assert "drill-" not in (await transom("keys", "list", cwd=folder)).out
        assert await up.interrupted() == 0
