"""Verifying an export of the audit: by itself, against what an auditor kept, and against the hub.

Next on the data's way: `model.audit` reads the lines; `cli.audit` says what was found.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from transom.client.hub import ApiError, HubClient
from transom.model.audit import SIGNED, CheckSignature, Finding, Head, SignedHead, Verifier
from transom.model.errors import InvalidError, Problem
from transom.runtime.signing import Trust

_STRETCH = 1000
_GONE = 410


def signature_check(signer: str = "") -> CheckSignature:
    """What checks the signature of a head: by the public key `signer`, or else by whichever the head names.

    Raises `InvalidError` when `signer` is no public key.
    """
    if signer:
        Trust([signer])

    def check(head: SignedHead) -> None:
        if signer and head.public_key != signer:
            wrong = f"is by another key than {signer}: {head.public_key}"
            raise InvalidError("signature", [Problem("", wrong)])
        trust = Trust([head.public_key])
        trust.verify(head.key_id, _bytes_of(head.signature), SIGNED + bytes(head.head))

    return check


def _bytes_of(signature: str) -> bytes:
    """The signature, which must be written in the one way that base64 has for it."""
    try:
        read = base64.b64decode(signature, validate=True)
    except binascii.Error:
        read = b""
    if not read or base64.b64encode(read).decode() != signature:
        raise InvalidError("signature", [Problem("", "is not written as the hub writes it")])
    return read


class _Seen(NamedTuple):
    """A line for a change: where it stands, and what the chain is there, as the file says."""

    line: int
    revision: int
    hash: str


async def verified(
    lines: Iterable[bytes], *, signer: str = "", head: str = "", hub: HubClient | None = None
) -> Verifier:
    """Read the lines of an export; `findings` of what is returned are all that is wrong with them.

    With `head`, they must end at that hash. With `hub`, each change must be the one the hub has, as far back
    as it keeps them. Raises `InvalidError` when `signer` is no public key, and what `HubClient` raises.
    """
    verifier = Verifier(signature_check(signer))
    stretch: list[_Seen] = []
    compared = hub is None
    for line in lines:
        changes = verifier.changes
        verifier.feed(line)
        if verifier.changes > changes:
            stretch.append(_Seen(verifier.lines, verifier.revision, verifier.hash))
        if hub is not None and not compared and len(stretch) == _STRETCH:
            compared = await _differs(hub, stretch, verifier)
            stretch.clear()
        elif compared:
            stretch.clear()
    if hub is not None and not compared and stretch:
        await _differs(hub, stretch, verifier)
    verifier.finish()
    if head and verifier.hash != head:
        wrong = f"the end is at hash {verifier.hash or '-'}, not at {head}: it was cut off, or rewritten"
        verifier.findings.append(Finding(verifier.lines, verifier.revision, wrong))
    return verifier


async def _differs(hub: HubClient, stretch: list[_Seen], verifier: Verifier) -> bool:
    """Whether the hub has something else in this stretch; the first line of it that differs is found."""
    if await _has(hub, stretch[-1]):
        return False
    low, high = 0, len(stretch) - 1  # the first that differs is in between, both included
    while low < high:
        middle = (low + high) // 2
        if await _has(hub, stretch[middle]):
            low = middle + 1
        else:
            high = middle
    wrong = "is not what the hub has: here, or in the hub's store, it was changed afterwards"
    verifier.findings.append(Finding(stretch[low].line, stretch[low].revision, wrong))
    return True


async def _has(hub: HubClient, seen: _Seen) -> bool:
    """Whether the hub's chain is the same there. What it has forgotten it cannot deny."""
    try:
        held = msgspec.json.decode((await hub.audit_head(seen.revision)).head, type=Head)
    except ApiError as error:
        if error.code != _GONE:
            raise
        return True
    return (held.revision, held.hash) == (seen.revision, seen.hash)
