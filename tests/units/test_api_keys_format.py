"""What an API key looks like, what it may do, and times in specs (`model.api_keys`, `access`, `times`)."""

import hashlib
import zlib
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.model.access import READING, allows, is_scope
from transom.model.api_keys import KEY_CHARACTERS, hash_of, is_well_formed, new_api_key
from transom.model.times import read_time
from transom.runtime.randomness import choose_secret

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def chosen(random: str) -> str:
    """The key whose random part is `random`."""
    letters = iter(random)
    return new_api_key(lambda _: next(letters))


def base62(number: int) -> str:
    """Written apart from the code: the remainders, last one first."""
    text = ""
    while number:
        text = BASE62[number % 62] + text
        number //= 62
    return text.rjust(6, "0")


# --- the format ----------------------------------------------------------------------------------------


@given(st.text(alphabet=BASE62, min_size=30, max_size=30))
def test_a_key_is_a_prefix_thirty_random_characters_and_their_checksum(random: str) -> None:
    key = chosen(random)
    assert key == f"tsm_{random}{base62(zlib.crc32(random.encode()))}"
    assert len(key) == KEY_CHARACTERS
    assert is_well_formed(key.encode())


def test_every_character_is_chosen_from_all_sixty_two_and_secretly() -> None:
    asked: list[str] = []

    def choose(characters: str) -> str:
        asked.append(characters)
        return characters[0]

    new_api_key(choose)
    assert [sorted(each) for each in asked] == [sorted(BASE62)] * 30
    keys = {new_api_key(choose_secret) for _ in range(200)}
    assert len(keys) == 200
    assert set("".join(key[4:34] for key in keys)) == set(BASE62)


def test_one_wrong_character_anywhere_makes_it_no_key() -> None:
    key = chosen("".join(letter for letter, _ in zip(cycle(BASE62[7:]), range(30), strict=False)))
    for place in range(len(key)):
        for letter in BASE62 + "_-.":
            spoilt = key[:place] + letter + key[place + 1 :]
            assert is_well_formed(spoilt.encode()) == (spoilt == key)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"tsm_",
        b"x" * KEY_CHARACTERS,
        b"tsm_" + b"\0" * 36,
        b"tsm_" + b"\xff" * 36,
        b"TSM_" + chosen("a" * 30).encode()[4:],
        chosen("a" * 30).encode() + b"\n",
        chosen("a" * 30).encode()[:-1],
        b" " + chosen("a" * 30).encode(),
        chosen("a" * 30).encode() * 1000,
    ],
)
def test_garbage_is_no_key(garbage: bytes) -> None:
    assert not is_well_formed(garbage)


def test_what_is_kept_of_a_key_is_its_sha256() -> None:
    key = chosen("b" * 30).encode()
    assert hash_of(key) == hashlib.sha256(key).digest()


# --- what a key may do ---------------------------------------------------------------------------------

ALLOWED = {
    # scope: what it allows, of (app, method)
    "*": {"shop GET", "shop POST", "till GET", "till POST", " GET", " POST"},
    "*:read": {"shop GET", "till GET", " GET"},
    "app:*": {"shop GET", "shop POST", "till GET", "till POST"},
    "app:*:read": {"shop GET", "till GET"},
    "app:shop": {"shop GET", "shop POST"},
    "app:shop:read": {"shop GET"},
}
ASKED = [(app, method) for app in ("shop", "till", "") for method in ("GET", "POST")]


@pytest.mark.parametrize("scope", ALLOWED)
def test_what_a_scope_allows(scope: str) -> None:
    assert is_scope(scope)
    assert {f"{app} {method}" for app, method in ASKED if allows((scope,), app, method)} == ALLOWED[scope]


def test_scopes_add_up_and_none_allows_nothing() -> None:
    both = ("app:shop:read", "app:till")
    assert allows(both, "till", "DELETE")
    assert allows(both, "shop", "HEAD")
    assert not allows(both, "shop", "DELETE")
    assert not any(allows((), app, method) for app, method in ASKED)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "PURGE", ""])
def test_only_methods_that_change_nothing_are_reading(method: str) -> None:
    assert {"GET", "HEAD", "OPTIONS"} == READING
    assert not allows(("*:read", "app:*:read", "app:shop:read"), "shop", method)


@pytest.mark.parametrize("app", ["shop:read", ":read", "*:read", "shop:", "app:shop"])
def test_an_app_that_reads_like_a_scope_is_no_app(app: str) -> None:
    scopes = ("app:shop", "app:shop:read", "app:*:read", f"app:{app}")
    assert not allows(scopes, app, "POST")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " *",
        "**",
        "app:",
        "app",
        "app::read",
        "app:Shop",
        "app:-a",
        "app:a-",
        "app:shop:write",
        "*:read:read",
        "shop",
        "app:shop\n",
        "*\n",
        "app:a.b",
        f"app:{'a' * 64}",
        "app:*x",
        "read",
        ":read",
    ],
)
def test_what_is_no_scope(text: str) -> None:
    assert not is_scope(text)


# --- times in specs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01t00:00:01.5z", 1.5),
        ("1970-01-01 02:00:00+02:00", 0.0),
        ("1969-12-31T23:59:59.250000-00:00", -0.75),
        ("2030-01-31T12:00:00.123456789Z", 1_896_091_200.123456),
    ],
)
def test_a_time_is_read_with_its_offset(text: str, seconds: float) -> None:
    assert read_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2030-01-31",
        "2030-01-31T12:00:00",
        "2030-02-30T12:00:00Z",
        "2030-01-31T25:00:00Z",
        "20300131T120000Z",
        "2030-W05-4T12:00:00Z",
        "2030-01-31T12:00:00Z\n",
        "2030-01-31T12:00:00+24:00",
        "2030-01-31T12:00:60Z",
        "1896091200",
        "٢٠٣٠-01-31T12:00:00Z",
    ],
)
def test_what_could_be_misread_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        read_time(text)
