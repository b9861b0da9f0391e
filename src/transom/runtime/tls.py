"""A client's side of TLS: whom it trusts. The server's side is in `serving_tls`."""

import ssl
from pathlib import Path

from transom.model.errors import InvalidError, Problem


def client_tls(what: str, field: str, trust: Path | None) -> ssl.SSLContext | None:
    """A client's side of TLS that trusts the certificates in `trust` (PEM) instead of the system's; None when
    there is no such file.

    Raises `InvalidError` about the `field` of `what` when it cannot be read.
    """
    if trust is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(trust))
    except OSError as error:
        wrong = f"cannot be read as certificates: {trust}: {error}"
        raise InvalidError(what, [Problem(field, wrong)]) from None
