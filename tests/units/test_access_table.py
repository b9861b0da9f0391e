"""Keys and bindings in memory: as new as every request, on both engines, by whichever process they changed;
and what holds while the store does not answer.
"""

import asyncio

import pytest

from access_parts import binding, caller, hub_key, made_key
from api_parts import DEPLOYMENTS, ROOT, served
from hub_parts import CLOCK, open_store, put, remove
from transom.catalog.kinds import shipped
from transom.hub.access.rights import Decision
from transom.hub.access.rules import Asked
from transom.hub.access.table import AccessTable
from transom.hub.store import Store
from transom.hub.store_postgres_setup import postgres_database
from transom.model.errors import UnreachableError
from transom.runtime.randomness import Randomness

GET = Asked("get", "transom.dev", "deployments", tenant="acme", name="shop")


@pytest.mark.usefixtures("each_engine")
async def test_every_change_is_known_once_it_is_acknowledged(tmp_path):
    async with open_store(tmp_path) as store:
        table = AccessTable(store)
        bound = binding("b", "acme", caller().name, role="viewer")
        key, made = hub_key("ci")
        for _ in range(3):
            await store.write_all([put(bound), put(made)])
            assert await table.fresh()
            assert table.rights.decide(caller(), GET) is Decision.ALLOWED
            assert table.keys.named(key.encode(), CLOCK.wall()) == "ci"
            await store.write_all([remove(bound.key), remove(made.key)])
            assert await table.fresh()
            assert table.rights.decide(caller(), GET) is Decision.HIDDEN
            assert table.keys.named(key.encode(), CLOCK.wall()) is None


async def test_a_change_by_another_process_holds_for_the_next_request(tmp_path, postgres):
    """The other process is never heard: its notifications do not arrive."""
    with postgres.database() as url:
        places = [postgres_database(url, None, None) for _ in range(2)]
        here, there = [await Store.open(each, shipped(), CLOCK, Randomness(7)) for each in places]
        try:
            here.levels.hear = lambda _news: None
            table = AccessTable(here)
            bound = binding("b", "", caller().name, role="viewer")
            for _ in range(5):
                await there.write(put(bound))
                assert await table.fresh()
                assert table.rights.decide(caller(), GET) is Decision.ALLOWED
                await there.write(remove(bound.key))
                assert await table.fresh()
                assert table.rights.decide(caller(), GET) is not Decision.ALLOWED
        finally:
            await here.close()
            await there.close()


async def test_requests_that_come_together_share_a_reading(tmp_path):
    async with open_store(tmp_path) as store:
        table = AccessTable(store)
        store.database.is_shared = True  # type: ignore[misc]
        readings = 0
        read = store.read

        async def counted(work):
            nonlocal readings
            readings += 1
            await asyncio.sleep(0)
            return await read(work)

        store.read = counted  # type: ignore[method-assign]
        assert all(await asyncio.gather(*(table.fresh() for _ in range(50))))
        assert readings == 2, "the one that was under way when the others came serves only who it began for"
        assert await table.fresh()
        assert readings == 3, "a reading from before a request came is too old for it"


async def test_one_who_leaves_takes_nobody_along(tmp_path):
    async with open_store(tmp_path) as store:
        table = AccessTable(store)
        waiting = [asyncio.create_task(table.fresh()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert await asyncio.gather(*waiting[1:]) == [True, True]


class Cut:
    """Cuts a store off: nothing is read or written until `mend`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.held = store.read, store.write_all

    def cut(self) -> None:
        async def away(*_args, **_words):
            raise UnreachableError("the hub's store cannot be used now: cut off")

        self.store.read = self.store.write_all = away  # type: ignore[method-assign]
        # As if other processes shared it: what they changed meanwhile cannot be known.
        self.store.database.is_shared = True  # type: ignore[misc]

    def mend(self) -> None:
        self.store.read, self.store.write_all = self.held  # type: ignore[method-assign]


async def test_while_the_store_is_down_who_you_are_is_known_and_nothing_else_is_said(tmp_path):
    async with served(tmp_path) as api:
        good = await made_key(api.store, "ci", acme="viewer")
        revoked = await made_key(api.store, "old", acme="viewer")
        patch = {"spec": {"revoked": True}}
        media = "application/merge-patch+json"
        assert (await api.ask("PATCH", f"{ROOT}/hubkeys/old", patch, media=media)).code == 200
        assert (await api.ask("GET", DEPLOYMENTS, key=good)).code == 200
        cut = Cut(api.store)
        cut.cut()
        unknown = hub_key("new")[0]
        for key, method, path, code in (
            (good, "GET", DEPLOYMENTS, 503),
            (good, "GET", f"{DEPLOYMENTS}/shop", 503),
            (good, "POST", DEPLOYMENTS, 503),
            (good, "GET", DEPLOYMENTS.replace("acme", "other"), 503),
            (good, "GET", f"{DEPLOYMENTS}?watch=true&resourceVersion=1", 503),
            (good, "GET", "/metrics", 503),
            (good, "GET", "/version", 200),
            (unknown, "GET", DEPLOYMENTS, 503),
            (unknown, "GET", "/version", 503),
            (revoked, "GET", "/version", 503),
            ("nonsense", "GET", "/version", 401),
            (good[:-1] + "x", "GET", "/version", 401),
            ("", "GET", DEPLOYMENTS, 401),
        ):
            told = await api.ask(method, path, key=key)
            assert told.code == code, (method, path, told.body)
            if code == 503:
                assert told.body["reason"] == "ServiceUnavailable"
                assert "store does not answer" in told.body["message"]
                assert told.headers["Retry-After"]
        assert (await api.ask("GET", "/metrics")).code == 200, "operators see what is wrong"
        assert (await api.ask("GET", DEPLOYMENTS)).code == 503
        cut.mend()
        assert (await api.ask("GET", DEPLOYMENTS, key=good)).code == 200
        assert (await api.ask("GET", DEPLOYMENTS, key=revoked)).code == 401
        assert (await api.ask("GET", DEPLOYMENTS, key=unknown)).code == 401
