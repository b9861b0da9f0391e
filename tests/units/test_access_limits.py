"""How much may be asked: token buckets, places at work, and what strangers are told."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from access_parts import made_key
from api_parts import DEPLOYMENTS, served
from transom.hub.access import limits
from transom.hub.access.limits import Buckets, Limits, LimitsConfig, Places, TooManyError, network_of
from transom.runtime.clock import ManualClock


@given(st.lists(st.one_of(st.none(), st.floats(0, 20)), max_size=80), st.floats(0.5, 20), st.integers(1, 10))
def test_a_bucket_never_gives_more_than_its_rate_and_burst(steps, rate, burst):
    clock = ManualClock()
    buckets = Buckets(clock, rate, burst)
    taken = 0
    for step in steps:
        if step is not None:
            clock.advance(step)
        elif buckets.wait_seconds("a") == 0:
            buckets.take("a")
            taken += 1
        assert taken <= burst + clock.monotonic() * rate + 1e-6


def test_who_waits_as_long_as_is_said_may_ask_again():
    clock = ManualClock()
    buckets = Buckets(clock, 2.0, 3)
    for _ in range(3):
        assert buckets.wait_seconds("a") == 0
        buckets.take("a")
    assert buckets.wait_seconds("b") == 0, "each has a bucket"
    clock.advance(buckets.wait_seconds("a") - 0.01)
    assert buckets.wait_seconds("a") > 0
    clock.advance(0.02)
    assert buckets.wait_seconds("a") == 0


def test_buckets_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(limits, "_NAMES_MAX", 10)
    buckets = Buckets(ManualClock(), 1.0, 1)
    for number in range(100):
        buckets.take(str(number))
    assert len(buckets._filled) == 10
    assert buckets.wait_seconds("99") > 0


def test_one_caller_has_a_quarter_of_all_places():
    places = Places(8)
    with places.one("a", "requests"), places.one("a", "requests"):
        with pytest.raises(TooManyError), places.one("a", "requests"):
            pass
        with places.one("b", "requests"):
            pass
    with places.one("a", "requests"):
        pass
    assert not places._taken, "nothing is kept of who has none"


def test_all_places_together_are_bounded():
    places = Places(4)
    with (
        places.one("a", "requests"),
        places.one("b", "requests"),
        places.one("c", "requests"),
        places.one("d", "requests"),
        pytest.raises(TooManyError),
        places.one("e", "requests"),
    ):
        pass


def test_watches_take_no_place_of_others():
    held = Limits(LimitsConfig(watches_at_once=4, requests_at_once=4), ManualClock())
    with held.one("a", watch=True):
        with pytest.raises(TooManyError), held.one("a", watch=True):
            pass
        with held.one("a", watch=False):
            pass


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("", ""),
    ],
)
def test_strangers_are_counted_by_address_or_network(source, network):
    assert network_of(source) == network


async def test_who_asks_too_much_is_told_when_to_ask_again(tmp_path):
    config = LimitsConfig(requests_per_second=0.01, burst=2)
    async with served(tmp_path, limits=config) as api:
        key, other = (
            await made_key(api.store, "ci", acme="viewer"),
            await made_key(api.store, "b", acme="viewer"),
        )
        codes = [(await api.ask("GET", DEPLOYMENTS, key=key)).code for _ in range(2)]
        told = await api.ask("GET", DEPLOYMENTS, key=key)
        assert (*codes, told.code) == (200, 200, 429)
        assert told.body["reason"] == "TooManyRequests"
        assert told.body["details"] == {"retryAfterSeconds": int(told.headers["Retry-After"])}
        assert 90 <= int(told.headers["Retry-After"]) <= 100
        assert (await api.ask("GET", DEPLOYMENTS, key=other)).code == 200
        for _ in range(10):
            assert (await api.ask("GET", DEPLOYMENTS)).code == 200, "operators are not limited"


async def test_wrong_keys_are_told_less_and_less_and_good_ones_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_FAILURES_BURST", 3.0)
    monkeypatch.setattr(limits, "_FAILURES_PER_SECOND", 0.001)
    async with served(tmp_path) as api:
        key = await made_key(api.store, "ci", acme="viewer")
        codes = [(await api.ask("GET", DEPLOYMENTS, key="wrong")).code for _ in range(5)]
        assert codes == [401, 401, 401, 429, 429]
        assert (await api.ask("GET", DEPLOYMENTS, key="a.b.c")).code == 429
        assert (await api.ask("GET", DEPLOYMENTS, key=key)).code == 200
        assert (await api.ask("GET", DEPLOYMENTS, key="")).code == 401, "nothing was shown"
