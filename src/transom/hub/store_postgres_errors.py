"""What PostgreSQL's errors mean here, and what to do about each.

Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html. Refused connections carry no code, only
the server's words.
"""

import re
from typing import Any

from psycopg.errors import Error
from sqlalchemy.exc import DBAPIError

from transom.model.errors import InvalidError, Problem, StorageFullError, TransomError, UnreachableError

_TO_CHANGE = (
    (r"password authentication failed", "write its password to store_password_file"),
    (r"no password supplied", "name the file with its password in store_password_file"),
    (r"no pg_hba.conf entry", "let this user connect from here, in the server's pg_hba.conf"),
    (r"not permitted to log in", "make it a role that may log in"),
    (r"role .* does not exist", "make it with 'createuser', or correct the user in store"),
    (r"database .* does not exist", "make it with 'createdb --encoding=UTF8', or correct its name in store"),
    (r"permission denied for database", "grant this user CONNECT on it"),
    (r"certificate verify failed", "store_trust must hold the certificate of whoever signed the server's"),
    (r"server certificate for", "name the server in store as its certificate does"),
    (r"Name or service not known|No address associated", "correct the server's name in store"),
    (r"server does not support SSL", "turn TLS on at the server (ssl = on)"),
    (r"root certificate", "store_trust must be a file of certificates (PEM)"),
)
"""What a refused connection says, and what to change then; whatever else is said may pass by itself."""

_REFUSED_VALUES = ("22", "23", "54")


def our_error(error: DBAPIError, where: str) -> TransomError:
    """The error of ours that stands for the database's; `where` names the store."""
    cause: Any = error.orig
    state: str = getattr(cause, "sqlstate", None) or ""
    words = words_of(cause)
    if state == "53100":
        return StorageFullError(f"the disk of {where} is full; free some room ({words})")
    if state == "55P03":
        return UnreachableError(
            f"{where} is kept waiting: another session holds a lock for too long, most likely on the row of "
            "table 'counter'; find it in pg_stat_activity by its state 'idle in transaction', and end it"
        )
    if state == "25006":
        return UnreachableError(f"{where} cannot be written to: it is a standby, or set to be read only")
    if state == "42501":
        return UnreachableError(f"{where} does not let this user work: {words}; {GRANT}")
    if state[:2] in _REFUSED_VALUES or (not state and "NUL" in words):
        return InvalidError(where, [Problem("", f"does not take a value: {words}")])
    return UnreachableError(f"{where} cannot be used now: {words}")


GRANT = "make it the owner of the database, or grant it all on the schema and the tables"


def to_change(words: str) -> str | None:
    """What to change when a connection is refused with these words; None when waiting may help."""
    return next((advice for said, advice in _TO_CHANGE if re.search(said, words)), None)


def words_of(cause: object) -> str:
    """What went wrong in one line, without the values it was about."""
    told = cause.diag.message_primary if isinstance(cause, Error) else None
    return told or " ".join(str(cause).split())
