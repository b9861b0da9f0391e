"""How a versioned record is laid out as a log's message, and read back.

The version travels in a header and the value is never null: a delete is a marker with a version, which log
compaction keeps like any other value. Next on the data's way: `tables.protocol`.
"""

from transom.logs.protocol import Entry, Headers, Message
from transom.model.errors import InvalidError, Problem
from transom.model.records import Record
from transom.model.version import Version

VERSION_HEADER = "transom-version"
DELETED_HEADER = "transom-deleted"


def to_message(topic: str, record: Record, headers: Headers = (), timestamp_ms: int = 0) -> Message:
    """The message that carries `record`."""
    laid = ((VERSION_HEADER, str(record.version).encode()), *headers)
    if record.deleted:
        laid = (*laid, (DELETED_HEADER, b"1"))
    return Message(topic, record.key.encode(), record.value, laid, timestamp_ms=timestamp_ms)


def from_entry(entry: Entry) -> Record:
    """The record that `entry` carries. Raises `InvalidError` naming the entry when it carries none."""
    headers = dict(entry.headers)
    try:
        version = Version.parse(headers[VERSION_HEADER].decode())
        if entry.key is None or entry.value is None:
            raise ValueError("no key or no value")  # noqa: TRY301
        return Record(entry.key.decode(), version, entry.value, DELETED_HEADER in headers)
    except (KeyError, ValueError, InvalidError) as error:
        where = f"entry {entry.offset} of {entry.topic}/{entry.partition}"
        raise InvalidError(where, [Problem("", f"is not a versioned record ({error})")]) from None
