"""Where a Kafka cluster is and how one is let in: a URL, and beside it a file with the password.

    kafka://127.0.0.1:9092                                this machine, nobody asks who we are
    kafka+tls://eu@k1.example:9093,k2.example:9093        over TLS, as user "eu", by SCRAM-SHA-512
    kafka+tls://eu@k1.example:9093?mechanism=PLAIN        the same by SASL/PLAIN

Pure. Next on the data's way: `kafka_cluster`.
"""

from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from transom.model.errors import InvalidError, Problem
from transom.runtime.http import is_loopback

PLAIN_SCHEME = "kafka"
TLS_SCHEME = "kafka+tls"
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")

_PORT = 9092
_PORT_MAX = 65535


class KafkaAddress(NamedTuple):
    """Where some brokers of a cluster are. `user` empty: nobody asks."""

    hosts: tuple[tuple[str, int], ...]
    tls: bool
    user: str
    mechanism: str

    @property
    def bootstrap(self) -> list[str]:
        """As Kafka's clients write it: host:port for each broker."""
        return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]

    @property
    def scheme(self) -> str:
        """What its URL begins with."""
        return f"{TLS_SCHEME if self.tls else PLAIN_SCHEME}://"

    def __str__(self) -> str:
        return f"Kafka at {','.join(self.bootstrap)}"


def is_kafka(url: str) -> bool:
    """Whether `url` names a Kafka cluster."""
    return url.partition("://")[0] in (PLAIN_SCHEME, TLS_SCHEME)


def parse_address(url: str) -> KafkaAddress:
    """Take `url` apart. Raises `InvalidError` with every mistake in it; the error repeats no password."""
    problems: list[Problem] = []
    # By hand: `urlsplit` takes several brokers for one, and refuses them when one is an IPv6 address.
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    user_info, _, places = netloc.rpartition("@")
    user, has_password, _ = user_info.partition(":")
    if has_password:
        problems.append(Problem("", "holds a password; put it into a file, which log_key_file names"))
    hosts = [_host(place, problems) for place in places.split(",")]
    tls = scheme == TLS_SCHEME
    if not tls and not all(is_loopback(host) for host, _ in hosts):
        problems.append(Problem("", f"leaves this machine without TLS; write {TLS_SCHEME}://"))
    if path:
        problems.append(Problem("", f"ends in {slash + path!r}; nothing follows the brokers but ?mechanism="))
    options = dict(parse_qsl(query, keep_blank_values=True))
    mechanism = options.pop("mechanism", MECHANISMS[0])
    if mechanism not in MECHANISMS:
        problems.append(Problem("mechanism", f"{mechanism!r} is none of {', '.join(MECHANISMS)}"))
    problems.extend(Problem(name, "is not known; there is only 'mechanism'") for name in options)
    if problems:
        raise InvalidError(f"address {scheme}://{places}", problems)
    return KafkaAddress(tuple(hosts), tls, unquote(user), mechanism)


def _host(place: str, problems: list[Problem]) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", parts.port or _PORT
    except ValueError:
        host, port = "", 0
    if not host or not 0 < port <= _PORT_MAX:
        problems.append(Problem("", f"{place!r} is no broker; write HOST:PORT, several between commas"))
    return host, port
