"""The audit: every change of what was declared, as lines of JSON that hold each other in place.

Each line has the SHA-256 of its change (`digest`) and a `hash` over the hash before it and that digest, so no
line can be changed, left out, added or moved without the lines after it showing it. Of a change that was
purged its digest is left, which holds its place. The last line is the `head`: where the lines end, and which
they were, signed by the hub. Pure: `hub.store_audit` keeps the hashes, with each change, and `client.audit`
reads them; whoever has a file can compute them alone:

    digest = SHA-256(the bytes of `change`, as they stand in the line)
    hash   = SHA-256(the hash before, 32 bytes; the digest, 32 bytes; the revision, 8 bytes, big-endian)

Before the first change of all there are 32 zeros. A change once written has these bytes for ever: a field is
added only with a new `FORMAT`.
"""

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from transom.model.errors import UNREADABLE, TransomError

FORMAT: Final = 1
BEGINNING: Final = bytes(32)
"""The hash before the first change of all."""
SIGNED: Final = b"transom audit head\n"
"""What stands before a head where it is signed, so that the signature can be meant for nothing else."""
_FINDINGS_MAX = 20


class AuditChange(msgspec.Struct, frozen=True):
    """One change. `object` is the whole resource as it was afterwards; of "DELETED", as it was last."""

    revision: int
    at: str
    event: str
    kind: str
    tenant: str
    name: str
    uid: str
    generation: int
    who: str
    role: str
    source: str
    why: str
    object: Raw


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What an export has: the changes after revision `after`, whose hash is `base`; "" for every tenant."""

    format: int = FORMAT
    after: int
    base: str
    tenant: str = ""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where an export, or the hub's chain, ends: the newest change's revision and hash; signed at `at`.

    `changes` is how many there are in an export; `shown` how many of them stand there whole, `purged` how
    many are marked as purged (the others are another tenant's). `lines` is the SHA-256 of their lines, so
    that nobody can leave the change out of a line that had it.
    """

    scope: Scope
    revision: int
    hash: str
    changes: int
    shown: int
    purged: int
    lines: str
    at: str


class SignedHead(msgspec.Struct, frozen=True, rename="camel"):
    """A head, as it was signed, and the Ed25519 signature in base64 over `SIGNED` and its bytes."""

    head: Raw
    key_id: str
    public_key: str
    signature: str


_ABSENT: Final = Raw()


