"""For whom a request is: which app its path names, which key it brings. Pure; what is ambiguous is refused.

Two servers that read one path differently are how checks are passed by (`/apps/mine/..%2f..`), so a path is
either plain or it is refused (400); nothing is normalised here, and what was checked is what is forwarded.

**The layout.** `/apps/{app}/…`. The app is the second segment, in small letters, digits, "-" and ".", never
percent-encoded. Anywhere in the path a "." or ".." segment, in any encoding, a backslash, a path parameter
behind dots ("..;"), a control character or a "#" is refused. A path that begins in another way names no app.

**The decision endpoint.** Who asks says what the client asked for, in exactly one of these ways, tried in
this order:

1. `/decide/…` (Envoy's `path_prefix`): what follows the prefix is the client's own path and query, and the
   method is the request's own. Headers and `?app=` are not looked at: a client could have sent them.
2. `/decide?app=NAME` (other layouts; the operator writes it into the proxy's configuration): this app. The
   method must stand in `X-Original-Method` or `X-Forwarded-Method`.
3. `/decide` with `X-Original-URI` and `X-Original-Method` (nginx), or `X-Forwarded-Uri` and
   `X-Forwarded-Method` (Traefik). Both pairs at once, half a pair, or a header that stands twice is refused:
   one of them came from the client, and nobody can say which.
4. `/decide` alone: the key is judged, for no app.

**The key.** `Authorization: Bearer KEY` or `X-Api-Key: KEY`, not both. Beside `X-Api-Key` an `Authorization`
of another scheme is the app's own affair and is forwarded.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

DECIDE = b"/decide"
APPS = b"/apps/"

_PLAIN_TARGET = rb"/apps/([a-z0-9][a-z0-9.-]{0,252})((?:/(?!\.)[^%\\;#?/\x00-\x20\x7f-\xff]*)*)(\?[!-~]*)?"
_PLAIN = re.compile(_PLAIN_TARGET)
_NAMED = re.compile(rb"/apps/([a-z0-9][a-z0-9.-]{0,252})(/[^?]*)?(\?.*)?")
_VISIBLE = re.compile(rb"[!-~]+")
_APP_NAME = re.compile(rb"[a-z0-9][a-z0-9.-]{0,252}")
_METHOD = re.compile(rb"[A-Z]{1,32}")
_DOTS = re.compile(rb"(?:^|[/\\])\.{1,2}(?:;[^/\\]*)?(?:$|[/\\])")
_CLOAKED_TWICE = 2  # servers behind servers decode once each; more rounds than this nobody does
_BEARER = b"bearer "


class RefusedError(Exception):
    """The request is refused: `status`, a short code, and a sentence that holds nothing of the request's."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message


class Target(NamedTuple):
    """What a request is for: the app ("" for none), what is forwarded to it, and the path without query."""

    app: str
    forward: bytes
    path: bytes


class Asked(NamedTuple):
    """What the decision endpoint is asked: may this method be used on this app."""

    app: str
    method: str
    path: bytes


def target_of(uri: bytes) -> Target:
    """The target of the path and query that a client sent. Raises `RefusedError` for what is not plain."""
    plain = _PLAIN.fullmatch(uri)
    if plain is not None:
        app, rest, query = plain.groups(b"")
        return Target(app.decode(), (rest or b"/") + query, uri[: len(uri) - len(query)])
    return _looked_into(uri)


def _looked_into(uri: bytes) -> Target:
    if not uri.startswith(b"/") or _VISIBLE.fullmatch(uri) is None or b"#" in uri:
        raise _bad("the path must begin with / and hold visible ASCII characters, and no #")
    path = uri.partition(b"?")[0]
    seen = path
    for _ in range(_CLOAKED_TWICE + 1):
        if b"\\" in seen or _DOTS.search(seen) or b"\x00" in seen:
            raise _bad("the path holds a backslash or a segment of dots, perhaps encoded; send it resolved")
        seen = unquote_to_bytes(seen)
    named = _NAMED.fullmatch(uri)
    if named is not None:
        app, rest, query = named.groups(b"")
        return Target(app.decode(), (rest or b"/") + query, path)
    # Whatever another server could take for /apps/… must not pass as a path that names no app.
    first = seen.lstrip(b"/").partition(b"/")[0].partition(b";")[0].lower()
    if first == b"apps" or path.startswith(b"//"):
        raise _bad(
            "the path names no app plainly; it must begin with /apps/NAME/, in small letters, unencoded"
        )
    return Target("", uri, path)


asked_plainly = re.compile(DECIDE + _PLAIN_TARGET).fullmatch
"""The most common question, `/decide/apps/NAME/…` with a plain path: its first group is the app; None: see
`asked_of`.
"""


def asked_of(target: bytes, method: str, headers: Mapping[bytes, bytes]) -> Asked:
    """What the decision endpoint is asked by a request for `target`, which begins with `DECIDE`.

    Raises `RefusedError`; see the module's text for what wins.
    """
    rest = target[len(DECIDE) :]
    if rest.startswith(b"/"):
        wanted = target_of(rest)
        return Asked(wanted.app, method, wanted.path)
    original, forwarded = headers.get(b"x-original-uri"), headers.get(b"x-forwarded-uri")
    if rest:
        return _asked_by_name(rest, headers)
    if original is None and forwarded is None:
        if b"x-original-method" in headers or b"x-forwarded-method" in headers:
            raise _bad(
                "a method without its URI: have the proxy send both X-Original-URI and X-Original-Method"
            )
        return Asked("", method, b"")
    if original is not None and forwarded is not None:
        raise _bad(
            "X-Original-URI and X-Forwarded-Uri at once: have the proxy remove the one it does not set"
        )
    if original is not None:
        uri, said = original, headers.get(b"x-original-method")
    else:
        uri, said = forwarded or b"", headers.get(b"x-forwarded-method")
    wanted = target_of(uri)
    return Asked(wanted.app, _method(said), wanted.path)


def _asked_by_name(rest: bytes, headers: Mapping[bytes, bytes]) -> Asked:
    name = rest.removeprefix(b"?app=")
    if not rest.startswith(b"?app=") or _APP_NAME.fullmatch(name) is None:
        raise _bad(
            "the decision endpoint is /decide, /decide?app=NAME or /decide followed by the client's path"
        )
    original, forwarded = headers.get(b"x-original-method"), headers.get(b"x-forwarded-method")
    if original is not None and forwarded is not None:
        raise _bad("X-Original-Method and X-Forwarded-Method at once: remove the one the proxy does not set")
    return Asked(name.decode(), _method(original if original is not None else forwarded), b"")


def _method(said: bytes | None) -> str:
    # Without this, a client could choose the method that is judged, or every request would pass as a GET.
    if said is None or _METHOD.fullmatch(said) is None:
        raise _bad("the client's method is missing: have the proxy send it in X-Original-Method")
    return said.decode()


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The key that a request brings, empty for none; `headers` is known to have no key header twice.

    Raises `RefusedError` when it brings two.
    """
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[:7] == b"Bearer " and b"x-api-key" not in headers:
        return authorization[7:].strip()
    if authorization is None:
        return headers.get(b"x-api-key", b"").strip()
    bearer = authorization[:7].lower() == _BEARER
    if b"x-api-key" not in headers:
        return authorization[7:].strip() if bearer else b""
    if bearer:
        raise _bad("a key in Authorization and another in X-Api-Key; send one")
    return headers[b"x-api-key"].strip()


def _bad(message: str) -> RefusedError:
    return RefusedError(400, "invalid_request", message)
