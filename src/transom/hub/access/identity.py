"""Who somebody is, by what they show: the administrator's key, a key to the hub, or an issuer's token.

1. What is shown is in no log, no error and no answer.
2. "Nobody" is said only when it is certain: while the store or an issuer cannot be asked, what is not known
   cannot be told, which is no refusal (invariant 10).

Next on the data's way: `hub.api.door` lets in or refuses.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from transom.hub.access.callers import AUTHENTICATED, KEY_PREFIX, Caller, administrator
from transom.hub.access.table import AccessTable
from transom.model.api_keys import HUB_PREFIX, is_well_formed
from transom.model.errors import UnreachableError
from transom.runtime.clock import Clock
from transom.runtime.secret_files import matches

_SHOWN_CHARACTERS_MAX = 16 * 1024
_TOKEN_DOTS = 2


class Issuer(Protocol):
    """Somebody whose tokens are believed."""

    def issued(self, token: bytes) -> bool:
        """Whether `token` says that it is from here; nothing of it is believed yet."""
        ...

    async def caller(self, token: bytes, source: str) -> Caller | None:
        """Who the token is for; None when it is not good. Raises `UnreachableError`: it cannot be told."""
        ...


class Known(NamedTuple):
    """A caller, and whether what is held of rights is `fresh` for this request (`table`)."""

    caller: Caller
    fresh: bool


class Identity:
    """Tells callers by what they show."""

    def __init__(
        self, table: AccessTable, admin_key_hash: str, issuers: Sequence[Issuer], clock: Clock
    ) -> None:
        self._table = table
        self._admin_key_hash = admin_key_hash
        self._issuers = issuers
        self._clock = clock

    def is_token(self, shown: str) -> bool:
        """Whether telling who this is costs more than a look-up: a token with a signature to be checked."""
        return shown.count(".") == _TOKEN_DOTS and not matches(shown, self._admin_key_hash)

    async def known(self, shown: str, source: str) -> Known | None:
        """Who shows this, coming from `source`; None when it is nobody.

        Raises `UnreachableError` when that cannot be told now.
        """
        if not shown.isascii() or len(shown) > _SHOWN_CHARACTERS_MAX:
            return None
        if matches(shown, self._admin_key_hash):
            # What the administrator may is not in the store, which says itself when it does not answer.
            return Known(administrator(source), fresh=True)
        key = shown.encode()
        if is_well_formed(key, HUB_PREFIX):
            return await self._by_key(key, source)
        for issuer in self._issuers:
            if issuer.issued(key):
                caller = await issuer.caller(key, source)
                return None if caller is None else Known(caller, await self._table.fresh())
        return None

    async def _by_key(self, key: bytes, source: str) -> Known | None:
        fresh = await self._table.fresh()
        name = self._table.keys.named(key, self._clock.wall())
        if name is not None:
            return Known(Caller(KEY_PREFIX + name, (AUTHENTICATED,), source), fresh)
        if not fresh:
            raise UnreachableError(
                "the hub's store does not answer, so who you are cannot be told; ask again"
            )
        return None