class _Any(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Any line, to tell which it is. A change of another tenant than the one asked for is left out; what the
    chain needs of it is not.
    """

    audit: Raw = _ABSENT
    head: Raw = _ABSENT
    key_id: str = ""
    public_key: str = ""
    signature: str = ""
    revision: int = 0
    purged: int = 0
    change: Raw = _ABSENT
    digest: str = ""
    hash: str = ""


_encode = msgspec.json.Encoder().encode
_read_line = msgspec.json.Decoder(_Any).decode


class _Revised(msgspec.Struct, frozen=True):
    revision: int


_read_revision = msgspec.json.Decoder(_Revised).decode


def digest_of(change: bytes) -> bytes:
    """The digest of a change's bytes."""
    return hashlib.sha256(change).digest()


def hash_after(before: bytes, digest: bytes, revision: int) -> bytes:
    """The hash of the line with this digest and revision, behind the one with the hash `before`."""
    return hashlib.sha256(before + digest + revision.to_bytes(8)).digest()


def change_bytes(change: AuditChange) -> bytes:
    """The bytes of a change, always the same."""
    return _encode(change)


def line_of(revision: int, change: bytes, digest: bytes, hash_: bytes, *, purged: int = 0) -> bytes:
    """A change's line, with its end. `change` is empty where it is not shown; `purged` is the revision of the
    record that it was purged, 0 when it was not.
    """
    told = b'"change":%b,' % change if change else b""
    if purged:
        told = b'"purged":%d,' % purged
    return b'{"revision":%d,%b"digest":"%b","hash":"%b"}\n' % (
        revision,
        told,
        digest.hex().encode(),
        hash_.hex().encode(),
    )


def scope_line(scope: Scope) -> bytes:
    """The first line of an export."""
    return b'{"audit":%b}\n' % _encode(scope)


def signed(head: Head, sign: Callable[[bytes], str], key_id: str, public_key: str) -> SignedHead:
    """The head with its signature; `sign` gives that of some bytes, in base64."""
    body = _encode(head)
    return SignedHead(Raw(body), key_id, public_key, sign(SIGNED + body))


def head_line(head: SignedHead) -> bytes:
    """The last line of an export."""
    return _encode(head) + b"\n"


class Finding(NamedTuple):
    """Something that is not as the hub wrote it: the line, from 1, and the revision (0: of no change)."""

    line: int
    revision: int
    wrong: str

    def __str__(self) -> str:
        """For people."""
        at = f" (revision {self.revision})" if self.revision else ""
        return f"line {self.line}{at}: {self.wrong}"


CheckSignature = Callable[[SignedHead], None]
"""Raises `TransomError` unless the signature is good."""


class Verifier:
    """Reads the lines of one export, or of several that join on to each other; `findings` is what is wrong.

    It remembers two hashes, however long the file. `check` is asked about each head's signature.
    """

    def __init__(self, check: CheckSignature) -> None:
        self.findings: list[Finding] = []
        self.lines = 0
        self.changes = 0
        self.revision = 0
        self.hash = ""
        self.scope: Scope | None = None
        self.ended = False
        self._check = check
        self._of_scope = 0
        self._before = ""
        self._shown = 0
        self._purged = 0
        self._lines = hashlib.sha256()
        self._found_before = 0

    def feed(self, line: bytes) -> None:
        """Read the next line, with its end."""
        self.lines += 1
        try:
            read = _read_line(line)
        except UNREADABLE:
            self._find("cannot be read: it was changed, or cut off")
            return
        if _encode(read) + b"\n" != line:
            self._find("is not written as the hub writes it: it was changed, or cut off")
        if read.audit is not _ABSENT:
            self._begin(read.audit)
        elif read.head is not _ABSENT:
            self._end(SignedHead(read.head, read.key_id, read.public_key, read.signature))
        else:
            self._lines.update(line)
            self._follow(read)

    def finish(self) -> None:
        """There are no more lines."""
        if not self.ended:
            self._find("the end is missing: what follows is cut off, or was never received", self.lines + 1)

    def _begin(self, audit: Raw) -> None:
        try:
            scope = msgspec.json.decode(audit, type=Scope)
            if _encode(scope) != bytes(audit):
                self._find("is not written as the hub writes it: it was changed")
        except UNREADABLE:
            self._find("is no beginning of an export")
            return
        if scope.format != FORMAT:
            self._find(f"is in format {scope.format}; this release reads format {FORMAT}")
        if self.scope is not None:
            joins = self.ended and (self.hash, self.scope.tenant) == (scope.base, scope.tenant)
            if not joins:
                self._find("does not join on to what is before it: something between them is missing")
        self.scope, self.hash, self._before = scope, scope.base, ""
        self.revision, self.ended, self._of_scope = scope.after, False, 0
        self._shown, self._purged, self._lines = 0, 0, hashlib.sha256()
        self._found_before = len(self.findings)

    def _follow(self, line: _Any) -> None:
        self.changes += 1
        self._of_scope += 1
        self._shown += line.change is not _ABSENT
        self._purged += bool(line.purged)
        if self.scope is None or self.ended:
            self._find("stands outside of an export: its beginning is missing", revision=line.revision)
            self.scope, self.ended = self.scope or Scope(after=0, base=""), False
        elif line.purged and (line.change is not _ABSENT or line.purged <= line.revision):
            self._find("was not purged: it has its change, or comes after its purge", revision=line.revision)
        elif line.change is _ABSENT and not (self.scope.tenant or line.purged):
            self._find("lacks its change", revision=line.revision)
        elif line.change is not _ABSENT and not _is_of(line.change, line):
            self._find("was changed: it is not what its digest is of", revision=line.revision)
        elif not _follows(self.hash, line):
            if self._before and _follows(self._before, line):
                self._find("was added, or stands in another place", self.lines - 1, self.revision)
            else:
                wrong = (
                    f"does not follow revision {self.revision}: something between them is missing, or one of "
                    "the two was changed or added"
                )
                self._find(wrong, revision=line.revision)
        elif line.revision <= self.revision:
            self._find("is older than the one before it", revision=line.revision)
        self._before, self.hash, self.revision = self.hash, line.hash, line.revision

    def _end(self, head: SignedHead) -> None:
        try:
            told = msgspec.json.decode(head.head, type=Head)
        except UNREADABLE:
            self._find("is no end of an export")
            return
        if self.ended or self.scope is None:
            self._find("is an end where nothing began")
        elif (told.scope, told.changes, told.shown, told.purged) != (
            self.scope,
            self._of_scope,
            self._shown,
            self._purged,
        ):
            self._find(
                f"was signed for {told.changes} changes after revision {told.scope.after}, {told.shown} of "
                f"them shown and {told.purged} purged; there are {self._of_scope} after {self.scope.after}, "
                f"{self._shown} shown and {self._purged} purged"
            )
        elif told.hash != self.hash or (self._of_scope and told.revision != self.revision):
            self._find("was signed for other changes than those before it")
        elif told.lines != self._lines.hexdigest() and len(self.findings) == self._found_before:
            self._find("was signed for other lines: of some, the change was left out or put back")
        try:
            self._check(head)
        except TransomError as error:
            self._find(f"is not signed by the hub: {error}")
        self.ended = True

    def _find(self, wrong: str, line: int = 0, revision: int = 0) -> None:
        if len(self.findings) < _FINDINGS_MAX:
            self.findings.append(Finding(line or self.lines, revision, wrong))


def _is_of(change: Raw, line: _Any) -> bool:
    """Whether the change is the one that the line's digest and revision are of."""
    body = bytes(change)
    try:
        revision = _read_revision(body).revision
    except UNREADABLE:
        return False
    return digest_of(body).hex() == line.digest and revision == line.revision


def _follows(before: str, line: _Any) -> bool:
    try:
        digest = bytes.fromhex(line.digest)
        expected = hash_after(bytes.fromhex(before), digest, line.revision)
    except (ValueError, OverflowError):
        return False
    return (expected.hex(), digest.hex()) == (line.hash, line.digest)
