"""Signatures: made with a private file, trusted by a line of text, renewed with overlap."""

import base64
from pathlib import Path

import pytest

from transom.model.errors import InvalidError
from transom.runtime import signing
from transom.runtime.signing import Trust, ensure_signing_key, new_signer


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "signing.pem"
    signer = ensure_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = ensure_signing_key(path)
    assert (again.key_id, again.public_text) == (signer.key_id, signer.public_text)
    assert again.sign(b"x") == signer.sign(b"x")
    assert len(base64.b64decode(signer.public_text)) == 32
    assert "\n" not in signer.public_text
    assert ensure_signing_key(tmp_path / "other.pem").key_id != signer.key_id


@pytest.mark.parametrize(
    "text", ["nonsense secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_file_that_holds_no_key_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "signing.pem"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InvalidError, match="holds no Ed25519 private key") as refused:
        ensure_signing_key(path)
    assert "secret" not in str(refused.value)
    assert "AAAA" not in str(refused.value)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    ensure_signing_key(path)
    path.chmod(0o644)
    with pytest.raises(InvalidError, match="chmod 600"):
        ensure_signing_key(path)


def test_what_a_trusted_key_signed_is_good_and_nothing_else() -> None:
    signer, other = new_signer(), new_signer()
    trust = Trust([signer.public_text])
    signature = signer.sign(b"this")
    for _ in range(2):  # the second time from memory
        trust.verify(signer.key_id, signature, b"this")
    with pytest.raises(InvalidError, match="not of this data"):
        trust.verify(signer.key_id, signature, b"that")
    with pytest.raises(InvalidError, match="not of this data"):
        trust.verify(signer.key_id, b"short", b"this")
    with pytest.raises(InvalidError, match="not of this data"):
        trust.verify(signer.key_id, other.sign(b"this"), b"this")
    with pytest.raises(InvalidError, match="is not trusted here"):
        trust.verify(other.key_id, other.sign(b"this"), b"this")


def test_while_a_key_is_renewed_both_are_trusted() -> None:
    old, new = new_signer(), new_signer()
    both = Trust([old.public_text, new.public_text])
    for signer in (old, new):
        both.verify(signer.key_id, signer.sign(b"x"), b"x")
    assert both.key_ids == sorted([old.key_id, new.key_id])
    with pytest.raises(InvalidError, match="add its public key"):
        Trust([new.public_text]).verify(old.key_id, old.sign(b"x"), b"x")


def test_every_text_that_is_no_key_is_named() -> None:
    good = new_signer().public_text
    with pytest.raises(InvalidError) as refused:
        Trust(["nonsense!", good, base64.b64encode(b"short").decode()])
    assert [problem.path for problem in refused.value.problems] == ["[0]", "[2]"]


def test_what_is_remembered_is_bounded_and_spares_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "_REMEMBERED_MAX", 3)
    signer = new_signer()
    trust = Trust([signer.public_text])
    signed = [(signer.sign(b"%d" % number), b"%d" % number) for number in range(6)]
    for signature, data in signed:
        trust.verify(signer.key_id, signature, data)
    assert len(trust._good) == 3
    trust._keys[signer.key_id] = object()  # type: ignore[assignment]  # which cannot verify
    trust.verify(signer.key_id, *signed[-1])
    with pytest.raises(AttributeError):
        trust.verify(signer.key_id, *signed[0])
    # A key that is trusted no more is not trusted from memory either.
    del trust._keys[signer.key_id]
    with pytest.raises(InvalidError):
        trust.verify(signer.key_id, *signed[-1])
