"""For whom a request is, which key it brings, and how many may be made: the pure parts of the front door."""

from posixpath import normpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.region.gateway.decision import Identity
from transom.region.gateway.front import Asked, RefusedError, Target, asked_of, key_of, target_of
from transom.region.gateway.limits import Rates


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("/apps/shop", Target("shop", b"/", b"/apps/shop")),
        ("/apps/shop/", Target("shop", b"/", b"/apps/shop/")),
        ("/apps/shop/a/b?x=/../y", Target("shop", b"/a/b?x=/../y", b"/apps/shop/a/b")),
        ("/apps/shop?x=1", Target("shop", b"/?x=1", b"/apps/shop")),
        ("/apps/shop/.well-known/x", Target("shop", b"/.well-known/x", b"/apps/shop/.well-known/x")),
        ("/apps/shop/a%2Fb", Target("shop", b"/a%2Fb", b"/apps/shop/a%2Fb")),
        ("/apps/shop//a", Target("shop", b"//a", b"/apps/shop//a")),
        ("/apps/shop/a;v=1", Target("shop", b"/a;v=1", b"/apps/shop/a;v=1")),
        ("/other/x", Target("", b"/other/x", b"/other/x")),
        ("/", Target("", b"/", b"/")),
    ],
)
def test_plain_paths_name_their_app(uri: str, target: Target):
    assert target_of(uri.encode()) == target


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "apps/shop",
        "/apps",
        "/apps/",
        "//apps/shop",
        "/apps//shop",
        "/Apps/shop",
        "/APPS/shop",
        "/apps/Shop",
        "/apps/sh%6Fp/x",
        "/%61pps/shop",
        "/apps%2Fshop",
        "/apps;x=1/shop",
        "/apps/shop;x/y",
        "/apps/../apps/shop",
        "/x/../apps/shop",
        "/apps/shop/../other/x",
        "/apps/shop/..",
        "/apps/shop/./x",
        "/apps/shop/%2e%2e/other",
        "/apps/shop/.%2E/other",
        "/apps/shop/..%2fother",
        "/apps/shop/%252e%252e/other",
        "/apps/shop/%252e%252e%252fother",
        "/apps/shop/..;/other",
        "/apps/shop/..;a=b/other",
        "/apps/shop\\..\\other",
        "/apps/shop/%5c..%5cother",
        "/apps/shop/x%00",
        "/apps/shop#x",
        "/apps/shop/x y",
        "/apps/shop/\x01",
        "/apps/shop/\xe4",
    ],
)
def test_ambiguous_paths_are_refused(uri: str):
    with pytest.raises(RefusedError) as refused:
        target_of(uri.encode("latin-1"))
    assert refused.value.status == 400


@given(st.text("/.%2eEfFaps\\;?shopx5cC", max_size=24))
def test_what_is_forwarded_never_leaves_its_app(tail: str):
    """However a server behind resolves what is forwarded, it stays where it was checked."""
    try:
        target = target_of(b"/apps/shop/" + tail.encode())
    except RefusedError:
        return
    assert target.app == "shop"
    path = target.forward.decode().partition("?")[0]
    for _ in range(3):
        resolved = normpath("/apps/shop/" + path.replace("\\", "/").lstrip("/"))
        assert resolved == "/apps/shop" or resolved.startswith("/apps/shop/")
        path = unquote(path)


