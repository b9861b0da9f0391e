"""For whom a request is, which key it brings, and how many may be made: the pure parts of the front door."""

from posixpath import normpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.region.gateway.front import Asked, RefusedError, Target, asked_of, key_of, target_of
from transom.region.gateway.grants import Grant, Rights, grant_of
from transom.region.gateway.limits import Bucket, Rate


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


def grant(key_rate: float = 0.0, tenant: tuple[Rate, Bucket] | None = None) -> Grant:
    return grant_of(
        Rights("acme", (), key_rate=Rate(key_rate) if key_rate else None, tenant_rate=tenant), "ci"
    )


@pytest.mark.parametrize("now", [0.0, 1e6 + 1 / 3])
def test_a_key_has_a_second_s_worth_and_then_its_rate(now: float):
    key = grant(2)
    assert [key.take(now + after) for after in (0, 0, 0, 0.25, 0.5, 0.5)] == pytest.approx(
        [0, 0, 0.5, 0.25, 0, 0.5], abs=1e-5
    )
    # No more than a second's worth, however long nobody asked.
    assert [key.take(now + 100) for _ in range(3)] == pytest.approx([0, 0, 0.5], abs=1e-5)


@pytest.mark.parametrize("rate", [3.0, 7.0, 10.0, 1000.0])
@pytest.mark.parametrize("now", [0.0, 12345.678, 1e6 + 1 / 3])
def test_a_bucket_holds_all_its_tokens_and_no_more(rate: float, now: float):
    key = grant(rate)
    assert [key.take(now) > 0 for _ in range(int(rate) + 1)] == [False] * int(rate) + [True]


def test_a_rate_below_one_lets_one_through():
    key = grant(0.1)
    assert [key.take(0.0), key.take(0.0)] == pytest.approx([0.0, 10.0], abs=1e-5)


def test_a_tenant_s_limit_counts_all_its_keys_and_takes_nothing_from_them():
    tenant = Rate(1), Bucket()
    one, two = grant(5, tenant), grant(5, tenant)
    assert one.take(0.0) == 0.0
    assert [two.take(0.0) for _ in range(9)] == pytest.approx([1.0] * 9, abs=1e-5)
    tenant[1].full_at = 0.0
    two.rights.tenant_rate = None
    assert [two.take(0.0) for _ in range(6)] == pytest.approx([0.0] * 5 + [0.2], abs=1e-5)


def test_no_limit_takes_nothing():
    key = grant()
    assert [key.take(0.0) for _ in range(3)] == [0.0] * 3
    assert key.full_at == 0.0


@pytest.mark.parametrize("bad", ["x\r\nset-cookie: a=b", "x\x00", "x\x7f", "x\u2028y"])
def test_an_identity_that_would_split_a_head_is_never_made(bad: str):
    good = Rights("acme", ())
    with pytest.raises(ValueError, match="no header may hold"):
        grant_of(good, bad)
    for values in ((bad, (), ""), ("acme", ("read", bad), ""), ("acme", (), bad)):
        with pytest.raises(ValueError, match="no header may hold"):
            Rights(*values)
