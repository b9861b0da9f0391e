"""Signatures: who holds a private key says something, and whoever trusts its public key can tell.

Ed25519 (RFC 8032). A private key is a file that only its owner can read; a public key is one line of text,
to be copied into the configuration of those who trust it. Several may be trusted at once, so that a key is
renewed by trusting the next one first and forgetting the old one last.
Next on the data's way: `tables.seals`.
"""

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from transom.model.errors import InvalidError, Problem
from transom.runtime.secret_files import read_secret, write_private

_KEY_BYTES = 32
_ID_BYTES = 8
_REMEMBERED_MAX = 4096
"""Verified signatures, about 300 bytes each."""


class Signer:
    """Signs with one private key. `key_id` and `public_text` may be shown to anybody."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        public = _raw(key.public_key())
        self.key_id = _id_of(public)
        self.public_text = base64.b64encode(public).decode()
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes; always the same for the same data."""
        return self._key.sign(data)


def new_signer() -> Signer:
    """A signer with a new key, for as long as the process lives."""
    return Signer(Ed25519PrivateKey.generate())


def ensure_signing_key(path: Path) -> Signer:
    """The signer whose private key is in `path` (PEM, mode 0600); made there when the file does not exist.

    Raises `InvalidError` when the file cannot be made or read, is open to others, or holds no Ed25519 key.
    """
    return read_signing_key(path) if path.exists() else make_signing_key(path)


def make_signing_key(path: Path) -> Signer:
    """The signer of a new key, written to `path`. Raises `InvalidError` when there is a file already, which
    may hold a key that is in use, or when it cannot be written.
    """
    what = f"signing key {path}"
    if path.exists():
        raise InvalidError(what, [Problem("", "exists already and is left as it is; name another file")])
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        write_private(path, pem.decode())
    except OSError as error:
        raise InvalidError(what, [Problem("", f"cannot be written: {error}")]) from None
    return read_signing_key(path)


def read_signing_key(path: Path) -> Signer:
    """The signer whose private key is in `path` (PEM, mode 0600).

    Raises `InvalidError` when the file cannot be read, is open to others, or holds no Ed25519 key.
    """
    try:
        key = load_pem_private_key(read_secret(path).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says could quote the file, so it is left out.
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        wrong = "holds no Ed25519 private key in PEM (PKCS #8, not encrypted); put the right one back"
        raise InvalidError(f"signing key {path}", [Problem("", wrong)])
    return Signer(key)


class Trust:
    """The public keys whose signatures count.

    Raises `InvalidError`, with every mistake, when one of the texts is no public key. Signatures found good
    are remembered, a bounded number of them: a batch whose records come one by one is verified once.
    """

    def __init__(self, public_texts: Iterable[str]) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._good: OrderedDict[tuple[str, bytes, bytes], None] = OrderedDict()
        problems: list[Problem] = []
        for at, text in enumerate(public_texts):
            try:
                raw = base64.b64decode(text, validate=True)
                if len(raw) != _KEY_BYTES:
                    raise ValueError(f"{len(raw)} bytes")  # noqa: TRY301
                self._keys[_id_of(raw)] = Ed25519PublicKey.from_public_bytes(raw)
            except (binascii.Error, ValueError) as error:
                wrong = f"is no Ed25519 public key, 32 bytes in base64 ({error}); copy what the hub shows"
                problems.append(Problem(f"[{at}]", wrong))
        if problems:
            raise InvalidError("trusted signers", problems)

    @property
    def key_ids(self) -> list[str]:
        """The ids of the trusted keys."""
        return sorted(self._keys)

    def verify(self, key_id: str, signature: bytes, data: bytes) -> None:
        """Raises `InvalidError` unless `signature` is that of `data` by the trusted key `key_id`."""
        key = self._keys.get(key_id)
        if key is None:
            known = ", ".join(self.key_ids) or "none"
            wrong = (
                f"is by key {key_id!r}, which is not trusted here (trusted: {known}); if the signer's key "
                "was renewed, add its public key to the trusted signers"
            )
            raise InvalidError("signature", [Problem("", wrong)])
        known_good = (key_id, signature, data)
        if known_good in self._good:
            self._good.move_to_end(known_good)
            return
        try:
            key.verify(signature, data)
        except InvalidSignature:
            wrong = (
                f"by key {key_id!r} is not of this data: it was changed on the way, or meant for another "
                "receiver"
            )
            raise InvalidError("signature", [Problem("", wrong)]) from None
        self._good[known_good] = None
        if len(self._good) > _REMEMBERED_MAX:
            self._good.popitem(last=False)


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _id_of(public: bytes) -> str:
    return hashlib.sha256(public).digest()[:_ID_BYTES].hex()