@pytest.mark.parametrize(
    ("target", "headers", "asked"),
    [
        ("/decide/apps/shop/x?y", {}, Asked("shop", "POST", b"/apps/shop/x")),
        # What the path carries wins over whatever a client may have sent.
        (
            "/decide/apps/shop/x?app=mine",
            {"x-original-uri": "/apps/mine/", "x-original-method": "GET", "x-forwarded-uri": "/apps/mine/"},
            Asked("shop", "POST", b"/apps/shop/x"),
        ),
        ("/decide/?app=mine", {}, Asked("", "POST", b"/")),
        (
            "/decide?app=shop",
            {"x-original-uri": "/apps/mine/", "x-original-method": "PUT"},
            Asked("shop", "PUT", b""),
        ),
        ("/decide?app=shop", {"x-forwarded-method": "GET"}, Asked("shop", "GET", b"")),
        (
            "/decide",
            {"x-original-uri": "/apps/shop/x?k=v", "x-original-method": "DELETE"},
            Asked("shop", "DELETE", b"/apps/shop/x"),
        ),
        (
            "/decide",
            {"x-forwarded-uri": "/apps/shop/", "x-forwarded-method": "GET"},
            Asked("shop", "GET", b"/apps/shop/"),
        ),
        ("/decide", {}, Asked("", "POST", b"")),
    ],
)
def test_what_the_decision_endpoint_is_asked(target: str, headers: dict[str, str], asked: Asked):
    assert asked_of(target.encode(), "POST", encoded(headers)) == asked


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (
            "/decide",
            {"x-original-uri": "/apps/a/", "x-forwarded-uri": "/apps/b/", "x-original-method": "GET"},
        ),
        ("/decide", {"x-original-uri": "/apps/a/"}),
        ("/decide", {"x-original-uri": "/apps/a/", "x-forwarded-method": "GET"}),
        ("/decide", {"x-forwarded-uri": "/apps/a/", "x-original-method": "GET"}),
        ("/decide", {"x-original-method": "GET"}),
        ("/decide", {"x-original-uri": "/apps/a/", "x-original-method": "get"}),
        ("/decide", {"x-original-uri": "", "x-original-method": "GET"}),
        ("/decide", {"x-original-uri": "/apps/a/%2e%2e/b", "x-original-method": "GET"}),
        ("/decide", {"x-original-uri": "http://x/apps/a/", "x-original-method": "GET"}),
        ("/decide?app=shop", {}),
        ("/decide?app=shop", {"x-original-method": "GET", "x-forwarded-method": "PUT"}),
        ("/decide?app=shop&app=b", {"x-original-method": "GET"}),
        ("/decide?app=", {"x-original-method": "GET"}),
        ("/decide?ap=shop", {"x-original-method": "GET"}),
        ("/decided", {}),
        ("/decide%2fapps/shop", {}),
        ("/decide//apps/shop", {}),
        ("/decide/../apps/shop", {}),
    ],
)
def test_questions_that_could_mean_two_things_are_refused(target: str, headers: dict[str, str]):
    with pytest.raises(RefusedError) as refused:
        asked_of(target.encode(), "GET", encoded(headers))
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, b""),
        ({"authorization": "Bearer tsm_x"}, b"tsm_x"),
        ({"authorization": "bearer  tsm_x "}, b"tsm_x"),
        ({"x-api-key": "tsm_x "}, b"tsm_x"),
        ({"authorization": "Basic abc"}, b""),
        ({"authorization": "tsm_x"}, b""),
        ({"authorization": "Basic abc", "x-api-key": "tsm_x"}, b"tsm_x"),
    ],
)
def test_the_key_is_found(headers: dict[str, str], key: bytes):
    assert key_of(encoded(headers)) == key


def test_two_keys_are_refused():
    with pytest.raises(RefusedError, match="send one") as refused:
        key_of({b"authorization": b"Bearer tsm_a", b"x-api-key": b"tsm_b"})
    assert refused.value.status == 400


def encoded(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in headers.items()}


def identity(key: str, key_limit: float = 0.0, tenant_limit: float = 0.0) -> Identity:
    return Identity("acme", key, (), "", key_limit, tenant_limit)


def test_a_key_has_a_second_s_worth_and_then_its_rate():
    rates = Rates(10)
    key = identity("a", key_limit=2)
    assert [rates.take(key, 0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rates.take(key, 0.25) == 0.25
    assert rates.take(key, 0.5) == 0.0
    assert rates.take(key, 0.5) == 0.5
    assert [rates.take(key, 100.0) for _ in range(3)] == [0.0, 0.0, 0.5]  # no more than a second's worth


def test_a_rate_below_one_lets_one_through():
    rates = Rates(10)
    assert rates.take(identity("a", key_limit=0.1), 0.0) == 0.0
    assert rates.take(identity("a", key_limit=0.1), 0.0) == pytest.approx(10.0)


def test_a_tenant_s_limit_counts_all_its_keys_and_takes_nothing_from_them():
    rates = Rates(10)
    one, two = identity("a", 5, 1), identity("b", 5, 1)
    assert rates.take(one, 0.0) == 0.0
    assert rates.take(two, 0.0) == 1.0
    assert [rates.take(identity("b", 5), 0.0) for _ in range(6)] == [0.0] * 5 + [0.2]


def test_only_so_many_rates_are_remembered_and_the_busy_ones_stay():
    rates = Rates(8)
    busy = identity("busy", key_limit=1)
    rates.take(busy, 0.0)
    for number in range(100):
        rates.take(identity(f"k{number}", key_limit=1), 0.0)
        assert rates.take(busy, 0.0) > 0
        assert len(rates) <= 8


def test_no_limit_needs_no_bucket():
    rates = Rates(3)
    assert rates.take(identity("a"), 0.0) == 0.0
    assert len(rates) == 0
