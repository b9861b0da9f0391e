"""The keys of an issuer: found, kept, and looked for again; so that its tokens can be checked without it.

The keys are read at the start and every ten minutes, so that one that the issuer has withdrawn is believed no
longer than that; and at once when a token names a key that is not known, because issuers change keys. All who
wait share that reading, and there is at most one every few seconds, whatever strangers send. While the issuer
does not answer, the keys it had go on; a token of an unknown key then cannot be told, which is no refusal.
Next on the data's way: `identity`.
OpenID Connect Discovery 1.0, 4; OpenID Connect Core 1.0, 10.1.1 (rotation of keys).
"""

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from transom.hub.access.callers import Caller
from transom.hub.access.tokens import KeySet, OidcConfig, caller_of_claims, is_signed, unverified
from transom.model.errors import UNREADABLE, UnreachableError
from transom.runtime.clock import Clock
from transom.runtime.connecting import cause_of
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level
from transom.runtime.telemetry import get_logger
from transom.runtime.tls import client_tls

log = get_logger(__name__)

_REFRESH_SECONDS = 600.0
_RETRY_SECONDS = 15.0
_APART_SECONDS = 5.0
_WAIT_SECONDS = 10.0
_ANSWER_SECONDS = 8.0
_BYTES_MAX = 256 * 1024
_DISCOVERY = "/.well-known/openid-configuration"


class OidcIssuer:
    """One issuer; `run` must run. Raises `InvalidError` when its `trust` cannot be read."""

    def __init__(self, config: OidcConfig, clock: Clock, randomness: Randomness) -> None:
        self.config = config
        self._clock = clock
        self._randomness = randomness
        self._tls = client_tls(f"the issuer {config.issuer}", "trust", config.trust)
        self._keys: KeySet | None = None
        self._reading = False
        self._read_at = 0.0
        self._failed = False
        self._wanted = Level()
        self._readings = Level()

    def issued(self, token: bytes) -> bool:
        """See `identity.Issuer`."""
        said = unverified(token)
        return said is not None and said.claims.get("iss") == self.config.issuer

    async def caller(self, token: bytes, source: str) -> Caller | None:
        """See `identity.Issuer`."""
        said = unverified(token)
        if said is None or said.algorithm not in self.config.algorithms:
            return None
        # What its own claims rule out needs no key, and must not have keys looked for.
        caller = caller_of_claims(said.claims, self.config, source, self._clock.wall())
        if caller is None:
            return None
        key = self._keys and self._keys.find(said.key_id, said.algorithm)
        if key is None:
            await self._read_again()
            key = self._keys and self._keys.find(said.key_id, said.algorithm)
        if key is not None:
            return caller if is_signed(token, key, said.algorithm) else None
        if self._keys is None or self._failed:
            raise UnreachableError("the keys of the token's issuer cannot be had now; ask again")
        return None

    async def run(self) -> None:
        """Keep the keys, for ever."""
        while True:
            seen = self._wanted.value
            self._reading = True
            await self._read()
            self._reading = False
            self._read_at = self._clock.monotonic()
            self._readings.rise()
            await self._clock.sleep(_APART_SECONDS)
            pause = _RETRY_SECONDS if self._failed else _REFRESH_SECONDS
            await self._wanted.above(seen, self._randomness.jitter(pause))

    async def _read_again(self) -> None:
        """Have the keys read once more, unless they were just now; wait for it a while."""
        seen = self._readings.value
        if not self._reading and seen:
            if self._clock.monotonic() - self._read_at < _APART_SECONDS:
                return
            self._wanted.rise()
        await self._readings.above(seen, _WAIT_SECONDS)

    async def _read(self) -> None:
        try:
            self._keys = KeySet(await self._published())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, *UNREADABLE) as error:
            if not self._failed:
                why = str(error) if isinstance(error, ValueError) else cause_of(error)
                log.warning("keys of an issuer cannot be had", issuer=self.config.issuer, error=why)
            self._failed = True
            return
        if self._failed:
            log.info("keys of an issuer can be had again", issuer=self.config.issuer)
        self._failed = False

    async def _published(self) -> bytes:
        if self.config.keys is not None:
            return _read_file(self.config.keys)
        limit = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=limit) as session:
            about = msgspec.json.decode(
                await _get(session, self.config.issuer.rstrip("/") + _DISCOVERY, self._tls),
                type=dict[str, Any],
            )
            if about.get("issuer") != self.config.issuer:
                raise ValueError(f"says that it is {about.get('issuer')!r}")
            address = about.get("jwks_uri")
            if not isinstance(address, str) or not address.startswith("https://"):
                raise ValueError(f"has its keys at {address!r}, which is no https://…")
            return await _get(session, address, self._tls)


async def _get(session: aiohttp.ClientSession, address: str, tls: ssl.SSLContext | None) -> bytes:
    async with session.get(address, ssl=tls or True, allow_redirects=False) as reply:
        if reply.status != 200:  # noqa: PLR2004  # OK
            raise ValueError(f"{address} answers {reply.status}")
        data = bytearray()
        async for part in reply.content.iter_any():
            data += part
            if len(data) > _BYTES_MAX:
                raise ValueError(f"{address} answers more than {_BYTES_MAX} bytes")
        return bytes(data)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_BYTES_MAX + 1)
    if len(data) > _BYTES_MAX:
        raise ValueError(f"{path} holds more than {_BYTES_MAX} bytes")
    return data
