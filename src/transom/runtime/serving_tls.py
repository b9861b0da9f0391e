"""A server's side of TLS, whose certificate is exchanged while it serves.

Connections that are open stay on the certificate they began with; every handshake takes the newest. The
exchange is made where a client's hello has arrived (`SSLContext.sni_callback`), because a context into which
another certificate is loaded keeps the old one beside it when their keys are of different kinds.

Where a certificate comes from is a source: files of the operator's (`FromFiles`), or an authority of our own
(`FromAuthority`). Next on the data's way: `http.serve`.
"""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transom.model.errors import InvalidError, Problem
from transom.runtime.authority import Authority
from transom.runtime.certificates import check_pair
from transom.runtime.clock import Clock, rfc3339
from transom.runtime.secret_files import write_private
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

_LOOK_SECONDS = 10.0
_RENEWED_AT = 2 / 3
"""Which part of a certificate's life is over when the next one is issued."""
_RENEWED_SECONDS_MIN = 3600.0
_LAST_WORDS_SECONDS = 180 * 86_400.0
"""So long before an authority ends, it is said whenever it issues something."""


class CertificateSource(Protocol):
    """Where a server's certificate comes from. Both block for a few ms."""

    def is_stale(self) -> bool:
        """Whether there is another certificate by now, or there should be; true before the first one."""
        ...

    def take(self) -> ssl.SSLContext:
        """The certificate to show from now on. Raises `InvalidError` when it is not fit to be shown."""
        ...


class FromFiles:
    """The operator's files, `what` tells errors whose; taken again when they change.

    `host` is how clients are told to call the server, if they are. See `check_pair` for what is refused.
    """

    def __init__(self, what: str, cert: Path, key: Path, clock: Clock, host: str = "") -> None:
        self._what = what
        self._cert = cert
        self._key = key
        self._clock = clock
        self._host = host
        self._taken: tuple[object, ...] = ()

    def is_stale(self) -> bool:
        """Whether a file is another one than when they were taken."""
        return self._look() != self._taken

    def take(self) -> ssl.SSLContext:
        """See `CertificateSource`."""
        # Looked at before they are read: what changes meanwhile is taken again.
        looked = self._look()
        check_pair(self._what, self._cert, self._key, self._host, self._clock.wall())
        context = _context(self._what, self._cert, self._key)
        self._taken = looked
        return context

    def _look(self) -> tuple[object, ...]:
        def look(file: Path) -> object:
            try:
                stat = file.stat()
            except OSError as error:
                return error.errno
            return stat.st_ino, stat.st_size, stat.st_mtime_ns

        return look(self._cert), look(self._key)


class FromAuthority:
    """Certificates for `hosts` by an authority of our own; `file` holds the one in use, with its key.

    Each start has a new one, so that there is none left over which names other hosts or has ended.
    """

    def __init__(self, authority: Authority, hosts: Sequence[str], file: Path, clock: Clock) -> None:
        self._authority = authority
        self._hosts = hosts
        self._file = file
        self._clock = clock
        self._until = 0.0

    def is_stale(self) -> bool:
        """Whether two thirds of its life are over."""
        return self._clock.wall() >= self._until

    def take(self) -> ssl.SSLContext:
        """See `CertificateSource`."""
        now = self._clock.wall()
        issued = self._authority.issue(self._hosts, now)
        what = f"the server's certificate {self._file}"
        try:
            write_private(self._file, issued.pem)
        except OSError as error:
            raise InvalidError(what, [Problem("", f"cannot be written: {error}")]) from None
        context = _context(what, self._file, None)
        lasts = max(_RENEWED_SECONDS_MIN, (issued.ends - issued.begins) * _RENEWED_AT)
        self._until = issued.begins + lasts
        if self._authority.ends - now < _LAST_WORDS_SECONDS:
            log.warning(
                "the certificate authority ends; make another in time, and give its ca.pem to all clients",
                ends=rfc3339(self._authority.ends),
                ca_file=str(self._authority.ca_file),
            )
        return context


def operators_tls(
    what: str, cert: Path | None, key: Path | None, clock: Clock, host: str = ""
) -> "ServerTls | None":
    """TLS by the operator's files; None when there are none. Raises `InvalidError` about `what`."""
    if cert is None or key is None:
        return None
    return ServerTls(FromFiles(what, cert, key, clock, host), clock)


class ServerTls:
    """A server's side of TLS: `context` is for the server, for as long as it serves.

    Raises `InvalidError` when the first certificate is not fit to be shown.
    """

    def __init__(self, source: CertificateSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._newest = source.take()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _harden(self.context)
        self.context.sni_callback = self._greet

    async def keep(self) -> None:
        """Show another certificate when there is one, for ever. One that is not fit to be shown is told of,
        and the one before stays.
        """
        told = ""
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            if not await asyncio.to_thread(self._source.is_stale):
                continue
            try:
                self._newest = await asyncio.to_thread(self._source.take)
            except InvalidError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("the certificate stays as it was", error=told)
            else:
                told = ""
                log.info("another certificate is shown")

    def _greet(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        connection.context = self._newest


def _context(what: str, cert: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise InvalidError(what, [Problem("tls_cert", f"OpenSSL does not take {cert}: {error}")]) from None
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client's wish to begin anew costs the server more than the client.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
