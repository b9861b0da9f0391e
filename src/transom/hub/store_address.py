"""Where a PostgreSQL store is, as configuration names it: `postgresql://user@host:port/database`.

Several hosts, joined by commas, are the machines of one cluster, of which whichever can be written to is
used. Unencrypted only to this machine.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from transom.model.errors import InvalidError, Problem
from transom.runtime.http import is_loopback

_SCHEME = "postgresql://"
_PORT = 5432
_EXPECTED = f"expected {_SCHEME}USER@HOST:PORT/DATABASE"


@dataclass(frozen=True)
class PostgresAddress:
    """Hosts and ports, whom to be, which database; `trust` is a file of certificates (PEM), or None."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    database: str
    trust: Path | None = None

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{_SCHEME}{self.user}@{hosts}/{self.database}"


def postgres_address(url: str, trust: Path | None = None) -> PostgresAddress:
    """Read `url`. Raises `InvalidError` that lists what is wrong with it, without repeating a password."""
    problems: list[str] = []
    rest = url.removeprefix(_SCHEME)
    account, at, places = rest.rpartition("@")
    names, slash, database = places.partition("/")
    if rest == url or not at or not account or not slash or not database or not names:
        problems.append(_EXPECTED)
    if ":" in account:
        problems.append("must not hold a password; write it to a file and name that in store_password_file")
    if any(mark in database for mark in "/?#"):
        problems.append("takes no parameters")
    hosts = [_host(name, problems) for name in names.split(",")] if at and names else []
    for host, _ in hosts:
        if trust is None and not is_loopback(host):
            problems.append(
                f"{host} is not this machine, so it is asked to prove who it is: name the certificates (PEM) "
                "of whoever signed its own in store_trust"
            )
    if problems:
        raise InvalidError("store", [Problem("", problem) for problem in problems])
    return PostgresAddress(tuple(hosts), unquote(account), unquote(database), trust)


def _host(text: str, problems: list[str]) -> tuple[str, int]:
    name, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = text, str(_PORT)
    if not name or not port.isdecimal() or not 0 < int(port) <= 65535:  # noqa: PLR2004
        problems.append(f"{text!r} is not HOST:PORT")
        return name, 0
    return name.strip("[]"), int(port)
