"""Opening a log by its address: the server before another region's log, or a Kafka cluster.

    https://region.example:8481                    an embedded log's server; http:// on this machine only
    kafka+tls://eu@k1.example:9093,k2.example:9093  see `kafka_address`

Next on the data's way: whoever reads and appends.
"""

import asyncio
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from transom.logs.kafka_address import is_kafka, parse_address
from transom.logs.protocol import Log
from transom.logs.remote import RemoteLog
from transom.model.errors import InvalidError, Problem
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import read_secret
from transom.runtime.tls import client_tls

_SERVER_SCHEMES = ("http", "https")


class LogPlace(NamedTuple):
    """Where a log is and how one is let in: `key_file` holds the key or the password, `trust` (PEM) are those
    whom to believe, by default whom the system believes.
    """

    url: str
    key_file: Path | None = None
    trust: Path | None = None

    @property
    def needs_key(self) -> bool:
        """Whether nobody gets in without a key."""
        return not is_kafka(self.url) or bool(parse_address(self.url).user)


def is_address(text: str) -> bool:
    """Whether `text` is where a log is, and not the name of a file."""
    return is_kafka(text) or text.partition("://")[0] in _SERVER_SCHEMES


def check_place(place: LogPlace) -> None:
    """Raises `InvalidError` for an address that is none, and a key file that is missing or of no use."""
    if not is_kafka(place.url) and (
        urlsplit(place.url).scheme not in _SERVER_SCHEMES or not urlsplit(place.url).hostname
    ):
        wrong = "expected https://HOST:PORT of a log's server, or kafka+tls://USER@HOST:PORT"
        raise InvalidError(f"log {place.url!r}", [Problem("", wrong)])
    if place.needs_key != (place.key_file is not None):
        wrong = "is missing" if place.needs_key else "is of no use: the address names no user"
        raise InvalidError(f"log {place.url!r}", [Problem("log_key_file", wrong)])


def own_address(url: str, key_file: Path | None, trust: Path | None) -> str:
    """`url`, if a hub or a region may keep its own log there: in Kafka, or, when it is empty, in a file.

    Raises `ValueError`, as configuration wants it.
    """
    if url and not is_kafka(url):
        raise ValueError("expected kafka+tls://USER@HOST:PORT; leave it out for a log in a file")
    try:
        if url:
            check_place(LogPlace(url, key_file, trust))
    except InvalidError as error:
        raise ValueError("; ".join(str(problem) for problem in error.problems)) from None
    return url


async def open_log(place: LogPlace, clock: Clock, randomness: Randomness) -> Log:
    """The log at `place`; asks nobody yet. Raises `InvalidError` for what no trying again mends: an address
    that is none, a key file that is missing or open to others, certificates that cannot be read.
    """
    check_place(place)
    key = await asyncio.to_thread(read_secret, place.key_file) if place.key_file else ""
    tls = await asyncio.to_thread(client_tls, f"log {place.url!r}", "log_trust", place.trust)
    if not is_kafka(place.url):
        return RemoteLog(place.url, key, tls=tls)
    try:
        from transom.logs.kafka import KafkaLog  # noqa: PLC0415  # an extra
    except ImportError as error:
        wrong = f"Kafka needs a client ({error}); pip install 'transom[kafka]'"
        raise InvalidError(f"log {place.url!r}", [Problem("", wrong)]) from None
    return KafkaLog(place.url, clock, randomness, password=key, tls=tls)
