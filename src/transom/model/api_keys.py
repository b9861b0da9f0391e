"""What an API key looks like: `tsm_`, 30 random Base62 characters, and 6 of checksum (CRC-32).

Keys to the hub itself look the same but for their first letters, `tsh_`: neither can pass for the other.

The checksum lets a gateway refuse garbage before it looks anything up, and secret scanners tell a key from
any other word. The key itself is shown once, where it was made; everything else knows its SHA-256 (a key has
178 random bits, so a fast hash is enough). Idea: GitHub's token format (2021).
"""

import hashlib
import re
import zlib
from collections.abc import Callable

PREFIX = "tsm_"
HUB_PREFIX = "tsh_"
PREFIXES = (PREFIX, HUB_PREFIX)
KEY_CHARACTERS = 40
_RANDOM_CHARACTERS = 30
_CHECKSUM_CHARACTERS = 6
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = re.compile(rb"[0-9A-Za-z]{36}")
_DIGITS = _ALPHABET.encode()


def new_api_key(choose: Callable[[str], str], prefix: str = PREFIX) -> str:
    """A new key; `choose` picks one of some characters: `runtime.randomness.choose_secret`, but for tests."""
    random = "".join(choose(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
    return f"{prefix}{random}{_checksum(random.encode()).decode()}"


def is_well_formed(key: bytes, prefix: str = PREFIX) -> bool:
    """Whether `key` could be one: shape and checksum. Says nothing about whether it exists."""
    return (
        len(key) == KEY_CHARACTERS
        and key.startswith(prefix.encode())
        and _RANDOM.fullmatch(key, len(PREFIX)) is not None
        and _checksum(key[len(PREFIX) : -_CHECKSUM_CHARACTERS]) == key[-_CHECKSUM_CHARACTERS:]
    )


def hash_of(key: bytes) -> bytes:
    """What is stored and looked up of a key: its SHA-256, 32 bytes (in hexadecimal wherever it is text)."""
    return hashlib.sha256(key).digest()


def _checksum(random: bytes) -> bytes:
    value = zlib.crc32(random)
    digits = bytearray(_CHECKSUM_CHARACTERS)
    for place in range(_CHECKSUM_CHARACTERS - 1, -1, -1):
        value, digit = divmod(value, 62)
        digits[place] = _DIGITS[digit]
    return bytes(digits)
