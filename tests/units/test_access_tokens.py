"""Tokens of a real issuer: whom they name, what is refused, keys that change, and an issuer that is away."""

import asyncio
import contextlib
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pydantic import ValidationError

from oidc_parts import AUDIENCE, forged, issuing, part, rsa_key
from transom.hub.access.callers import AUTHENTICATED, Caller
from transom.hub.access.issuers import OidcIssuer
from transom.hub.access.tokens import OidcConfig, check_distinct
from transom.model.errors import UnreachableError
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness

ADA = Caller("oidc:ada", ("oidc:devs", AUTHENTICATED), "::1")


class World:
    """An issuer, the hub's side of it, and a clock."""

    def __init__(self, issuer, config) -> None:
        self.issuer = issuer
        self.clock = ManualClock()
        self.side = OidcIssuer(config, self.clock, Randomness(3))
        self.now = self.clock.wall()

    def token(self, key_id="one", **changed) -> str:
        return self.issuer.token(key_id, self.clock.wall(), **changed)

    async def who(self, token: str) -> Caller | None:
        shown = token.encode()
        return await self.side.caller(shown, "::1") if self.side.issued(shown) else None

    async def later(self, seconds: float) -> None:
        while not self.clock.sleeping:
            await asyncio.sleep(0)
        self.clock.advance(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def world(tmp_path):
    async with make_world(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def make_world(folder, **config):
    async with issuing(folder) as issuer:
        given = {"issuer": issuer.address, "audiences": [AUDIENCE], "trust": issuer.trust, **config}
        made = World(issuer, OidcConfig(**given))
        running = asyncio.create_task(made.side.run())
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_good_token_names_a_user_and_groups(world):
    assert await world.who(world.token()) == ADA
    assert await world.who(world.token(aud=["another", AUDIENCE], groups="ops")) == Caller(
        "oidc:ada", ("oidc:ops", AUTHENTICATED), "::1"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another"},
        {"aud": []},
        {"aud": ...},
        {"aud": [[AUDIENCE]]},
        {"iss": "https://evil.example"},
        {"exp": ...},
        {"exp": 1_700_000_000 - 31},
        {"exp": "9999999999"},
        {"exp": True},
        {"nbf": 1_700_000_000 + 31},
        {"iat": 1_700_000_000 + 31},
        {"sub": ...},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": ["ada"]},
        {"sub": "x" * 257},
        {"groups": [1]},
        {"groups": {"devs": True}},
        {"groups": [["devs"]]},
    ],
    ids=str,
)
async def test_a_claim_that_is_wrong_makes_a_token_worthless(world, changed):
    assert await world.who(world.token()) == ADA
    assert await world.who(world.token(**changed)) is None


async def test_clocks_may_be_half_a_minute_apart(world):
    assert await world.who(world.token(nbf=world.now + 29, iat=world.now + 29)) == ADA
    assert await world.who(world.token(exp=world.now - 29)) == ADA


async def test_a_token_ends_by_the_clock_here(world):
    token = world.token()
    assert await world.who(token) == ADA
    world.clock.advance(300 + 31)
    assert await world.who(token) is None


async def test_forged_tokens_are_worthless(world):
    claims = world.issuer.claims(world.now)
    public = rsa_key().public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": "one"}
    shared = hmac.new(pem, part(header) + b"." + part(claims), hashlib.sha256).digest()
    good = world.token()
    head, body, signature = good.split(".")
    other = world.issuer.token("one", world.now, sub="eve").split(".")
    world.issuer.keys["stolen"] = ("RS256", rsa_key(1))
    stranger = world.token("stolen", header={"kid": "one"})
    del world.issuer.keys["stolen"]
    assert await world.who(good) == ADA
    for token in (
        forged({"alg": "none"}, claims),
        forged({"alg": "None", "kid": "one"}, claims),
        forged({"alg": "", "kid": "one"}, claims),
        forged({"kid": "one"}, claims),
        forged(header, claims, shared),
        forged({"alg": "RS256", "kid": "one"}, claims),
        forged({"alg": "ES256", "kid": "one"}, claims, bytes(64)),
        f"{head}.{other[1]}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature}=",
        f"{head}.{body}.{signature[:-4]}AAAA",
        stranger,
        world.token(header={"kid": "../../one"}),
        world.token(header={"kid": "' OR 1=1"}),
        world.token(header={"kid": "one", "crit": ["exp"]}),
        world.token(header={"kid": "two", "jku": "https://evil.example/keys"}),
        "..",
        "a.b.c",
    ):
        assert await world.who(token) is None, token[:60]


async def test_an_algorithm_that_is_not_allowed_is_worthless_with_a_good_signature(tmp_path):
    async with make_world(tmp_path, algorithms=["ES256", "EdDSA"]) as world:
        world.issuer.keys["curve"] = ("ES256", ec.generate_private_key(ec.SECP256R1()))
        world.issuer.keys["edwards"] = ("EdDSA", ed25519.Ed25519PrivateKey.generate())
        assert await world.who(world.token("curve")) == ADA
        assert await world.who(world.token("edwards")) == ADA
        assert await world.who(world.token("one")) is None


async def test_a_key_without_a_name_is_found_when_it_is_the_only_one(world):
    assert await world.who(world.token(header={})) == ADA
    world.issuer.keys["two"] = ("RS256", rsa_key(1))
    await world.later(6)
    assert await world.who(world.token("two")) == ADA
    assert await world.who(world.token(header={})) is None


async def test_required_claims_and_verified_addresses(tmp_path):
    config = {"required_claims": {"hd": "example.com"}, "username_claim": "email", "prefix": "corp:"}
    async with make_world(tmp_path, **config) as world:
        assert await world.who(world.token()) is None
        assert (await world.who(world.token(hd="example.com"))).name == "corp:ada@example.com"
        assert await world.who(world.token(hd="example.com", email_verified=False)) is None


async def test_changed_keys_are_found_at_once_and_withdrawn_ones_end(world):
    old = world.token()
    assert await world.who(old) == ADA
    world.issuer.keys = {"two": ("RS256", rsa_key(1))}
    await world.later(6)
    assert await world.who(world.token("two")) == ADA
    assert await world.who(old) is None


async def test_unknown_keys_make_one_reading_and_no_storm(world):
    assert await world.who(world.token()) == ADA
    await world.later(6)
    before = world.issuer.asked
    tokens = [world.token(header={"kid": f"k{number}"}) for number in range(20)]
    assert await asyncio.gather(*map(world.who, tokens)) == [None] * 20
    assert world.issuer.asked == before + 1
    assert await asyncio.gather(*map(world.who, tokens)) == [None] * 20
    assert world.issuer.asked == before + 1, "again within seconds"


async def test_tokens_that_are_not_for_us_have_nothing_read(world):
    assert await world.who(world.token()) == ADA
    await world.later(6)
    before = world.issuer.asked
    assert await world.who(world.token(header={"kid": "k"}, aud="another")) is None
    assert world.issuer.asked == before


async def test_known_keys_go_on_while_the_issuer_is_away(world):
    assert await world.who(world.token()) == ADA
    world.issuer.down = True
    await world.later(6)
    with pytest.raises(UnreachableError):
        await world.who(world.token(header={"kid": "new"}))
    assert await world.who(world.token()) == ADA
    world.issuer.down = False
    await world.later(6)
    assert await world.who(world.token(header={"kid": "new"})) is None


async def test_an_issuer_that_says_it_is_another_is_not_believed(tmp_path):
    async with make_world(tmp_path) as world:
        world.issuer.says_issuer = "https://evil.example"
        with pytest.raises(UnreachableError):
            await world.who(world.token())


async def test_keys_may_be_in_a_file(tmp_path):
    import msgspec

    async with issuing(tmp_path) as issuer:
        file = tmp_path / "keys.json"
        file.write_bytes(msgspec.json.encode(issuer.jwks()))
        async with make_world(tmp_path / "..", keys=file, issuer=issuer.address) as world:
            world.issuer.address = issuer.address
            assert await world.who(world.token()) == ADA


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://idp.example"},
        {"audiences": []},
        {"prefix": ""},
        {"prefix": "key:"},
        {"prefix": "system:"},
        {"prefix": "oidc"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
    ],
    ids=str,
)
def test_what_would_not_be_safe_is_refused(wrong):
    good = {"issuer": "https://idp.example", "audiences": ["a"]}
    OidcConfig(**good)
    with pytest.raises(ValidationError):
        OidcConfig(**{**good, **wrong})


def test_two_issuers_share_no_prefix():
    one = OidcConfig(issuer="https://one.example", audiences=["a"])
    two = OidcConfig(issuer="https://two.example", audiences=["a"])
    with pytest.raises(ValueError, match="the same prefix"):
        check_distinct([one, two])
