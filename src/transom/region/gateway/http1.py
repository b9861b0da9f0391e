"""HTTP/1.1 as this gateway reads and writes it: heads in, heads out. No I/O.

llhttp parses (RFC 9112, strictly: no folded lines, no bare line feeds, no space before a colon, no body
with two lengths). What it leaves open is refused here: two of a header that must be one, encodings other than
chunked, other versions, a body behind an upgrade. Every head that leaves is written anew from what was
understood; not a byte of a head is passed on as it came. Next on the data's way: `connection`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec

from transom.region.gateway.front import RefusedError
from transom.region.gateway.grants import Grant

Headers = list[tuple[bytes, bytes]]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
IDENTITY_PREFIX = b"x-transom-"
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})

_SINGLE = (
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"authorization",
    b"x-api-key",
    b"x-original-uri",
    b"x-original-method",
    b"x-forwarded-uri",
    b"x-forwarded-method",
    b"expect",
    b"upgrade",
)
"""Headers of which two would be read one way here and another way elsewhere."""

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 7.6.1 and RFC 2616 13.5.1: between two neighbours only."""

_REWRITTEN = frozenset(
    {
        b"host",
        b"content-length",
        b"expect",
        b"forwarded",
        b"x-api-key",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
    }
)
"""What a request to an app gets from the gateway, or not at all."""

_NOT_TO_APPS = _HOP_BY_HOP | _REWRITTEN
_NO_BODY_BELOW, _NO_CONTENT, _NOT_MODIFIED = 200, 204, 304

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_METHODS: dict[bytes, str] = {}


class Request:
    """One request of a client. `pieces` holds what came of its body before anyone took it."""

    __slots__ = (
        "answered",
        "app",
        "began",
        "body_bytes",
        "chunked",
        "complete",
        "error",
        "found",
        "grant",
        "has_body",
        "headers",
        "instance",
        "keep_alive",
        "length",
        "method",
        "old",
        "path",
        "pieces",
        "route",
        "sent_bytes",
        "sink",
        "status",
        "target",
        "upgrade",
    )

    def __init__(self, method: str, target: bytes, headers: Headers, found: dict[bytes, bytes]) -> None:
        self.method, self.target, self.headers, self.found = method, target, headers, found
        self.keep_alive = True
        self.old = False  # HTTP/1.0
        self.length = 0
        self.chunked = self.has_body = self.upgrade = False
        self.complete = True
        self.answered = False
        self.pieces: list[bytes] | None = None
        self.sink: Any = None
        self.body_bytes = self.sent_bytes = self.status = 0
        self.began = 0.0
        self.route = "other"
        self.app, self.instance = "", ""
        self.path: bytes | None = b""
        self.grant: Grant | None = None
        self.error: RefusedError | None = None


def broken_request(error: RefusedError) -> Request:
    """What stands for a request that could not be read, so that its refusal waits its turn."""
    request = Request("GET", b"", [], {})
    request.error, request.keep_alive = error, False
    return request


def request_of(method: bytes, target: bytes, headers: Headers, parser: Any) -> Request:
    """The request that a parser has read the head of. Raises `RefusedError`.

    `parser` says whether the connection may be kept and whether an upgrade is wanted.
    """
    found = found_in(headers)
    name = _METHODS.get(method)
    if name is None:
        name = _METHODS[method] = method.decode()  # llhttp knows a few dozen methods and no others
    request = Request(name, target, headers, found)
    if len(found) != len(headers):
        _check_single(headers)
    keep = request.keep_alive = parser.should_keep_alive()
    # A head that keeps its connection without asking for it is HTTP/1.1: only the others need a look.
    if (not keep or b"connection" in found or b"host" not in found) and _is_old(parser.get_http_version()):
        request.old = True
    elif b"host" not in found:
        raise RefusedError(400, "invalid_request", "the Host header is missing")
    if b"content-length" in found or b"transfer-encoding" in found:
        _measure(request)
    if not target.startswith(b"/"):
        request.target = _origin_form(target, found)
    if name == "CONNECT":
        raise RefusedError(405, "invalid_request", "CONNECT is not served here")
    if parser.should_upgrade():
        if request.has_body:
            raise RefusedError(400, "invalid_request", "a request that asks for an upgrade has no body")
        request.upgrade = True
    return request


def found_in(headers: Headers) -> dict[bytes, bytes]:
    """The headers by name; of several lines the last, but of Connection all (RFC 9110 5.3, 7.6.1)."""
    found = dict(headers)
    if len(found) != len(headers) and b"connection" in found:
        found[b"connection"] = b",".join(_all(headers, b"connection"))
    return found


def _origin_form(target: bytes, found: Mapping[bytes, bytes]) -> bytes:
    """The path and query of a target in absolute form (RFC 9112 3.2.2)."""
    scheme, _, rest = target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if scheme.lower() not in {b"http", b"https"} or not slash or authority != found.get(b"host", b"").strip():
        return target  # it begins with no path that is served here
    return slash + path


