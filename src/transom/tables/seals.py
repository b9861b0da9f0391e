"""Seals: one signature for a batch of records, and in each record's headers the proof that it was in it.

A compacted log may keep any one record of a batch alone, so each carries what it takes to check it: the
signature of the root of a Merkle tree over the batch, and the way from the record up to that root (RFC 6962,
section 2.1; leaves and nodes hash with different first bytes, so none passes for the other). What is signed
names the region: a record sealed for one is refused by every other.

A tree has at most 64 leaves; a larger batch gets several. The way up is then at most 6 hashes, a record's
seal under 300 bytes, and making a signature costs each record less than a microsecond.

Neighbours share most of their way. Who has proven one record of a batch knows the nodes beside its way, and
for the next one climbs only until it meets one of them: a hash a record instead of six.
Next on the data's way: `links.carrier` sends, the region's door checks.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Container, Sequence

import msgspec

from transom.logs.protocol import Headers
from transom.model.errors import UNREADABLE, InvalidError, Problem
from transom.model.records import Record
from transom.runtime.signing import Signer, Trust

SEAL_HEADER = "transom-seal"
LEAVES_MAX = 64

_HASH_BYTES = 32
_BATCHES_MAX = 8
"""Batches whose proven nodes are remembered, about 50 KiB each. Two lanes are read at a time, in order."""

_Node = tuple[int, int, bytes]
"""A node of a tree: the width of its level, its index there, its hash and behind that its way up."""


class Seal(msgspec.Struct, frozen=True, array_like=True):
    """The proof in a record's header: leaf `index` of `count`; `path` are the hashes beside the way up."""

    key_id: str
    signature: bytes
    index: int
    count: int
    path: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Seal).decode


def seal(records: Sequence[Record], region: str, signer: Signer) -> list[Headers]:
    """The headers to send with each of `records` to `region`."""
    headers: list[Headers] = []
    for at in range(0, len(records), LEAVES_MAX):
        batch = records[at : at + LEAVES_MAX]
        levels = _levels([_leaf(record) for record in batch])
        count = len(batch)
        signature = signer.sign(_statement(region, count, levels[-1][0]))
        for index in range(count):
            proof = Seal(signer.key_id, signature, index, count, _path(levels, index))
            headers.append(((SEAL_HEADER, _encode(proof)),))
    return headers


class Seals:
    """Checks what arrives in `region` against the keys in `trust`."""

    def __init__(self, region: str, trust: Trust) -> None:
        self._region = region
        self._trust = trust
        self._proven: OrderedDict[tuple[str, bytes, int], set[_Node]] = OrderedDict()

    def check(self, headers: Headers, record: Record) -> bytes:
        """What tells the batch of `record` from all others: its signature.

        Raises `InvalidError` unless `headers` prove that a trusted signer sent `record` to this region.
        """
        sealed = _sealed(headers)
        if sealed is None:
            raise _refused(
                record, "carries no seal; only what a trusted hub has sealed for this region counts"
            )
        try:
            proof = _decode(sealed)
        except UNREADABLE as error:
            raise _refused(record, f"carries a seal that cannot be read ({error})") from None
        batch = (proof.key_id, proof.signature, proof.count)
        proven = self._proven.get(batch)
        beside: list[_Node] = []
        root = _climb(_leaf(record), proof, proven or (), beside)
        if root is None:
            raise _refused(
                record, f"carries a seal whose way does not lead from leaf {proof.index} to a root"
            )
        if root:
            self._verify(record, proof, root)
        if proven is None:
            proven = self._proven[batch] = set()
            if len(self._proven) > _BATCHES_MAX:
                self._proven.popitem(last=False)
        proven.update(beside)
        return proof.signature

    def _verify(self, record: Record, proof: Seal, root: bytes) -> None:
        try:
            self._trust.verify(proof.key_id, proof.signature, _statement(self._region, proof.count, root))
        except InvalidError as error:
            why = "; ".join(problem.message for problem in error.problems)
            raise _refused(record, f"carries a seal that region {self._region!r} refuses: it {why}") from None


def _sealed(headers: Headers) -> bytes | None:
    for name, value in headers:
        if name == SEAL_HEADER:
            return value
    return None


def _refused(record: Record, why: str) -> InvalidError:
    return InvalidError(f"record {record.key!r} at {record.version}", [Problem("", why)])


def _statement(region: str, count: int, root: bytes) -> bytes:
    return b"transom contexts 1\n%b\n%d\n%b" % (region.encode(), count, root)


def _leaf(record: Record) -> bytes:
    return hashlib.sha256(b"\0" + record.fingerprint()).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _levels(leaves: list[bytes]) -> list[list[bytes]]:
    """The tree from its leaves to its root; a node without a neighbour goes up as it is."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        above = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        levels.append(above + level[2 * len(above) :])
    return levels


def _path(levels: list[list[bytes]], index: int) -> bytes:
    path = b""
    for level in levels[:-1]:
        if (beside := index ^ 1) < len(level):
            path += level[beside]
        index >>= 1
    return path


def _climb(leaf: bytes, proof: Seal, proven: Container[_Node], beside: list[_Node]) -> bytes | None:
    """The root that `proof` leads to from `leaf`; None when it leads nowhere, empty when it leads to a node
    that is `proven`. The nodes next to its way are added to `beside`: whatever root this one has, they have.

    A node counts as proven only with the same way up: climbing on would lead to the same root.
    """
    index, width, path = proof.index, proof.count, proof.path
    if not 0 <= index < width <= LEAVES_MAX:
        return None
    node = leaf
    at = 0
    while width > 1:
        if (width, index, node + path[at:]) in proven:
            return b""
        if index ^ 1 < width:
            other = path[at : at + _HASH_BYTES]
            if len(other) < _HASH_BYTES:
                return None
            at += _HASH_BYTES
            beside.append((width, index ^ 1, other + node + path[at:]))
            node = _node(other, node) if index & 1 else _node(node, other)
        index >>= 1
        width = (width + 1) >> 1
    return node if at == len(path) else None
