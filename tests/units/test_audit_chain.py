"""The audit's lines hold each other: whatever is done to a file of them is found, and where."""

import base64
import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Raw

from transom.client.audit import signature_check
from transom.model.audit import (
    BEGINNING,
    AuditChange,
    Head,
    Scope,
    Verifier,
    change_bytes,
    digest_of,
    hash_after,
    head_line,
    line_of,
    scope_line,
    signed,
)
from transom.model.errors import InvalidError
from transom.runtime.signing import Signer, new_signer

SIGNER = new_signer()


def change(revision: int, tenant: str = "acme") -> bytes:
    body = b'{"kind":"Deployment","metadata":{"name":"a","uid":"u"},"spec":{"n":%d}}' % revision
    told = AuditChange(
        revision, "now", "MODIFIED", "Deployment", tenant, "a", "u", revision, "ada", *"abc", Raw(body)
    )
    return change_bytes(told)


def export(
    revisions: range,
    base: bytes = BEGINNING,
    *,
    after: int = 0,
    tenant: str = "",
    by: Signer = SIGNER,
    purged: Mapping[int, int] = MappingProxyType({}),
) -> tuple[list[bytes], bytes]:
    """An export's lines, and the hash it ends at. Odd revisions are of the tenant `odd`; those `purged` were
    so by the revisions they are mapped to.
    """
    scope = Scope(after=after, base=base.hex(), tenant=tenant)
    lines, shown = [scope_line(scope)], 0
    for revision in revisions:
        body = change(revision, "odd" if revision % 2 else "acme")
        base = hash_after(base, digest_of(body), revision)
        mark = purged.get(revision, 0)
        whole = not mark and (not tenant or bool(revision % 2))
        shown += whole
        lines.append(line_of(revision, body if whole else b"", digest_of(body), base, purged=mark))
    last = max(revisions, default=after)
    head = Head(
        scope=scope,
        revision=last,
        hash=base.hex(),
        changes=len(revisions),
        shown=shown,
        purged=len(purged),
        lines=hashlib.sha256(b"".join(lines[1:])).hexdigest(),
        at="now",
    )
    told = signed(head, lambda data: base64.b64encode(by.sign(data)).decode(), by.key_id, by.public_text)
    return [*lines, head_line(told)], base


def found(lines: list[bytes], signer: str = SIGNER.public_text) -> list[str]:
    verifier = Verifier(signature_check(signer))
    for line in lines:
        verifier.feed(line)
    verifier.finish()
    return [str(finding) for finding in verifier.findings]


LINES, END = export(range(1, 9))
TENANTS, _ = export(range(1, 9), tenant="odd")
PURGED, _ = export(range(1, 9), purged={2: 6, 3: 6})
EITHER = st.sampled_from([LINES, TENANTS, PURGED])


def test_what_the_hub_wrote_is_whole() -> None:
    assert found(LINES) == found(TENANTS) == found(PURGED) == found(export(range(0))[0]) == []
    assert found(LINES, signer="") == []
    assert sum(b'"change"' in line for line in TENANTS) == 4


def test_the_bytes_of_a_change_are_for_ever() -> None:
    """What was written once must verify in every release to come: else old exports do not join on."""
    body = change(7)
    assert body == (
        b'{"revision":7,"at":"now","event":"MODIFIED","kind":"Deployment","tenant":"acme","name":"a","uid":"u",'
        b'"generation":7,"who":"ada","role":"a","source":"b","why":"c","object":{"kind":"Deployment",'
        b'"metadata":{"name":"a","uid":"u"},"spec":{"n":7}}}'
    )
    assert hash_after(BEGINNING, digest_of(body), 7).hex() == PINNED


PINNED = "8616eb252716674f690cce5edf3177835e92aa2209359de017b93dc017b0ea35"


@given(lines=EITHER, at=st.integers(0, 9), data=st.data())
def test_any_edit_of_any_line_is_found_there_or_in_what_follows(
    lines: list[bytes], at: int, data: st.DataObject
) -> None:
    where = data.draw(st.integers(0, len(lines[at]) - 1))
    put = data.draw(st.binary(max_size=3))
    edited = lines[at][:where] + put + lines[at][where + data.draw(st.integers(0, 3)) :]
    assume(edited != lines[at])
    findings = found([*lines[:at], edited, *lines[at + 1 :]])
    assert findings
    assert any(
        finding.startswith(f"line {number}") for finding in findings for number in (at + 1, at + 2, 10)
    )


@given(lines=EITHER, at=st.sets(st.integers(0, 9), min_size=1, max_size=9))
def test_any_lines_left_out_are_found(lines: list[bytes], at: set[int]) -> None:
    assert found([line for number, line in enumerate(lines) if number not in at])


@given(lines=EITHER, one=st.integers(0, 9), other=st.integers(0, 9))
def test_any_two_lines_swapped_are_found(lines: list[bytes], one: int, other: int) -> None:
    assume(one != other)
    mixed = list(lines)
    mixed[one], mixed[other] = mixed[other], mixed[one]
    assert found(mixed)


@given(lines=EITHER, what=st.integers(0, 9), to=st.integers(0, 10))
def test_any_line_written_twice_is_found(lines: list[bytes], what: int, to: int) -> None:
    assert found([*lines[:to], lines[what], *lines[to:]])