def _is_old(version: str) -> bool:
    if version not in {"1.0", "1.1"}:
        raise RefusedError(505, "invalid_request", "HTTP/1.1 is spoken here")
    return version == "1.0"


def _check_single(headers: Headers) -> None:
    names = [name for name, _ in headers]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise RefusedError(400, "invalid_request", f"the header {name.decode()} stands twice")


def _measure(request: Request) -> None:
    coding = request.found.get(b"transfer-encoding")
    if coding is not None:
        if request.old or coding.strip().lower() != b"chunked":
            raise RefusedError(400, "invalid_request", "the only Transfer-Encoding is chunked, of HTTP/1.1")
        request.chunked = request.has_body = True
    else:
        request.length = int(request.found[b"content-length"])  # digits only: llhttp saw to that
        request.has_body = request.length > 0
    request.complete = not request.has_body


def wants_websocket(request: Request) -> bool:
    """Whether the request asks for a WebSocket: the only upgrade that is passed on.

    Others (h2c above all) would let requests through the tunnel that nobody has judged.
    """
    return (
        request.upgrade
        and request.method == "GET"
        and not request.old
        and request.found.get(b"upgrade", b"").strip().lower() == b"websocket"
    )


def request_head(
    request: Request, forward: bytes, identity: bytes, client: bytes, scheme: bytes, *, websocket: bool
) -> bytes:
    """The head that an app is sent: the client's headers without what is the gateway's own to say."""
    found = request.found
    nominated = _nominated(found)
    lines: list[bytes] = [b"%s %s HTTP/1.1\r\n" % (request.method.encode(), forward)]
    if host := found.get(b"host"):
        lines.append(b"host: %s\r\nx-forwarded-host: %s\r\n" % (host, host))
    else:
        lines.append(b"host: %s\r\n" % request.app.encode())
    key_is_elsewhere = b"x-api-key" in found
    for name, value in request.headers:
        # Apps that speak CGI or WSGI read "_" and "-" alike.
        seen = name.replace(b"_", b"-") if b"_" in name else name
        if seen in _NOT_TO_APPS or seen in nominated or seen.startswith(IDENTITY_PREFIX):
            continue
        if seen == b"authorization" and not key_is_elsewhere:
            continue
        lines.append(b"%s: %s\r\n" % (name, value))
    if request.chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif b"content-length" in found:
        lines.append(b"content-length: %d\r\n" % request.length)
    came = found.get(b"x-forwarded-for")
    forwarded_for = b", ".join([*_all(request.headers, b"x-forwarded-for"), client]) if came else client
    lines.append(
        b"x-forwarded-for: %s\r\nx-forwarded-proto: %s\r\nx-forwarded-prefix: /apps/%s\r\n%s"
        % (forwarded_for, scheme, request.app.encode(), identity)
    )
    lines.append(b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n" if websocket else b"\r\n")
    return b"".join(lines)


def answer_head(
    status: int, headers: Headers, found: Mapping[bytes, bytes], framing: bytes, extra: bytes
) -> bytes:
    """The head of an app's answer as the client gets it; `framing` says how its end is known."""
    nominated = _nominated(found)
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, "").encode())]
    lines += [
        b"%s: %s\r\n" % (name, value)
        for name, value in headers
        if name not in _HOP_BY_HOP and name != b"content-length" and name not in nominated
    ]
    lines += (framing, extra, b"\r\n")
    return b"".join(lines)


def has_no_body(status: int, method: str) -> bool:
    """Whether an answer has no body whatever its headers say (RFC 9112 6.3)."""
    return status < _NO_BODY_BELOW or status in {_NO_CONTENT, _NOT_MODIFIED} or method == "HEAD"


def _nominated(found: Mapping[bytes, bytes]) -> Iterable[bytes]:
    connection = found.get(b"connection")
    if connection is None:
        return ()
    return {name.strip().lower() for name in connection.split(b",")}


def _all(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_CHALLENGES = {
    401: 'www-authenticate: Bearer realm="transom"',
    403: 'www-authenticate: Bearer realm="transom", error="insufficient_scope"',
}


@lru_cache(maxsize=512)
def refusal(status: int, error: str, message: str, retry_after_seconds: int) -> tuple[bytes, bytes]:
    """A refusal's head, as `own_head` makes it, and its body. Kept, because most refusals are alike."""
    body = _encode({"error": error, "message": message})
    extra = ""
    challenge = _CHALLENGES.get(status)
    if challenge is not None:
        named = (
            ', error="invalid_token"'
            if status == HTTPStatus.UNAUTHORIZED and error == "invalid_token"
            else ""
        )
        extra += f"{challenge}{named}\r\n"
    if retry_after_seconds:
        extra += f"retry-after: {retry_after_seconds}\r\n"
    return own_head(status, len(body), "application/json", extra.encode()), body


def own_head(status: int, length: int, content_type: str, extra: bytes = b"") -> bytes:
    """The head of the gateway's own answers, without its last lines (date, connection, an empty one)."""
    kind = f"content-type: {content_type}\r\n" if content_type else ""
    start = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\ncontent-length: {length}\r\n{kind}"
    return start.encode() + extra
