"""Seals: every record of a batch proves alone that the batch was signed for its region."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.logs.protocol import Headers
from transom.model.errors import InvalidError
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.signing import Trust, new_signer
from transom.tables import seals as seals_module
from transom.tables.seals import LEAVES_MAX, SEAL_HEADER, Seal, Seals, seal

SIGNER = new_signer()
EU = Seals("eu", Trust([SIGNER.public_text]))


def batch(count: int) -> list[Record]:
    return [Record(f"k{n}", Version(1, n + 1, "hub"), b"v%d" % n, deleted=n % 5 == 4) for n in range(count)]


def proof_of(headers) -> Seal:
    return msgspec.msgpack.decode(dict(headers)[SEAL_HEADER], type=Seal)


def with_proof(**changed: object):
    return lambda proof: ((SEAL_HEADER, msgspec.msgpack.encode(msgspec.structs.replace(proof, **changed))),)


@given(st.integers(1, 3 * LEAVES_MAX))
def test_each_record_of_a_batch_is_proven_alone(count: int) -> None:
    records = batch(count)
    sealed = seal(records, "eu", SIGNER)
    assert len(sealed) == count
    for record, headers in zip(records, sealed, strict=True):
        EU.check((("transom-version", b"1.1.hub"), *headers), record)


def test_one_signature_stands_for_many_records_and_a_seal_is_small() -> None:
    sealed = seal(batch(500), "eu", SIGNER)
    assert len({proof_of(headers).signature for headers in sealed}) == -(-500 // LEAVES_MAX)
    assert max(len(dict(headers)[SEAL_HEADER]) for headers in sealed) < 300
    assert seal([], "eu", SIGNER) == []


RECORD = batch(7)[2]


@pytest.mark.parametrize(
    "tampered",
    [
        {"key": "k9"},
        {"value": b"other"},
        {"version": Version(1, 9, "hub")},
        {"version": Version(2, 3, "hub")},
        {"version": Version(1, 3, "other")},
        {"deleted": True},
    ],
)
def test_a_record_that_was_changed_is_refused(tampered: dict[str, object]) -> None:
    headers = seal(batch(7), "eu", SIGNER)[2]
    EU.check(headers, RECORD)
    with pytest.raises(InvalidError, match=r"record 'k[29]' at .*not of this data"):
        EU.check(headers, msgspec.structs.replace(RECORD, **tampered))


@given(st.integers(1, 2 * LEAVES_MAX), st.data())
def test_a_seal_that_was_changed_anywhere_is_refused(count: int, data: st.DataObject) -> None:
    records = batch(count)
    sealed = seal(records, "eu", SIGNER)
    at = data.draw(st.integers(0, count - 1))
    proof = proof_of(sealed[at])
    field = data.draw(st.sampled_from(["signature", "index", "count", "path", "key_id"]))
    held = getattr(proof, field)
    match field:
        case "index" | "count":
            other = data.draw(st.integers(-1, 2 * LEAVES_MAX).filter(lambda value: value != held))
        case "key_id":
            other = new_signer().key_id
        case _ if held and data.draw(st.booleans()):
            bit = data.draw(st.integers(0, 8 * len(held) - 1))
            other = bytearray(held)
            other[bit // 8] ^= 1 << bit % 8
            other = bytes(other)
        case _:
            other = data.draw(
                st.sampled_from([held + bytes(32), held + b"x", held[:-32] + b"y", held[:-1] + b"zz"])
            )
    with pytest.raises(InvalidError):
        EU.check(with_proof(**{field: other})(proof), records[at])


@given(st.integers(1, LEAVES_MAX), st.data())
def test_what_neighbours_have_proven_changes_no_answer(count: int, data: st.DataObject) -> None:
    """Whoever has checked others of the batch says of each seal what one who begins with it says."""
    records = batch(count)
    sealed = seal(records, "eu", SIGNER)
    checking = Seals("eu", Trust([SIGNER.public_text]))
    for at in data.draw(st.lists(st.integers(0, count - 1), max_size=count)):
        checking.check(sealed[at], records[at])
    at = data.draw(st.integers(0, count - 1))
    proof = proof_of(sealed[at])
    bits = data.draw(st.lists(st.integers(0, max(8 * len(proof.path) - 1, 0)), max_size=2, unique=True))
    path = bytearray(proof.path)
    for bit in bits if path else ():
        path[bit // 8] ^= 1 << bit % 8
    # Less of the way, more of it, or a way from another leaf: each leads to nodes that are known.
    cut = data.draw(st.sampled_from([0, 32, 64, 16]))
    changed = bytes(path)[: len(path) - cut] + data.draw(st.sampled_from([b"", bytes(32), b"x"]))
    index = data.draw(st.sampled_from([proof.index, proof.index ^ 1, 0]))
    headers = with_proof(path=changed, index=index)(proof)
    record = records[data.draw(st.sampled_from([at, at ^ 1 if at ^ 1 < count else at]))]
    assert _said(checking, headers, record) == _said(
        Seals("eu", Trust([SIGNER.public_text])), headers, record
    )
    # And what it learned from that is still the truth.
    for headers, record in zip(sealed, records, strict=True):
        checking.check(headers, record)


def test_nothing_is_learned_from_a_seal_that_was_refused() -> None:
    """Two strangers that vouch for each other: each names the other as the node beside its way."""
    genuine = batch(LEAVES_MAX)
    sealed = seal(genuine, "eu", SIGNER)
    checking = Seals("eu", Trust([SIGNER.public_text]))
    checking.check(sealed[0], genuine[0])
    above = proof_of(sealed[0]).path[32:]
    strangers = [Record(f"stranger{n}", Version(1, n + 1, "hub"), b"x") for n in range(2)]
    for _ in range(2):
        for at, (one, other) in enumerate((strangers, strangers[::-1])):
            headers = with_proof(index=at, path=seals_module._leaf(other) + above)(proof_of(sealed[0]))
            with pytest.raises(InvalidError, match="not of this data"):
                checking.check(headers, one)


def _said(seals: Seals, headers: Headers, record: Record) -> str:
    try:
        return seals.check(headers, record).hex()
    except InvalidError as error:
        return str(error)


def test_a_batch_that_comes_in_order_is_climbed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = 0
    node = seals_module._node

    def counting(left: bytes, right: bytes) -> bytes:
        nonlocal hashed
        hashed += 1
        return node(left, right)

    records = batch(10 * LEAVES_MAX)
    sealed = seal(records, "eu", SIGNER)
    checking = Seals("eu", Trust([SIGNER.public_text]))
    monkeypatch.setattr(seals_module, "_node", counting)
    for headers, record in zip(sealed, records, strict=True):
        checking.check(headers, record)
    assert hashed <= len(records)
    assert len(checking._proven) <= 8


def test_another_region_refuses_it() -> None:
    with pytest.raises(InvalidError, match="region 'us' refuses"):
        Seals("us", Trust([SIGNER.public_text])).check(seal([RECORD], "eu", SIGNER)[0], RECORD)


def test_a_record_without_a_seal_or_with_nonsense_is_refused() -> None:
    with pytest.raises(InvalidError, match="carries no seal"):
        EU.check((("transom-version", b"1.3.hub"),), RECORD)
    for nonsense in (b"", b"\xc1", msgspec.msgpack.encode([1, 2])):
        with pytest.raises(InvalidError, match="cannot be read"):
            EU.check(((SEAL_HEADER, nonsense),), RECORD)


def test_a_signer_that_is_not_trusted_is_refused_and_what_to_do_is_said() -> None:
    with pytest.raises(InvalidError, match="add its public key to the trusted signers"):
        EU.check(seal([RECORD], "eu", new_signer())[0], RECORD)


def test_the_seal_of_another_record_of_the_batch_does_not_fit() -> None:
    sealed = seal(batch(7), "eu", SIGNER)
    for at, headers in enumerate(sealed):
        if at != 2:
            with pytest.raises(InvalidError, match="not of this data"):
                EU.check(headers, RECORD)