@given(at=st.integers(1, 9), revision=st.integers(1, 12))
def test_a_line_made_up_is_found_and_named(at: int, revision: int) -> None:
    body = change(revision)
    before = BEGINNING if at == 1 else bytes.fromhex(msgspec.json.decode(LINES[at - 1])["hash"])
    fake = line_of(revision, body, digest_of(body), hash_after(before, digest_of(body), revision))
    assume(fake not in LINES)
    findings = found([*LINES[:at], fake, *LINES[at:]])
    assert findings
    assert findings[0].startswith(f"line {at + 1} (") or at == 9, "behind the last, the head is what tells"


@given(lines=EITHER, size=st.integers(0))
def test_a_file_cut_off_anywhere_is_found(lines: list[bytes], size: int) -> None:
    whole = b"".join(lines)
    cut = whole[: size % len(whole)]
    assert found(cut.splitlines(keepends=True))


def test_each_thing_is_named_with_its_line_and_revision() -> None:
    changed = [*LINES[:3], LINES[3].replace(b'"ada"', b'"bob"'), *LINES[4:]]
    assert found(changed) == ["line 4 (revision 3): was changed: it is not what its digest is of"]
    (missing,) = (finding for finding in found([*LINES[:3], *LINES[4:]]) if "line 4" in finding)
    assert missing.startswith(
        "line 4 (revision 4): does not follow revision 2: something between them is missing"
    )
    moved = found([*LINES[:3], LINES[4], LINES[3], *LINES[5:]])
    assert any(
        finding.startswith("line 4 (revision 4): was added, or stands in another place") for finding in moved
    )
    assert found(LINES[:-1]) == [
        "line 10: the end is missing: what follows is cut off, or was never received"
    ]


def stripped(line: bytes) -> bytes:
    """The line without its change, as a tenant's export has those of others."""
    told = msgspec.json.decode(line)
    del told["change"]
    return msgspec.json.encode(told) + b"\n"


def test_what_the_hashes_alone_would_let_pass_is_found_too() -> None:
    spaced = LINES[0].replace(b'"after":0', b'"after": 0')
    assert any("line 1: is not written as the hub writes it" in each for each in found([spaced, *LINES[1:]]))
    lacking = found([*LINES[:2], stripped(LINES[2]), *LINES[3:]])
    assert lacking[0] == "line 3 (revision 2): lacks its change"
    (hidden,) = found([*TENANTS[:3], stripped(TENANTS[3]), *TENANTS[4:]])
    assert hidden.startswith("line 10: was signed for 8 changes after revision 0, 4 of them shown")
    others, _ = export(range(2, 10))
    (other,) = found([*LINES[:-1], others[-1]])
    assert other == "line 10: was signed for other changes than those before it"
    digest = msgspec.json.decode(TENANTS[2])["digest"].encode()
    assert found([*TENANTS[:2], TENANTS[2].replace(digest, digest.upper()), *TENANTS[3:]])


def test_a_chain_written_anew_is_found_by_its_signature() -> None:
    forged, _ = export(range(1, 9), by=new_signer())
    assert found(forged, signer="") == [], "it is whole in itself: only the key tells"
    (finding,) = found(forged)
    assert finding.startswith("line 10: is not signed by the hub: signature is invalid: is by another key")


def test_exports_in_a_row_join_on_and_a_gap_between_them_is_found() -> None:
    more, end = export(range(9, 12), END, after=8)
    last, _ = export(range(12, 14), end, after=11)
    assert found([*LINES, *more, *last]) == []
    assert any("does not join on" in finding for finding in found([*LINES, *last]))
    assert any("does not join on" in finding for finding in found([*LINES[:-1], *more]))


def test_a_change_is_left_out_only_where_the_hub_says_it_was_purged() -> None:
    hidden = LINES[3].partition(b'"change"')[0] + b'"digest"' + LINES[3].partition(b',"digest"')[2]
    marked = hidden.replace(b'"digest"', b'"purged":6,"digest"')
    assert marked == PURGED[3]
    assert "line 4 (revision 3): lacks its change" in found([*LINES[:3], hidden, *LINES[4:]])
    (counted,) = found([*LINES[:3], marked, *LINES[4:]])
    assert "8 of them shown and 0 purged; there are 8 after 0, 7 shown and 1 purged" in counted
    for wrong in (marked.replace(b":6,", b":3,"), LINES[3].replace(b',"change"', b',"purged":6,"change"')):
        assert any("line 4 (revision 3): was not purged" in each for each in found([*LINES[:3], wrong]))


def test_one_change_cannot_be_put_back_and_another_left_out_for_it() -> None:
    """The counts of both are the same; only which lines they were tells."""
    other, _ = export(range(1, 9), purged={2: 6, 4: 6})
    assert found(other) == []
    (finding,) = found([*other[:-1], PURGED[-1]])
    assert finding.startswith("line 10: was signed for other lines")


def test_exports_before_and_after_a_purge_join_on() -> None:
    more, _ = export(range(9, 12), END, after=8, purged={9: 11})
    assert found([*PURGED, *more]) == found([*LINES, *more]) == []


def test_findings_are_bounded_and_nonsense_is_no_accident() -> None:
    assert len(found([b"what?\n"] * 1000)) == 20
    for line in (b"", b"\n", b"{}\n", b"[]\n", b"\xff\n", b"{" * 5000, b'{"audit":{}}\n', b'{"head":{}}\n'):
        assert found([line])
        assert found([*LINES, line])


def test_a_signer_that_is_no_key_is_refused_at_once() -> None:
    with pytest.raises(InvalidError, match="no Ed25519 public key"):
        signature_check("what")
