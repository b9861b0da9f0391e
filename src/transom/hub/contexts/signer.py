"""The hub's signing key: made for a new hub, and never anew for one whose contexts regions trust already.

Next on the data's way: `service` seals with it.
"""

from pathlib import Path

from transom.hub.contexts.state import PROGRESS
from transom.hub.contexts.store import ContextStore
from transom.hub.store import Store
from transom.model.errors import InvalidError, Problem
from transom.runtime.signing import Signer, ensure_signing_key


async def hub_signer(store: Store, path: Path) -> Signer:
    """The signer whose key is in `path`, made there for a store of which no context was built yet.

    Raises `InvalidError`: with another key than before every region would refuse everything, and say nothing
    here; so a key that went missing is for people to decide on.
    """
    if _is_missing(path) and await _built(store):
        wrong = (
            "is missing, and regions trust it; put it back, or make the next one with 'transom contexts "
            "signer --new FILE' and trust it at every gateway"
        )
        raise InvalidError(f"signing key {path}", [Problem("", wrong)])
    return ensure_signing_key(path)


def _is_missing(path: Path) -> bool:
    return not path.exists()


async def _built(store: Store) -> bool:
    """Whether a builder ever ran on this store."""
    contexts = ContextStore(store)
    try:
        return await contexts.remembered(PROGRESS) is not None
    finally:
        await contexts.close()
