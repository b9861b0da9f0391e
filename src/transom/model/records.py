"""A record is the one thing that crosses a region's border: a key, a version, and a value or a delete marker.

Next on the data's way: `logs.records` lays a record out as a log's message, `tables` keeps the newest of
each key.
"""

import hashlib

import msgspec

from transom.model.version import Version


class Record(msgspec.Struct, frozen=True):
    """One version of one key.

    `value` is never empty of meaning: a delete marker carries `deleted=True` and may still have bytes
    (who deleted it, when), so that log compaction cannot drop it behind the back of a reader who was away.
    """

    key: str
    version: Version
    value: bytes
    deleted: bool = False

    def fingerprint(self) -> bytes:
        """32 bytes that differ when key, version, deletion or value differ (SHA-256, length-prefixed)."""
        key = self.key.encode()
        epoch, counter, origin = self.version  # as str(version), without the call
        head = f"{len(key)}:{epoch}.{counter}.{origin}:{int(self.deleted)}:".encode()
        return hashlib.sha256(head + key + self.value).digest()
