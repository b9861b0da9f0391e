"""Randomness as one small interface: jitter and identifiers can be seeded, secrets never."""

import random
import secrets
import uuid

_TOKEN_BYTES = 32


class Randomness:
    """All randomness of one process; `seed` makes it repeatable (secrets never are)."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311  # jitter and names, not secrets

    def jitter(self, seconds: float, share: float = 0.1) -> float:
        """`seconds`, up to `share` more or less."""
        return seconds * (1 + share * (2 * self._random.random() - 1))

    def below(self, seconds: float) -> float:
        """Anything from 0 to `seconds`."""
        return seconds * self._random.random()

    def uid(self) -> str:
        """A random identifier (UUID, version 4)."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def word(self, characters: str, length: int) -> str:
        """So many of `characters`, each as likely as the others; no secret."""
        return "".join(self._random.choices(characters, k=length))


def new_secret() -> str:
    """256 random bits, URL-safe; never seeded."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def choose_secret(characters: str) -> str:
    """One of `characters`, each as likely as the others, for secrets made of them; never seeded."""
    return secrets.choice(characters)
